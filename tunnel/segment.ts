/**
 * From packets to tunnel datagrams, payload uncopied: a plan of pieces, headers built in scratch
 * memory between slices of the packet where it was read. Three ways:
 *
 * 1. `wrapPacket`: an ordinary packet gets a tunnel header in front.
 * 2. `segmentPacket`: a super-packet is cut into packets as the kernel would have cut it
 *    (Linux net/ipv4/tcp_offload.c tcp_gso_segment, udp_offload.c __udp_gso_segment), as many per
 *    call as one UDP_SEGMENT send carries.
 * 3. `fragmentPacket`: a packet that is too big and may be fragmented (RFC 791 section 3.2).
 *
 *     super-packet:  | IP | TCP | payload 1 | payload 2 | payload 3 |
 *     pieces:        [tunnel|IP|TCP][payload 1][tunnel|IP|TCP][payload 2][tunnel|IP|TCP][payload 3]
 *
 * Relies on packets that passed `checkIpv4` and their transport's check.
 */
import { fold, pseudoHeaderSum, sum } from '../parsers/checksum.ts';
import {
  finishIpv4Checksum,
  ipv4FragmentOffset,
  ipv4HeaderLength,
  ipv4Id,
  ipv4MaximumHeaderLength,
  ipv4MinimumHeaderLength,
  ipv4MoreFragments,
  ipv4TotalLength,
  Protocol,
  setIpv4Fragment,
  setIpv4Id,
  setIpv4TotalLength,
} from '../parsers/ipv4.ts';
import {
  setTcpChecksum,
  setTcpFlags,
  setTcpSequence,
  TcpFlag,
  tcpFlags,
  tcpHeaderLength,
  tcpMaximumHeaderLength,
  tcpSequence,
} from '../parsers/tcp.ts';
import { setUdpChecksum, setUdpLength, udpHeaderLength } from '../parsers/udp.ts';
import type { Encapsulation } from './encapsulation.ts';
import {
  addPiece,
  type Direction,
  Gso,
  maximumDatagramLength,
  maximumSegments,
  type Pieces,
} from './pieces.ts';

/**
 * The packet being cut and how far it is. A reused record: the caller sets every field but
 * `datagramSize` per packet, `nextPayload` to 0.
 */
export type Cursor = {
  /** The IPv4 header. */
  at: number;
  length: number;
  gso: Gso;
  /** Payload bytes behind each segment's transport header; the same for the whole packet. */
  payloadPerSegment: number;
  encapsulation: Encapsulation;
  direction: Direction;
  /** int32. */
  cookie: number;
  /** Where the next header is built; moved on by every call. */
  scratchAt: number;
  /** Offset of the first payload byte not yet cut. */
  nextPayload: number;
  /** Of the last call: bytes of each datagram but the last, or 0 when there is just one. */
  datagramSize: number;
};

export function createCursor(encapsulation: Encapsulation): Cursor {
  return {
    at: 0,
    length: 0,
    gso: Gso.None,
    payloadPerSegment: 0,
    encapsulation,
    direction: 0,
    cookie: 0,
    scratchAt: 0,
    nextPayload: 0,
    datagramSize: 0,
  };
}

/** Scratch bytes that one call may need: the caller has at least so many free. */
export function scratchPerCall(encapsulation: Encapsulation): number {
  const headers = ipv4MaximumHeaderLength + tcpMaximumHeaderLength;
  return maximumSegments * (encapsulation.headerLength + headers);
}

/** Put the packet, as it is, behind a tunnel header. Its transport checksum must be complete. */
export function wrapPacket(view: DataView, cursor: Cursor, pieces: Pieces): void {
  const { encapsulation } = cursor;
  pieces.count = 0;
  encapsulation.write(view, cursor.scratchAt, cursor.direction, cursor.cookie);
  addPiece(pieces, cursor.scratchAt, encapsulation.headerLength);
  addPiece(pieces, cursor.at, cursor.length);
  cursor.scratchAt += encapsulation.headerLength;
  cursor.datagramSize = 0;
}

/**
 * Cut the next segments of a super-packet into `pieces`, header and payload in turn. The checksum
 * of the input may be partial; those of the segments are complete. Returns how many segments there
 * are, 0 when nothing is left: call it until then.
 */
export function segmentPacket(
  bytes: Uint8Array,
  view: DataView,
  cursor: Cursor,
  pieces: Pieces,
): number {
  pieces.count = 0;
  cursor.datagramSize = 0;
  const isTcp = cursor.gso === Gso.Tcp4;
  const ipLength = ipv4HeaderLength(view, cursor.at);
  const transportAt = cursor.at + ipLength;
  const transportLength = isTcp ? tcpHeaderLength(view, transportAt) : udpHeaderLength;
  const headersLength = ipLength + transportLength;
  const payloadAt = cursor.at + headersLength;
  const payloadLength = ipv4TotalLength(view, cursor.at) - headersLength;
  const perSegment = cursor.payloadPerSegment;
  if (perSegment <= 0) return 0;

  const tunnelLength = cursor.encapsulation.headerLength;
  const datagramSize = tunnelLength + headersLength + perSegment;
  const fitting = Math.floor(maximumDatagramLength / datagramSize);
  const limit = Math.max(1, Math.min(maximumSegments, fitting));
  let segments = 0;
  while (segments < limit && cursor.nextPayload < payloadLength) {
    const offset = cursor.nextPayload;
    const segmentLength = Math.min(perSegment, payloadLength - offset);
    const isLast = offset + segmentLength === payloadLength;
    const ipAt = cursor.scratchAt + tunnelLength;
    cursor.encapsulation.write(view, cursor.scratchAt, cursor.direction, cursor.cookie);
    copyWords(view, ipAt, cursor.at, headersLength);
    setIpv4TotalLength(view, ipAt, headersLength + segmentLength);
    setIpv4Id(view, ipAt, ipv4Id(view, cursor.at) + offset / perSegment);
    finishIpv4Checksum(view, ipAt);
    if (isTcp) {
      finishTcp(bytes, view, ipAt, ipLength, offset, isLast, payloadAt + offset, segmentLength);
    } else {
      finishUdp(bytes, view, ipAt, ipLength, payloadAt + offset, segmentLength);
    }
    addPiece(pieces, cursor.scratchAt, tunnelLength + headersLength);
    addPiece(pieces, payloadAt + offset, segmentLength);
    cursor.scratchAt = ipAt + headersLength;
    cursor.nextPayload = offset + segmentLength;
    segments++;
  }
  if (segments > 1) cursor.datagramSize = datagramSize;
  return segments;
}

/** Sequence number, flags and checksum of one segment, its header being a copy of the whole's. */
function finishTcp(
  bytes: Uint8Array,
  view: DataView,
  ipAt: number,
  ipLength: number,
  offset: number,
  isLast: boolean,
  payloadAt: number,
  payloadLength: number,
): void {
  const tcpAt = ipAt + ipLength;
  const headerLength = tcpHeaderLength(view, tcpAt);
  let flags = tcpFlags(view, tcpAt);
  // What is said once stays where the receiver expects it: the end of data at the end, the
  // congestion answer (RFC 3168 section 6.1.2) at the start.
  if (!isLast) flags &= ~(TcpFlag.Fin | TcpFlag.Psh);
  if (offset !== 0) flags &= ~TcpFlag.Cwr;
  setTcpSequence(view, tcpAt, tcpSequence(view, tcpAt) + offset);
  setTcpFlags(view, tcpAt, flags);
  setTcpChecksum(view, tcpAt, 0);
  const pseudo = pseudoHeaderSum(view, ipAt, Protocol.Tcp, headerLength + payloadLength);
  const headers = sum(bytes, view, tcpAt, headerLength, pseudo);
  setTcpChecksum(view, tcpAt, fold(sum(bytes, view, payloadAt, payloadLength, headers)));
}

function finishUdp(
  bytes: Uint8Array,
  view: DataView,
  ipAt: number,
  ipLength: number,
  payloadAt: number,
  payloadLength: number,
): void {
  const udpAt = ipAt + ipLength;
  const length = udpHeaderLength + payloadLength;
  setUdpLength(view, udpAt, length);
  setUdpChecksum(view, udpAt, 0);
  const pseudo = pseudoHeaderSum(view, ipAt, Protocol.Udp, length);
  const headers = sum(bytes, view, udpAt, udpHeaderLength, pseudo);
  const checksum = fold(sum(bytes, view, payloadAt, payloadLength, headers));
  // 0 would say "none was computed" (RFC 768).
  setUdpChecksum(view, udpAt, checksum === 0 ? 0xffff : checksum);
}

/** Copy a multiple of 4 bytes; cheaper than copyWithin for the length of a header. */
function copyWords(view: DataView, target: number, source: number, length: number): void {
  for (let offset = 0; offset < length; offset += 4) {
    view.setInt32(target + offset, view.getInt32(source + offset));
  }
}

/**
 * Cut the next fragment of at most `mtu` bytes, header and payload. The packet may itself be a
 * fragment; its DF bit is the caller's to have looked at, and its transport checksum must be
 * complete. Returns false when nothing is left: call it until then. An `mtu` without room for 8
 * bytes of payload cuts nothing.
 */
export function fragmentPacket(
  view: DataView,
  cursor: Cursor,
  mtu: number,
  pieces: Pieces,
): boolean {
  pieces.count = 0;
  cursor.datagramSize = 0;
  const headerLength = ipv4HeaderLength(view, cursor.at);
  const payloadLength = ipv4TotalLength(view, cursor.at) - headerLength;
  const offset = cursor.nextPayload;
  const remaining = payloadLength - offset;
  const room = mtu - headerLength;
  if (remaining <= 0 || room < 8) return false;

  const isLast = remaining <= room;
  const length = isLast ? remaining : room & ~7;
  const tunnelLength = cursor.encapsulation.headerLength;
  const ipAt = cursor.scratchAt + tunnelLength;
  cursor.encapsulation.write(view, cursor.scratchAt, cursor.direction, cursor.cookie);
  copyWords(view, ipAt, cursor.at, headerLength);
  if (offset !== 0) blankUncopiedOptions(view, ipAt, headerLength);
  setIpv4TotalLength(view, ipAt, headerLength + length);
  const more = !isLast || ipv4MoreFragments(view, cursor.at);
  setIpv4Fragment(view, ipAt, ipv4FragmentOffset(view, cursor.at) + offset, more);
  finishIpv4Checksum(view, ipAt);
  addPiece(pieces, cursor.scratchAt, tunnelLength + headerLength);
  addPiece(pieces, cursor.at + headerLength + offset, length);
  cursor.scratchAt = ipAt + headerLength;
  cursor.nextPayload = offset + length;
  return true;
}

const optionCopied = 0x80;
const optionEnd = 0;
const optionNop = 1;

/**
 * Options without the copied bit belong to the first fragment only (RFC 791 section 3.1). They
 * become no-operations, so that every fragment has a header of one length (Linux
 * ip_options_fragment). Options that make no sense are left as they are.
 */
function blankUncopiedOptions(view: DataView, ipAt: number, headerLength: number): void {
  const end = ipAt + headerLength;
  let position = ipAt + ipv4MinimumHeaderLength;
  while (position + 1 < end) {
    const type = view.getUint8(position);
    if (type === optionEnd) return;
    if (type === optionNop) {
      position++;
      continue;
    }
    const next = position + view.getUint8(position + 1);
    if (next < position + 2 || next > end) return;
    if ((type & optionCopied) === 0) {
      for (let byte = position; byte < next; byte++) view.setUint8(byte, optionNop);
    }
    position = next;
  }
}
