/**
 * What a path lets through, asked with UDP datagrams that may not be fragmented: routers and the
 * far end answer by ICMP, which the kernel keeps in the socket's error queue (IP_RECVERR, ip(7)).
 * Cold path, for `doctor`. Whoever drops without a word is not heard: no answer says nothing.
 */
import { constants } from 'node:os';
import * as abi from './abi/net.ts';
import { callFailed } from './errors.ts';
import { Closers } from './fd.ts';
import {
  allocate,
  bind,
  check,
  connect,
  errno,
  type Fd,
  LITTLE_ENDIAN,
  recvmmsg,
  send,
  setPointer,
  setsockopt,
  socket,
} from './syscall.ts';
import { writeSocketAddress } from './udp-message.ts';

/** RFC 792: destination unreachable and its codes, time exceeded. */
const icmpUnreachable = 3;
const icmpTimeExceeded = 11;
const codePort = 3;
const codeTooBig = 4;

const headersLength = 28;
/** `from`: the router or host that says so, int32. */
export type PathAnswer =
  | { readonly kind: 'expired'; readonly from: number }
  | { readonly kind: 'too-big'; readonly from: number; readonly mtu: number }
  | { readonly kind: 'port-closed'; readonly from: number }
  | { readonly kind: 'unreachable'; readonly from: number; readonly code: number };

export class PathProbe {
  private readonly fd: Fd;
  private readonly closers = new Closers();
  private readonly payload = allocate(65_536);
  private readonly message = allocate(abi.mmsghdr.size);
  private readonly control = allocate(512);
  private readonly name = allocate(abi.sockaddr_in.size);
  private readonly vector = allocate(abi.iovec.size);

  /**
   * @param address int32; `port` of the far end
   * @throws SystemError when there is no route
   */
  constructor(address: number, port: number) {
    const type = abi.SOCK_DGRAM | abi.SOCK_NONBLOCK | abi.SOCK_CLOEXEC;
    this.fd = this.closers.own(check(socket(abi.AF_INET, type, 0), 'socket(AF_INET)'));
    try {
      this.set(abi.IP_RECVERR, 1);
      // As large as the interface allows, whatever was learned of the path: that is the question.
      this.set(abi.IP_MTU_DISCOVER, abi.IP_PMTUDISC_PROBE);
      const end = allocate(abi.sockaddr_in.size);
      writeSocketAddress(end.view, 0, 0);
      check(bind(this.fd, end.address, abi.sockaddr_in.size), 'bind');
      writeSocketAddress(end.view, address, port);
      check(connect(this.fd, end.address, abi.sockaddr_in.size), 'connect');
    } catch (error) {
      this.close();
      throw error;
    }
    const { iov_base, iov_len } = abi.iovec;
    setPointer(this.vector.view, iov_base, this.payload.address);
    setPointer(this.vector.view, iov_len, this.payload.bytes.length);
  }

  /**
   * Send a datagram that makes an IPv4 packet of `length` bytes (28 or more).
   * @returns 0, or the errno: EMSGSIZE when the interface itself is narrower
   */
  send(length: number, ttl: number): number {
    this.set(abi.IP_TTL, ttl);
    const size = length - headersLength;
    if (send(this.fd, this.payload.address, size, 0) >= 0) return 0;
    const first = errno();
    // An ICMP error that came meanwhile is told by the next call, once: it is in the queue, too.
    const isTold = first !== constants.errno.EMSGSIZE && first !== constants.errno.EPERM;
    if (isTold && send(this.fd, this.payload.address, size, 0) >= 0) return 0;
    return isTold ? errno() : first;
  }

  /** The next answer that has come; undefined: none. */
  answer(): PathAnswer | undefined {
    for (;;) {
      const { view } = this.message;
      const { msg_control, msg_controllen, msg_iov, msg_iovlen, msg_name, msg_namelen } =
        abi.msghdr;
      setPointer(view, msg_name, this.name.address);
      view.setUint32(msg_namelen, abi.sockaddr_in.size, LITTLE_ENDIAN);
      setPointer(view, msg_iov, this.vector.address);
      setPointer(view, msg_iovlen, 1);
      setPointer(view, msg_control, this.control.address);
      setPointer(view, msg_controllen, this.control.bytes.length);
      if (recvmmsg(this.fd, this.message.address, 1, abi.MSG_ERRQUEUE, 0) < 1) return undefined;
      const answer = this.read(view.getUint32(msg_controllen, LITTLE_ENDIAN));
      if (answer !== undefined) return answer;
    }
  }

  close(): void {
    this.closers.closeAll();
  }

  /** Undefined for an error that is not an ICMP of interest, such as our own EMSGSIZE. */
  private read(controlLength: number): PathAnswer | undefined {
    const { view } = this.control;
    const { cmsg_len, cmsg_level, cmsg_type } = abi.cmsghdr;
    for (let at = 0; at + abi.cmsghdr.size <= controlLength; ) {
      const length = view.getUint32(at + cmsg_len, LITTLE_ENDIAN);
      const isError =
        view.getInt32(at + cmsg_level, LITTLE_ENDIAN) === abi.IPPROTO_IP &&
        view.getInt32(at + cmsg_type, LITTLE_ENDIAN) === abi.IP_RECVERR;
      if (isError) return this.readError(at + abi.cmsghdr.size);
      if (length < abi.cmsghdr.size) return undefined;
      at += (length + 7) & ~7;
    }
    return undefined;
  }

  private readError(at: number): PathAnswer | undefined {
    const { view } = this.control;
    const error = abi.sock_extended_err;
    if (view.getUint8(at + error.ee_origin) !== abi.SO_EE_ORIGIN_ICMP) return undefined;
    const type = view.getUint8(at + error.ee_type);
    const code = view.getUint8(at + error.ee_code);
    const from = view.getInt32(at + error.size + abi.sockaddr_in.sin_addr);
    if (type === icmpTimeExceeded) return { kind: 'expired', from };
    if (type !== icmpUnreachable) return undefined;
    if (code === codePort) return { kind: 'port-closed', from };
    if (code !== codeTooBig) return { kind: 'unreachable', from, code };
    return { kind: 'too-big', from, mtu: view.getUint32(at + error.ee_info, LITTLE_ENDIAN) };
  }

  private set(option: number, value: number): void {
    const region = allocate(4);
    region.view.setInt32(0, value, LITTLE_ENDIAN);
    if (setsockopt(this.fd, abi.IPPROTO_IP, option, region.address, 4) < 0) {
      throw callFailed('setsockopt(IPPROTO_IP)', errno());
    }
  }
}
