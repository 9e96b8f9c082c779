/**
 * A TCP reset in answer to a segment, as its receiver would send it (RFC 9293 3.10.7.1): with the
 * sequence number that the segment acknowledges, or, when it acknowledges nothing, zero and an
 * acknowledgment of the segment.
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

/** Write a reset of `resetLength` bytes at `at` about the segment whose headers are at the two. */
export function writeTcpReset(
  bytes: Uint8Array,
  view: DataView,
  at: number,
  ipAt: number,
  tcpAt: number,
): void {
  const acknowledges = (tcpFlags(view, tcpAt) & TcpFlag.Ack) !== 0;
  const payload = ipv4TotalLength(view, ipAt) - (tcpAt - ipAt) - tcpHeaderLength(view, tcpAt);
  const occupied = (tcpFlags(view, tcpAt) & (TcpFlag.Syn | TcpFlag.Fin)) === 0 ? 0 : 1;
  const source = ipv4Destination(view, ipAt);
  const target = ipv4Source(view, ipAt);
  writeIpv4(view, at, 0, resetLength, 0, true, timeToLive, Protocol.Tcp, source, target);
  const resetAt = at + ipv4MinimumHeaderLength;
  writeTcp(
    view,
    resetAt,
    tcpDestinationPort(view, tcpAt),
    tcpSourcePort(view, tcpAt),
    acknowledges ? tcpAcknowledgment(view, tcpAt) : 0,
    acknowledges ? 0 : tcpSequence(view, tcpAt) + payload + occupied,
    acknowledges ? TcpFlag.Rst : TcpFlag.Rst | TcpFlag.Ack,
  );
  const pseudo = pseudoHeaderSum(view, at, Protocol.Tcp, tcpMinimumHeaderLength);
  const checksum = fold(sum(bytes, view, resetAt, tcpMinimumHeaderLength, pseudo));
  setTcpChecksum(view, resetAt, checksum);
}
