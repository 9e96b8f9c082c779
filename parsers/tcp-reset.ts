/**
 * TCP resets about a segment (RFC 9293 3.10.7.1). Its sender gets what its receiver would send: the
 * sequence number that the segment acknowledges, or, when it acknowledges nothing, zero and an
 * acknowledgment of the segment. Its receiver gets the number that it expects next: the segment's.
 */
import { fold, pseudoHeaderSum, sum } from './checksum.ts';
import {
  ipv4Destination,
  ipv4MinimumHeaderLength,
  ipv4Source,
  ipv4TotalLength,
  Protocol,
  writeIpv4,
} from './ipv4.ts';
import {
  setTcpChecksum,
  TcpFlag,
  tcpAcknowledgment,
  tcpDestinationPort,
  tcpFlags,
  tcpHeaderLength,
  tcpMinimumHeaderLength,
  tcpSequence,
  tcpSourcePort,
  writeTcp,
} from './tcp.ts';

/** Bytes of the whole packet. */
export const resetLength = ipv4MinimumHeaderLength + tcpMinimumHeaderLength;

/** Hop limit of packets that we make ourselves (RFC 1700). */
const timeToLive = 64;

/**
 * To the segment's sender: write a reset of `resetLength` bytes at `at` about the segment whose
 * headers are at `ipAt` and `tcpAt`.
 */
export function writeResetToSender(
  bytes: Uint8Array,
  view: DataView,
  at: number,
  ipAt: number,
  tcpAt: number,
): void {
  const acknowledges = (tcpFlags(view, tcpAt) & TcpFlag.Ack) !== 0;
  const payload = ipv4TotalLength(view, ipAt) - (tcpAt - ipAt) - tcpHeaderLength(view, tcpAt);
  const occupied = (tcpFlags(view, tcpAt) & (TcpFlag.Syn | TcpFlag.Fin)) === 0 ? 0 : 1;
  const sequence = acknowledges ? tcpAcknowledgment(view, tcpAt) : 0;
  const acknowledgment = acknowledges ? 0 : tcpSequence(view, tcpAt) + payload + occupied;
  const flags = acknowledges ? TcpFlag.Rst : TcpFlag.Rst | TcpFlag.Ack;
  const from = tcpDestinationPort(view, tcpAt);
  const to = tcpSourcePort(view, tcpAt);
  writeHeader(view, at, ipv4Destination(view, ipAt), ipv4Source(view, ipAt));
  writeTcp(view, at + ipv4MinimumHeaderLength, from, to, sequence, acknowledgment, flags);
  finish(bytes, view, at);
}

/** To the segment's receiver: a reset in the segment's place, as if its sender had given up. */
export function writeResetToReceiver(
  bytes: Uint8Array,
  view: DataView,
  at: number,
  ipAt: number,
  tcpAt: number,
): void {
  const acknowledges = (tcpFlags(view, tcpAt) & TcpFlag.Ack) !== 0;
  const acknowledgment = acknowledges ? tcpAcknowledgment(view, tcpAt) : 0;
  const flags = acknowledges ? TcpFlag.Rst | TcpFlag.Ack : TcpFlag.Rst;
  const from = tcpSourcePort(view, tcpAt);
  const to = tcpDestinationPort(view, tcpAt);
  const sequence = tcpSequence(view, tcpAt);
  writeHeader(view, at, ipv4Source(view, ipAt), ipv4Destination(view, ipAt));
  writeTcp(view, at + ipv4MinimumHeaderLength, from, to, sequence, acknowledgment, flags);
  finish(bytes, view, at);
}

function writeHeader(view: DataView, at: number, source: number, target: number): void {
  writeIpv4(view, at, 0, resetLength, 0, true, timeToLive, Protocol.Tcp, source, target);
}

function finish(bytes: Uint8Array, view: DataView, at: number): void {
  const tcpAt = at + ipv4MinimumHeaderLength;
  const pseudo = pseudoHeaderSum(view, at, Protocol.Tcp, tcpMinimumHeaderLength);
  setTcpChecksum(view, tcpAt, fold(sum(bytes, view, tcpAt, tcpMinimumHeaderLength, pseudo)));
}
