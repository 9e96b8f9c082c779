/**
 * Answers as appliances behind a gateway load balancer send them: addresses swapped but ports kept
 * (from the agent's own source port to the tunnel's port), TTL 2, DF 0, no UDP checksum, one
 * datagram a packet. No UDP socket can send from a port that it is not bound to, so a raw one sends
 * our own headers.
 *
 *     | IPv4: 20 bytes | UDP: 8 bytes |   one for each answer, in front of its bytes
 */
import {
  type Address,
  allocate,
  check,
  close,
  type Fd,
  LITTLE_ENDIAN,
  type Region,
  setsockopt,
  socket,
} from '../../linux/syscall.ts';

// include/linux/socket.h, include/uapi/linux/in.h, asm-generic/socket.h
const AF_INET = 2;
const SOCK_RAW = 3;
const SOCK_CLOEXEC = 0o2000000;
const IPPROTO_RAW = 255;
const SOL_SOCKET = 1;
const SO_SNDBUFFORCE = 32;

/** What such appliances were seen to send; the load balancer is their neighbour. */
const timeToLive = 2;
const udp = 17;
export const gatewayHeaderLength = 28;

export class GatewaySender {
  /** IPPROTO_RAW: it takes whole packets and receives nothing. */
  readonly fd: Fd;
  private readonly headers: Region;

  /** `source`: four bytes, where the answers come from; `port`: where they go to. */
  constructor(source: readonly number[], port: number, answers: number, bufferLength: number) {
    this.fd = check(socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW), 'raw socket');
    const size = allocate(4);
    size.view.setInt32(0, bufferLength, LITTLE_ENDIAN);
    check(setsockopt(this.fd, SOL_SOCKET, SO_SNDBUFFORCE, size.address, 4), 'setsockopt');
    this.headers = allocate(answers * gatewayHeaderLength);
    const { bytes, view } = this.headers;
    for (let at = 0; at < bytes.length; at += gatewayHeaderLength) {
      // raw(7): the kernel fills in total length, identification and header checksum.
      view.setUint8(at, 0x45);
      view.setUint8(at + 8, timeToLive);
      view.setUint8(at + 9, udp);
      bytes.set(source, at + 12);
      view.setUint16(at + 22, port);
    }
  }

  /** Address the header of an answer to `target` (int32), whose datagram came from `port`. */
  begin(answer: number, target: number, port: number): Address {
    const at = answer * gatewayHeaderLength;
    this.headers.view.setInt32(at + 16, target);
    this.headers.view.setUint16(at + 20, port);
    return this.headers.address + at;
  }

  setPayloadLength(answer: number, length: number): void {
    this.headers.view.setUint16(answer * gatewayHeaderLength + 24, 8 + length);
  }

  close(): void {
    close(this.fd);
  }
}
