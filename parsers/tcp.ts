/**
 * The TCP header (RFC 9293 section 3.1). After `checkTcp` said Ok no getter reads past `end`, nor
 * does `clampMss`.
 *
 *      0                   1                   2                   3
 *      0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
 *     +-------------------------------+-------------------------------+
 *     |          Source port          |       Destination port        |
 *     +-------------------------------+-------------------------------+
 *     |                        Sequence number                        |
 *     +---------------------------------------------------------------+
 *     |                     Acknowledgment number                     |
 *     +-------+-------+-+-+-+-+-+-+-+-+-------------------------------+
 *     | Data  |       |C|E|U|A|P|R|S|F|                               |
 *     |offset | Rsrvd |W|C|R|C|S|S|Y|I|            Window             |
 *     |       |       |R|E|G|K|H|T|N|N|                               |
 *     +-------+-------+-+-+-+-+-+-+-+-+-------------------------------+
 *     |           Checksum            |        Urgent pointer         |
 *     +-------------------------------+-------------------------------+
 *     |                     Options (0 to 40 bytes)                   |
 */
import { updateWord } from './checksum.ts';
import { Reason } from './reason.ts';

const sourcePortOffset = 0;
const destinationPortOffset = 2;
const sequenceOffset = 4;
const acknowledgmentOffset = 8;
const dataOffsetOffset = 12;
const flagsOffset = 13;
const windowOffset = 14;
const urgentOffset = 18;

export const tcpChecksumOffset = 16;
export const tcpMinimumHeaderLength = 20;
export const tcpMaximumHeaderLength = 60;

export const TcpFlag = {
  Fin: 1,
  Syn: 2,
  Rst: 4,
  Psh: 8,
  Ack: 16,
  Urg: 32,
  Ece: 64,
  Cwr: 128,
} as const;
export type TcpFlag = (typeof TcpFlag)[keyof typeof TcpFlag];

// RFC 9293 section 3.2.
const optionEnd = 0;
const optionNop = 1;
const optionMss = 2;
const optionMssLength = 4;

/** Ok when the header with its options lies between `at` and `end`. */
export function checkTcp(view: DataView, at: number, end: number): Reason {
  const available = end - at;
  if (available < tcpMinimumHeaderLength) return Reason.TcpTooShort;
  const headerLength = tcpHeaderLength(view, at);
  if (headerLength < tcpMinimumHeaderLength) return Reason.TcpBadHeaderLength;
  if (headerLength > available) return Reason.TcpBadHeaderLength;
  return Reason.Ok;
}

export function tcpSourcePort(view: DataView, at: number): number {
  return view.getUint16(at + sourcePortOffset);
}

export function tcpDestinationPort(view: DataView, at: number): number {
  return view.getUint16(at + destinationPortOffset);
}

/** 0 to 2^32 - 1. */
export function tcpSequence(view: DataView, at: number): number {
  return view.getUint32(at + sequenceOffset);
}

/** 0 to 2^32 - 1. */
export function tcpAcknowledgment(view: DataView, at: number): number {
  return view.getUint32(at + acknowledgmentOffset);
}

/** With options, in bytes. */
export function tcpHeaderLength(view: DataView, at: number): number {
  return (view.getUint8(at + dataOffsetOffset) >> 4) << 2;
}

/** TcpFlag bits. */
export function tcpFlags(view: DataView, at: number): number {
  return view.getUint8(at + flagsOffset);
}

/** Data offset, reserved bits and flags as one word: what must be equal in a super-packet. */
export function tcpOffsetAndFlags(view: DataView, at: number): number {
  return view.getUint16(at + dataOffsetOffset);
}

/** As on the wire, not scaled. */
export function tcpWindow(view: DataView, at: number): number {
  return view.getUint16(at + windowOffset);
}

export function tcpChecksum(view: DataView, at: number): number {
  return view.getUint16(at + tcpChecksumOffset);
}

/** Taken modulo 2^32. */
export function setTcpSequence(view: DataView, at: number, sequence: number): void {
  view.setUint32(at + sequenceOffset, sequence);
}

export function setTcpFlags(view: DataView, at: number, flags: number): void {
  view.setUint8(at + flagsOffset, flags);
}

export function setTcpChecksum(view: DataView, at: number, checksum: number): void {
  view.setUint16(at + tcpChecksumOffset, checksum);
}

/** A header without options or window; the checksum is left 0. Numbers modulo 2^32. */
export function writeTcp(
  view: DataView,
  at: number,
  sourcePort: number,
  destinationPort: number,
  sequence: number,
  acknowledgment: number,
  flags: number,
): void {
  view.setUint16(at + sourcePortOffset, sourcePort);
  view.setUint16(at + destinationPortOffset, destinationPort);
  view.setUint32(at + sequenceOffset, sequence);
  view.setUint32(at + acknowledgmentOffset, acknowledgment);
  view.setUint8(at + dataOffsetOffset, (tcpMinimumHeaderLength / 4) << 4);
  view.setUint8(at + flagsOffset, flags);
  view.setUint16(at + windowOffset, 0);
  view.setUint16(at + tcpChecksumOffset, 0);
  view.setUint16(at + urgentOffset, 0);
}

/**
 * Lower the MSS option of a SYN or SYN-ACK to `mss` bytes where it says more, and correct the
 * checksum by the difference (RFC 1624). With `checksumPartial` the field holds the pseudo-header
 * sum alone and is left as it is. Returns whether anything changed.
 *
 * An absent option stays absent (RFC 9293: then 536 applies). Options that make no sense end the
 * walk: they are the receiver's to judge, not ours.
 */
export function clampMss(
  view: DataView,
  tcpAt: number,
  mss: number,
  checksumPartial: boolean,
): boolean {
  if ((tcpFlags(view, tcpAt) & TcpFlag.Syn) === 0) return false;
  const end = tcpAt + tcpHeaderLength(view, tcpAt);
  let position = tcpAt + tcpMinimumHeaderLength;
  let changed = false;
  while (position + 1 < end) {
    const kind = view.getUint8(position);
    if (kind === optionEnd) break;
    if (kind === optionNop) {
      position++;
      continue;
    }
    const length = view.getUint8(position + 1);
    if (length < 2 || position + length > end) break;
    if (kind === optionMss && length === optionMssLength) {
      if (lowerMss(view, tcpAt, position + 2, mss, checksumPartial)) changed = true;
    }
    position += length;
  }
  return changed;
}

function lowerMss(
  view: DataView,
  tcpAt: number,
  valueAt: number,
  mss: number,
  checksumPartial: boolean,
): boolean {
  const old = view.getUint16(valueAt);
  if (old <= mss) return false;
  view.setUint16(valueAt, mss);
  if (checksumPartial) return true;
  // At an odd place the value's bytes lie in two words with their weights exchanged; ones'
  // complement addition does not mind a rotation by 8 (RFC 1071 section 2 (B)).
  const odd = ((valueAt - tcpAt) & 1) !== 0;
  const oldWord = odd ? swap(old) : old;
  const newWord = odd ? swap(mss) : mss;
  setTcpChecksum(view, tcpAt, updateWord(tcpChecksum(view, tcpAt), oldWord, newWord));
  return true;
}

function swap(word: number): number {
  return ((word & 0xff) << 8) | (word >>> 8);
}
