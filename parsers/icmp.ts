/**
 * ICMP (RFC 792), and the one message that we send: "fragmentation needed" (RFC 1191).
 *
 *      0                   1                   2                   3
 *      0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
 *     +---------------+---------------+-------------------------------+
 *     |     Type      |     Code      |           Checksum            |
 *     +---------------+---------------+-------------------------------+
 *     |  Identifier (queries), unused |  Sequence; next-hop MTU (3/4) |
 *     +-------------------------------+-------------------------------+
 *     |  Errors: the header of the packet at fault and more of it     |
 */
import { fold, sum } from './checksum.ts';
import {
  ipv4Destination,
  ipv4FragmentOffset,
  ipv4HeaderLength,
  ipv4MinimumHeaderLength,
  ipv4Protocol,
  ipv4Source,
  ipv4TotalLength,
  Protocol,
  writeIpv4,
} from './ipv4.ts';
import { Reason } from './reason.ts';

const typeOffset = 0;
const codeOffset = 1;
const checksumOffset = 2;
const identifierOffset = 4;
const nextHopMtuOffset = 6;

export const icmpHeaderLength = 8;

export const IcmpType = {
  EchoReply: 0,
  DestinationUnreachable: 3,
  SourceQuench: 4,
  Redirect: 5,
  Echo: 8,
  TimeExceeded: 11,
  ParameterProblem: 12,
  Timestamp: 13,
  AddressMaskReply: 18,
} as const;
export type IcmpType = (typeof IcmpType)[keyof typeof IcmpType];

/** Code of DestinationUnreachable: fragmentation needed and DF set. */
const icmpFragmentationNeeded = 4;

/** An ICMP error, IPv4 header included, is at most this long (RFC 1812 section 4.3.2.3). */
const maximumErrorLength = 576;
const errorTimeToLive = 64;
/** Precedence 6, internetwork control (RFC 1812 section 4.3.2.5). */
const errorTos = 0xc0;

/** Ok when the 8 bytes that every message has lie between `at` and `end`. */
export function checkIcmp(_view: DataView, at: number, end: number): Reason {
  return end - at < icmpHeaderLength ? Reason.IcmpTooShort : Reason.Ok;
}

export function icmpType(view: DataView, at: number): number {
  return view.getUint8(at + typeOffset);
}

export function icmpCode(view: DataView, at: number): number {
  return view.getUint8(at + codeOffset);
}

/** Of a query or its reply: see `icmpHasIdentifier`. */
export function icmpIdentifier(view: DataView, at: number): number {
  return view.getUint16(at + identifierOffset);
}

/** Types that quote the packet at fault. */
export function icmpIsError(type: number): boolean {
  switch (type) {
    case IcmpType.DestinationUnreachable:
    case IcmpType.SourceQuench:
    case IcmpType.Redirect:
    case IcmpType.TimeExceeded:
    case IcmpType.ParameterProblem:
      return true;
    default:
      return false;
  }
}

/** Echo, timestamp, information and address mask: query and reply share an identifier. */
export function icmpHasIdentifier(type: number): boolean {
  if (type === IcmpType.EchoReply || type === IcmpType.Echo) return true;
  return type >= IcmpType.Timestamp && type <= IcmpType.AddressMaskReply;
}

/**
 * May an ICMP error be sent about this packet (RFC 1812 section 4.3.2.7)? Not about an ICMP error,
 * a fragment other than the first, a packet to multicast or broadcast, nor one whose source does
 * not name a single host. For a packet that passed `checkIpv4`.
 */
export function mayAnswerWithIcmp(view: DataView, at: number): boolean {
  if (ipv4FragmentOffset(view, at) !== 0) return false;
  if (!isSingleHost(ipv4Source(view, at))) return false;
  if (ipv4Destination(view, at) >>> 28 >= 14) return false;
  if (ipv4Protocol(view, at) !== Protocol.Icmp) return true;
  const headerLength = ipv4HeaderLength(view, at);
  if (ipv4TotalLength(view, at) - headerLength < icmpHeaderLength) return false;
  return !icmpIsError(icmpType(view, at + headerLength));
}

/** Not 0.0.0.0/8, loopback, multicast, class E or broadcast. */
function isSingleHost(address: number): boolean {
  const top = address >>> 24;
  return top !== 0 && top !== 127 && top < 224;
}

/**
 * Build a complete IPv4 packet at `at`: ICMP 3/4 (RFC 792) with the next hop's MTU (RFC 1191
 * section 4) about the packet at `offendingAt`, quoted as far as 576 bytes in all allow (RFC 1812
 * section 4.3.2.3). The two must not overlap. Returns its length in bytes.
 *
 * @param mtu largest IPv4 packet that would have gone through
 * @param source address that the error comes from
 * @param destination sender of the packet at fault
 * @param id IPv4 identification of the error
 */
export function writeFragmentationNeeded(
  bytes: Uint8Array,
  view: DataView,
  at: number,
  offendingAt: number,
  offendingLength: number,
  mtu: number,
  source: number,
  destination: number,
  id: number,
): number {
  const headersLength = ipv4MinimumHeaderLength + icmpHeaderLength;
  const quoteLength = Math.min(offendingLength, maximumErrorLength - headersLength);
  const length = headersLength + quoteLength;
  const icmpAt = at + ipv4MinimumHeaderLength;
  writeIpv4(
    view,
    at,
    errorTos,
    length,
    id,
    false,
    errorTimeToLive,
    Protocol.Icmp,
    source,
    destination,
  );
  view.setUint8(icmpAt + typeOffset, IcmpType.DestinationUnreachable);
  view.setUint8(icmpAt + codeOffset, icmpFragmentationNeeded);
  view.setUint16(icmpAt + checksumOffset, 0);
  view.setUint16(icmpAt + identifierOffset, 0);
  view.setUint16(icmpAt + nextHopMtuOffset, mtu);
  bytes.copyWithin(icmpAt + icmpHeaderLength, offendingAt, offendingAt + quoteLength);
  const checksum = fold(sum(bytes, view, icmpAt, icmpHeaderLength + quoteLength, 0));
  view.setUint16(icmpAt + checksumOffset, checksum);
  return length;
}
