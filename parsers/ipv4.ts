/**
 * The IPv4 header (RFC 791 section 3.1). Promises: after `checkIpv4` said Ok no getter reads past
 * `end`; getters do not check again. Never check what you are about to write: a reused buffer
 * holds the last packet. Addresses are int32.
 *
 *      0                   1                   2                   3
 *      0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
 *     +-------+-------+---------------+-------------------------------+
 *     |Version|  IHL  |Type of service|         Total length          |
 *     +-------+-------+---------------+-----+-------------------------+
 *     |        Identification         |0 D M|     Fragment offset     |
 *     +---------------+---------------+-----+-------------------------+
 *     | Time to live  |   Protocol    |        Header checksum        |
 *     +---------------+---------------+-------------------------------+
 *     |                        Source address                         |
 *     +---------------------------------------------------------------+
 *     |                      Destination address                      |
 *     +---------------------------------------------------------------+
 *     |                     Options (0 to 40 bytes)                   |
 */
import { Reason } from './reason.ts';

const versionOffset = 0;
const tosOffset = 1;
const totalLengthOffset = 2;
const idOffset = 4;
const fragmentOffset = 6;
const timeToLiveOffset = 8;
const protocolOffset = 9;
const checksumOffset = 10;
const sourceOffset = 12;
const destinationOffset = 16;

export const ipv4MinimumHeaderLength = 20;
export const ipv4MaximumHeaderLength = 60;

const dontFragmentFlag = 0x4000;
const moreFragmentsFlag = 0x2000;
const fragmentUnitsMask = 0x1fff;
/** Fragment offsets count units of 8 bytes. */
const fragmentUnitShift = 3;

/** Protocol numbers that we look into (IANA protocol-numbers). */
export const Protocol = { Icmp: 1, Tcp: 6, Udp: 17 } as const;
export type Protocol = (typeof Protocol)[keyof typeof Protocol];

/**
 * Ok when the header and the whole packet lie between `at` and `end`. Bytes after the total length
 * are allowed (Ethernet pads). Does not verify the checksum: see `ipv4ChecksumOk`.
 */
export function checkIpv4(view: DataView, at: number, end: number): Reason {
  const available = end - at;
  if (available < ipv4MinimumHeaderLength) return Reason.Ipv4TooShort;
  const first = view.getUint8(at + versionOffset);
  if (first >> 4 !== 4) return Reason.Ipv4BadVersion;
  const headerLength = (first & 0x0f) << 2;
  if (headerLength < ipv4MinimumHeaderLength) return Reason.Ipv4BadHeaderLength;
  const totalLength = view.getUint16(at + totalLengthOffset);
  if (headerLength > totalLength) return Reason.Ipv4BadTotalLength;
  if (totalLength > available) return Reason.Ipv4BadTotalLength;
  return Reason.Ok;
}

/** For quoted headers, which are not checked as a whole. */
export function ipv4Version(view: DataView, at: number): number {
  return view.getUint8(at + versionOffset) >> 4;
}

export function ipv4HeaderLength(view: DataView, at: number): number {
  return (view.getUint8(at + versionOffset) & 0x0f) << 2;
}

/** The type-of-service byte: DSCP and ECN (RFC 2474, RFC 3168). */
export function ipv4Tos(view: DataView, at: number): number {
  return view.getUint8(at + tosOffset);
}

/** Header and payload, in bytes. */
export function ipv4TotalLength(view: DataView, at: number): number {
  return view.getUint16(at + totalLengthOffset);
}

export function ipv4Id(view: DataView, at: number): number {
  return view.getUint16(at + idOffset);
}

export function ipv4DontFragment(view: DataView, at: number): boolean {
  return (view.getUint16(at + fragmentOffset) & dontFragmentFlag) !== 0;
}

export function ipv4MoreFragments(view: DataView, at: number): boolean {
  return (view.getUint16(at + fragmentOffset) & moreFragmentsFlag) !== 0;
}

/** Where this packet's payload belongs in its datagram, in bytes. */
export function ipv4FragmentOffset(view: DataView, at: number): number {
  return (view.getUint16(at + fragmentOffset) & fragmentUnitsMask) << fragmentUnitShift;
}

/** True for the first, every middle and the last fragment of a datagram. */
export function ipv4IsFragment(view: DataView, at: number): boolean {
  return (view.getUint16(at + fragmentOffset) & (moreFragmentsFlag | fragmentUnitsMask)) !== 0;
}

export function ipv4TimeToLive(view: DataView, at: number): number {
  return view.getUint8(at + timeToLiveOffset);
}

export function ipv4Protocol(view: DataView, at: number): number {
  return view.getUint8(at + protocolOffset);
}

/** int32. */
export function ipv4Source(view: DataView, at: number): number {
  return view.getInt32(at + sourceOffset);
}

/** int32. */
export function ipv4Destination(view: DataView, at: number): number {
  return view.getInt32(at + destinationOffset);
}

/** Every setter leaves the checksum stale: `finishIpv4Checksum` comes last. */
export function setIpv4TotalLength(view: DataView, at: number, totalLength: number): void {
  view.setUint16(at + totalLengthOffset, totalLength);
}

export function setIpv4Id(view: DataView, at: number, id: number): void {
  view.setUint16(at + idOffset, id);
}

export function setIpv4Tos(view: DataView, at: number, tos: number): void {
  view.setUint8(at + tosOffset, tos);
}

/** `offsetBytes` is a multiple of 8. The DF bit stays as it is. */
export function setIpv4Fragment(
  view: DataView,
  at: number,
  offsetBytes: number,
  more: boolean,
): void {
  const kept = view.getUint16(at + fragmentOffset) & dontFragmentFlag;
  const units = offsetBytes >> fragmentUnitShift;
  view.setUint16(at + fragmentOffset, kept | (more ? moreFragmentsFlag : 0) | units);
}

/** The header's 16-bit words added up with end-around carry; 0xffff over a right header. */
function headerSum(view: DataView, at: number): number {
  const end = at + ipv4HeaderLength(view, at);
  let sum = 0;
  for (let word = at; word < end; word += 2) sum += view.getUint16(word);
  sum = (sum & 0xffff) + (sum >>> 16);
  return (sum & 0xffff) + (sum >>> 16);
}

/** For a packet that passed `checkIpv4`. */
export function ipv4ChecksumOk(view: DataView, at: number): boolean {
  return headerSum(view, at) === 0xffff;
}

/** Compute the header checksum over what is written, options too, and store it. */
export function finishIpv4Checksum(view: DataView, at: number): void {
  view.setUint16(at + checksumOffset, 0);
  view.setUint16(at + checksumOffset, ~headerSum(view, at) & 0xffff);
}

/** Write every byte of a 20-byte header, checksum included; no fragment. */
export function writeIpv4(
  view: DataView,
  at: number,
  tos: number,
  totalLength: number,
  id: number,
  dontFragment: boolean,
  timeToLive: number,
  protocol: number,
  source: number,
  destination: number,
): void {
  view.setUint8(at + versionOffset, 0x45);
  view.setUint8(at + tosOffset, tos);
  view.setUint16(at + totalLengthOffset, totalLength);
  view.setUint16(at + idOffset, id);
  view.setUint16(at + fragmentOffset, dontFragment ? dontFragmentFlag : 0);
  view.setUint8(at + timeToLiveOffset, timeToLive);
  view.setUint8(at + protocolOffset, protocol);
  view.setInt32(at + sourceOffset, source);
  view.setInt32(at + destinationOffset, destination);
  finishIpv4Checksum(view, at);
}
