/**
 * From a packet to the five numbers that name its flow. For a packet that passed `checkIpv4`; this
 * is where its TCP, UDP or ICMP header is checked, so that whoever holds a key may use the getters
 * of the transport at `transportAt`.
 *
 * - Fragments: a first fragment must hold its whole transport header, so that nothing behind it
 *   can rewrite what was classified (RFC 1858, RFC 3128). Later ones have no ports: 0, and the
 *   engine finds their verdict by addresses and identification.
 * - ICMP queries: the identifier stands for both ports, so that query and reply are one flow.
 * - ICMP errors: the key of the quoted packet reversed, which is the key of a packet that travels
 *   in the error's own direction. Its source is not the error's sender but the flow's peer.
 */
import {
  checkIcmp,
  icmpHasIdentifier,
  icmpHeaderLength,
  icmpIdentifier,
  icmpIsError,
  icmpType,
} from './icmp.ts';
import {
  ipv4Destination,
  ipv4FragmentOffset,
  ipv4HeaderLength,
  ipv4MinimumHeaderLength,
  ipv4MoreFragments,
  ipv4Protocol,
  ipv4Source,
  ipv4TotalLength,
  ipv4Version,
  Protocol,
} from './ipv4.ts';
import { Reason } from './reason.ts';
import { checkTcp, tcpDestinationPort, tcpMinimumHeaderLength, tcpSourcePort } from './tcp.ts';
import { checkUdp, udpDestinationPort, udpHeaderLength, udpLength, udpSourcePort } from './udp.ts';

/** RFC 791: total length is 16 bits, also that of a datagram put together from its fragments. */
const ipv4MaximumLength = 65535;
/** "The internet header plus 64 bits of the original datagram" (RFC 792). */
const quotedTransportLength = 8;

export const KeyKind = { Plain: 0, FirstFragment: 1, LaterFragment: 2, IcmpError: 3 } as const;
export type KeyKind = (typeof KeyKind)[keyof typeof KeyKind];

/** A reused record: `readFlowKey` assigns every field on every path. */
export type FlowKey = {
  /** int32, as `destination`. */
  source: number;
  destination: number;
  /** 0 where the protocol or the fragment has none. */
  sourcePort: number;
  destinationPort: number;
  protocol: number;
  kind: KeyKind;
  /** First byte after the packet's own IPv4 header. */
  transportAt: number;
  /** First byte after the packet by its total length. */
  end: number;
};

export function createFlowKey(): FlowKey {
  return {
    source: 0,
    destination: 0,
    sourcePort: 0,
    destinationPort: 0,
    protocol: 0,
    kind: KeyKind.Plain,
    transportAt: 0,
    end: 0,
  };
}

/** Fill `key` from the packet at `at`. When it is not Ok, the ports may be 0. */
export function readFlowKey(view: DataView, at: number, key: FlowKey): Reason {
  const offset = ipv4FragmentOffset(view, at);
  const more = ipv4MoreFragments(view, at);
  key.source = ipv4Source(view, at);
  key.destination = ipv4Destination(view, at);
  key.sourcePort = 0;
  key.destinationPort = 0;
  key.protocol = ipv4Protocol(view, at);
  key.transportAt = at + ipv4HeaderLength(view, at);
  key.end = at + ipv4TotalLength(view, at);
  if (offset !== 0) {
    key.kind = KeyKind.LaterFragment;
    return checkLaterFragment(key.protocol, offset, key.end - at);
  }
  key.kind = more ? KeyKind.FirstFragment : KeyKind.Plain;
  switch (key.protocol) {
    case Protocol.Tcp:
      return readTcp(view, key);
    case Protocol.Udp:
      return readUdp(view, key);
    case Protocol.Icmp:
      return readIcmp(view, key);
    default:
      return Reason.Ok;
  }
}

/**
 * No datagram is longer. Cut again, the parts past the end would count from its start (the field
 * wraps) and lie over the transport header. RFC 3128 names offset 8, which replaces the flags; 16
 * would replace checksum and urgent pointer. Neither can be honest, as a first fragment holds at
 * least 20 bytes.
 */
function checkLaterFragment(protocol: number, offset: number, totalLength: number): Reason {
  if (offset + totalLength > ipv4MaximumLength) return Reason.FragmentPastEnd;
  const overlaps = protocol === Protocol.Tcp && offset < tcpMinimumHeaderLength;
  return overlaps ? Reason.FragmentOverlap : Reason.Ok;
}

function readTcp(view: DataView, key: FlowKey): Reason {
  const reason = checkTcp(view, key.transportAt, key.end);
  if (reason !== Reason.Ok) return tinyIfFragment(key, reason);
  key.sourcePort = tcpSourcePort(view, key.transportAt);
  key.destinationPort = tcpDestinationPort(view, key.transportAt);
  return Reason.Ok;
}

function readUdp(view: DataView, key: FlowKey): Reason {
  if (key.kind === KeyKind.FirstFragment) {
    if (key.end - key.transportAt < udpHeaderLength) return Reason.FragmentTiny;
    // The length counts the whole datagram, of which this is a part.
    if (udpLength(view, key.transportAt) < udpHeaderLength) return Reason.UdpBadLength;
  } else {
    const reason = checkUdp(view, key.transportAt, key.end);
    if (reason !== Reason.Ok) return reason;
  }
  key.sourcePort = udpSourcePort(view, key.transportAt);
  key.destinationPort = udpDestinationPort(view, key.transportAt);
  return Reason.Ok;
}

function readIcmp(view: DataView, key: FlowKey): Reason {
  const reason = checkIcmp(view, key.transportAt, key.end);
  if (reason !== Reason.Ok) return tinyIfFragment(key, reason);
  const type = icmpType(view, key.transportAt);
  if (icmpIsError(type)) return readQuoted(view, key);
  if (icmpHasIdentifier(type)) {
    key.sourcePort = icmpIdentifier(view, key.transportAt);
    key.destinationPort = key.sourcePort;
  }
  return Reason.Ok;
}

function tinyIfFragment(key: FlowKey, reason: Reason): Reason {
  return key.kind === KeyKind.FirstFragment ? Reason.FragmentTiny : reason;
}

/**
 * The quote may be cut anywhere after 8 bytes of transport header (RFC 792), so neither its total
 * length nor its checksum can be held against it. An error is at most 576 bytes long (RFC 1812): a
 * fragmented one is refused, for its quote could be rewritten behind us.
 */
function readQuoted(view: DataView, key: FlowKey): Reason {
  if (key.kind === KeyKind.FirstFragment) return Reason.IcmpTooShort;
  key.kind = KeyKind.IcmpError;
  const at = key.transportAt + icmpHeaderLength;
  if (key.end - at < ipv4MinimumHeaderLength) return Reason.IcmpTooShort;
  if (ipv4Version(view, at) !== 4) return Reason.IcmpTooShort;
  const headerLength = ipv4HeaderLength(view, at);
  if (headerLength < ipv4MinimumHeaderLength) return Reason.IcmpTooShort;
  const transportAt = at + headerLength;
  if (transportAt > key.end) return Reason.IcmpTooShort;
  key.source = ipv4Destination(view, at);
  key.destination = ipv4Source(view, at);
  key.protocol = ipv4Protocol(view, at);
  if (ipv4FragmentOffset(view, at) !== 0) return Reason.Ok;
  return readQuotedPorts(view, transportAt, key);
}

function readQuotedPorts(view: DataView, at: number, key: FlowKey): Reason {
  const quotedLength = key.end - at;
  switch (key.protocol) {
    case Protocol.Tcp:
      if (quotedLength < quotedTransportLength) return Reason.IcmpTooShort;
      key.sourcePort = tcpDestinationPort(view, at);
      key.destinationPort = tcpSourcePort(view, at);
      return Reason.Ok;
    case Protocol.Udp:
      if (quotedLength < quotedTransportLength) return Reason.IcmpTooShort;
      key.sourcePort = udpDestinationPort(view, at);
      key.destinationPort = udpSourcePort(view, at);
      return Reason.Ok;
    case Protocol.Icmp:
      if (quotedLength < quotedTransportLength) return Reason.IcmpTooShort;
      if (icmpHasIdentifier(icmpType(view, at))) {
        key.sourcePort = icmpIdentifier(view, at);
        key.destinationPort = key.sourcePort;
      }
      return Reason.Ok;
    default:
      return Reason.Ok;
  }
}
