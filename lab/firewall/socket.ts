/**
 * The firewall's UDP socket: any number of datagrams from any sender with one call (recvmmsg, with
 * UDP_GRO), answers with one call (sendmmsg, with UDP_SEGMENT), each to its sender's address at the
 * tunnel port, from this socket; or as a gateway's appliance answers (gateway.ts). The bytes are
 * never copied: what is sent back is what was received, in the place where it was received, whole
 * or as runs of it.
 *
 *     memory   | slot 0: 64 KiB | slot 1 | … | held 0: 16 KiB | held 1 | … |
 */
import {
  type Address,
  addressOf,
  allocate,
  bind,
  check,
  close,
  errno,
  type Fd,
  LITTLE_ENDIAN,
  type Region,
  recvmmsg,
  sendmmsg,
  setPointer,
  setsockopt,
  socket,
} from '../../linux/syscall.ts';
import { GatewaySender, gatewayHeaderLength } from './gateway.ts';

// include/linux/socket.h, include/uapi/linux/in.h, udp.h, asm-generic/socket.h
const AF_INET = 2;
const SOCK_DGRAM = 2;
const SOCK_CLOEXEC = 0o2000000;
const SOL_SOCKET = 1;
const SO_REUSEADDR = 2;
const SO_RCVTIMEO = 20;
const SO_SNDBUFFORCE = 32;
const SO_RCVBUFFORCE = 33;
const SOL_UDP = 17;
const UDP_SEGMENT = 103;
const UDP_GRO = 104;
const MSG_TRUNC = 0x20;
const MSG_WAITFORONE = 0x10000;

/** struct msghdr and mmsghdr of 64-bit Linux. */
const msghdr = { name: 0, namelen: 8, iov: 16, iovlen: 24, control: 32, controllen: 40, flags: 48 };
const mmsghdrLength = 64;
const mmsghdrLen = 56;
const iovecLength = 16;
const sockaddrLength = 16;
/** CMSG_SPACE and CMSG_LEN of an int and of a u16: header 16, data, padding to 8. */
const cmsgSpace = 24;
const cmsgSegmentLength = 18;

/** Datagrams in one receive: enough to fill 64 KiB slots while the last batch was looked at. */
const slotCount = 32;
const slotLength = 65536;
/** Datagrams that can be held back for reordering, and how long they may be. */
const heldCount = 16;
const heldLength = 16384;
/** Answers and runs in one send. */
const answerCount = 512;
const runCount = 4096;
const socketBufferLength = 16 * 1024 * 1024;

/** `gateway`: as appliances behind a gateway load balancer. */
export type AnswerStyle = 'plain' | 'gateway';

export class FirewallSocket {
  /** Over all of the memory: offsets below are into it. */
  readonly view: DataView;
  /** Columns of what the last receive brought. */
  readonly at = new Int32Array(slotCount);
  readonly length = new Int32Array(slotCount);
  /** Each datagram of a joined one but the last has this length. */
  readonly segmentSize = new Int32Array(slotCount);
  /** Sender's address, as int32. */
  readonly source = new Int32Array(slotCount);
  /** Answers that the kernel did not take. */
  refused = 0;
  private readonly fd: Fd;
  private readonly port: number;
  private readonly gateway: GatewaySender | undefined;
  private readonly memory: Region = allocate(slotCount * slotLength + heldCount * heldLength);
  private readonly receiveHeaders: Region = allocate(slotCount * mmsghdrLength);
  private readonly receiveVectors: Region = allocate(slotCount * iovecLength);
  private readonly receiveControls: Region = allocate(slotCount * cmsgSpace);
  /** Of the slots, then of the held ones. */
  private readonly names: Region = allocate((slotCount + heldCount) * sockaddrLength);
  private readonly sendHeaders: Region = allocate(answerCount * mmsghdrLength);
  private readonly sendVectors: Region = allocate(runCount * iovecLength);
  private readonly sendControls: Region = allocate(answerCount * cmsgSpace);
  private answers = 0;
  private runs = 0;
  private held = 0;

  /** Bind to `address` and `port`; answers go to that port too. `idleMs`: longest wait. */
  constructor(address: string, port: number, idleMs: number, style: AnswerStyle) {
    this.port = port;
    const octets = address.split('.').map(Number);
    this.view = this.memory.view;
    this.fd = check(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), 'socket');
    this.setOption(SOL_SOCKET, SO_REUSEADDR, 1);
    this.setOption(SOL_SOCKET, SO_RCVBUFFORCE, socketBufferLength);
    this.setOption(SOL_SOCKET, SO_SNDBUFFORCE, socketBufferLength);
    this.setOption(SOL_UDP, UDP_GRO, 1);
    const timeval = allocate(16);
    timeval.view.setUint32(0, Math.floor(idleMs / 1000), LITTLE_ENDIAN);
    timeval.view.setUint32(8, (idleMs % 1000) * 1000, LITTLE_ENDIAN);
    check(setsockopt(this.fd, SOL_SOCKET, SO_RCVTIMEO, timeval.address, 16), 'setsockopt');
    const name = allocate(sockaddrLength);
    name.view.setUint16(0, AF_INET, LITTLE_ENDIAN);
    name.view.setUint16(2, port);
    name.bytes.set(octets, 4);
    check(bind(this.fd, name.address, sockaddrLength), `bind to UDP ${address}:${port}`);
    if (style === 'gateway') {
      this.gateway = new GatewaySender(octets, port, answerCount, socketBufferLength);
    }
    this.prepareReceive();
    this.prepareSend();
  }

  /** Wait for datagrams, at most `idleMs`. Returns how many; a truncated one has length 0. */
  receive(): number {
    const { view } = this.receiveHeaders;
    for (let slot = 0; slot < slotCount; slot++) {
      view.setUint32(slot * mmsghdrLength + msghdr.namelen, sockaddrLength, LITTLE_ENDIAN);
      view.setUint32(slot * mmsghdrLength + msghdr.controllen, cmsgSpace, LITTLE_ENDIAN);
    }
    const headers = this.receiveHeaders.address;
    const count = recvmmsg(this.fd, headers, slotCount, MSG_WAITFORONE, 0);
    for (let slot = 0; slot < count; slot++) this.readHeader(slot);
    return Math.max(0, count);
  }

  /** Whether an answer may be several datagrams. */
  get joins(): boolean {
    return this.gateway === undefined;
  }

  /** Begin an answer to the sender of `slot`. `segmentSize` 0: one datagram, not to be cut. */
  begin(slot: number, segmentSize: number): void {
    if (this.answers === answerCount || this.runs + 128 > runCount) this.flush();
    this.beginTo(slot, segmentSize);
  }

  /** Add `length` bytes at `at` to the answer that was begun; joins what lies side by side. */
  add(at: number, length: number): void {
    const header = (this.answers - 1) * mmsghdrLength;
    const { view } = this.sendHeaders;
    const count = view.getUint32(header + msghdr.iovlen, LITTLE_ENDIAN);
    this.gateway?.setPayloadLength(this.answers - 1, length);
    const address = this.memory.address + at;
    if (count > 0) {
      const last = (this.runs - 1) * iovecLength;
      const lastLength = this.sendVectors.view.getUint32(last + 8, LITTLE_ENDIAN);
      if (this.lastEnd === address) {
        this.sendVectors.view.setUint32(last + 8, lastLength + length, LITTLE_ENDIAN);
        this.lastEnd += length;
        return;
      }
    }
    const vector = this.runs * iovecLength;
    setPointer(this.sendVectors.view, vector, address);
    this.sendVectors.view.setUint32(vector + 8, length, LITTLE_ENDIAN);
    view.setUint32(header + msghdr.iovlen, count + 1, LITTLE_ENDIAN);
    this.lastEnd = address + length;
    this.runs++;
  }
  private lastEnd: Address = 0;

  /** Copy a datagram aside, to be sent by `release`. False: no room, or it is too long. */
  hold(slot: number, at: number, length: number): boolean {
    if (this.held === heldCount || length > heldLength) return false;
    const heldAt = slotCount * slotLength + this.held * heldLength;
    this.memory.bytes.copyWithin(heldAt, at, at + length);
    const name = (slotCount + this.held) * sockaddrLength;
    this.names.bytes.copyWithin(name, slot * sockaddrLength, (slot + 1) * sockaddrLength);
    this.heldLengths[this.held++] = length;
    return true;
  }
  private readonly heldLengths = new Int32Array(heldCount);

  /** Send what was held, and whatever else is waiting. Returns how many had been held. */
  release(): number {
    const count = this.held;
    if (count > 0 && this.answers + count > answerCount) this.flush();
    for (let index = 0; index < count; index++) {
      this.beginTo(slotCount + index, 0);
      this.add(slotCount * slotLength + index * heldLength, this.heldLengths[index]!);
    }
    this.flush();
    this.held = 0;
    return count;
  }

  get heldDatagrams(): number {
    return this.held;
  }

  /**
   * Send all answers in order; waits while the socket is full. What the kernel refuses is counted.
   */
  flush(): void {
    const fd = this.gateway?.fd ?? this.fd;
    let sent = 0;
    while (sent < this.answers) {
      const headers = this.sendHeaders.address + sent * mmsghdrLength;
      const count = sendmmsg(fd, headers, this.answers - sent, 0);
      if (count > 0) {
        sent += count;
      } else if (errno() !== EINTR) {
        this.refused++;
        sent++;
      }
    }
    this.answers = 0;
    this.runs = 0;
    this.lastEnd = 0;
  }

  close(): void {
    close(this.fd);
    this.gateway?.close();
  }

  private beginTo(name: number, segmentSize: number): void {
    const { view } = this.sendHeaders;
    const header = this.answers * mmsghdrLength;
    setPointer(view, header + msghdr.name, this.names.address + name * sockaddrLength);
    setPointer(view, header + msghdr.iov, this.sendVectors.address + this.runs * iovecLength);
    view.setUint32(header + msghdr.iovlen, 0, LITTLE_ENDIAN);
    view.setUint32(header + msghdr.controllen, segmentSize === 0 ? 0 : cmsgSpace, LITTLE_ENDIAN);
    this.sendControls.view.setUint16(this.answers * cmsgSpace + 16, segmentSize, LITTLE_ENDIAN);
    this.lastEnd = 0;
    if (this.gateway !== undefined) this.beginGateway(this.gateway, header, name);
    this.answers++;
  }

  private beginGateway(gateway: GatewaySender, header: number, name: number): void {
    const target = this.names.view.getInt32(name * sockaddrLength + 4);
    const port = this.names.view.getUint16(name * sockaddrLength + 2);
    const vector = this.runs * iovecLength;
    setPointer(this.sendVectors.view, vector, gateway.begin(this.answers, target, port));
    this.sendVectors.view.setUint32(vector + 8, gatewayHeaderLength, LITTLE_ENDIAN);
    this.sendHeaders.view.setUint32(header + msghdr.iovlen, 1, LITTLE_ENDIAN);
    this.runs++;
  }

  private readHeader(slot: number): void {
    const header = slot * mmsghdrLength;
    const { view } = this.receiveHeaders;
    const length = view.getUint32(header + mmsghdrLen, LITTLE_ENDIAN);
    const truncated = (view.getUint32(header + msghdr.flags, LITTLE_ENDIAN) & MSG_TRUNC) !== 0;
    this.length[slot] = truncated ? 0 : length;
    this.segmentSize[slot] = length;
    if (view.getUint32(header + msghdr.controllen, LITTLE_ENDIAN) >= cmsgSpace) {
      const control = slot * cmsgSpace;
      const type = this.receiveControls.view.getInt32(control + 12, LITTLE_ENDIAN);
      const size = this.receiveControls.view.getInt32(control + 16, LITTLE_ENDIAN);
      if (type === UDP_GRO && size > 0) this.segmentSize[slot] = size;
    }
    this.source[slot] = this.names.view.getInt32(slot * sockaddrLength + 4);
    if (this.joins) this.names.view.setUint16(slot * sockaddrLength + 2, this.port);
  }

  private prepareReceive(): void {
    const { view } = this.receiveHeaders;
    for (let slot = 0; slot < slotCount; slot++) {
      const header = slot * mmsghdrLength;
      const vector = slot * iovecLength;
      this.at[slot] = slot * slotLength;
      setPointer(view, header + msghdr.name, this.names.address + slot * sockaddrLength);
      setPointer(view, header + msghdr.iov, this.receiveVectors.address + vector);
      view.setUint32(header + msghdr.iovlen, 1, LITTLE_ENDIAN);
      setPointer(view, header + msghdr.control, this.receiveControls.address + slot * cmsgSpace);
      setPointer(this.receiveVectors.view, vector, this.memory.address + slot * slotLength);
      this.receiveVectors.view.setUint32(vector + 8, slotLength, LITTLE_ENDIAN);
    }
  }

  private prepareSend(): void {
    const { view } = this.sendHeaders;
    for (let answer = 0; answer < answerCount; answer++) {
      const header = answer * mmsghdrLength;
      const control = answer * cmsgSpace;
      view.setUint32(header + msghdr.namelen, sockaddrLength, LITTLE_ENDIAN);
      setPointer(view, header + msghdr.control, this.sendControls.address + control);
      this.sendControls.view.setUint32(control, cmsgSegmentLength, LITTLE_ENDIAN);
      this.sendControls.view.setInt32(control + 8, SOL_UDP, LITTLE_ENDIAN);
      this.sendControls.view.setInt32(control + 12, UDP_SEGMENT, LITTLE_ENDIAN);
    }
  }

  private setOption(level: number, name: number, value: number): void {
    const option = new Int32Array(new ArrayBuffer(64));
    option[0] = value;
    check(setsockopt(this.fd, level, name, addressOf(option), 4), 'setsockopt');
  }
}

const EINTR = 4;
