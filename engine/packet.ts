/**
 * The packet at hand: where it lies, what the device said of it, and its key. One record, reused
 * for every packet of a batch; whoever processes a batch fills it and hands it to the steps.
 */
import { createFlowKey, type FlowKey, KeyKind } from '../parsers/flow-key.ts';
import { ipv4HeaderLength, ipv4MinimumHeaderLength, Protocol } from '../parsers/ipv4.ts';
import { tcpChecksumOffset, tcpHeaderLength, tcpMinimumHeaderLength } from '../parsers/tcp.ts';
import { udpChecksumOffset, udpHeaderLength } from '../parsers/udp.ts';
import { noFlow } from './flows.ts';
import { Gso, type PacketBatch } from './io.ts';

export type Packet = {
  at: number;
  length: number;
  gso: Gso;
  gsoSize: number;
  /** As in PacketBatch: 0 when the transport checksum is complete. */
  checksumStart: number;
  checksumOffset: number;
  /** Its flow, once it is known; else noFlow. */
  flow: number;
  readonly key: FlowKey;
};

export function createPacket(): Packet {
  return {
    at: 0,
    length: 0,
    gso: Gso.None,
    gsoSize: 0,
    checksumStart: 0,
    checksumOffset: 0,
    flow: noFlow,
    key: createFlowKey(),
  };
}

/** Everything but the key, from row `index` of a batch. */
export function loadPacket(packet: Packet, batch: PacketBatch, index: number): void {
  packet.at = batch.at[index];
  packet.length = batch.length[index];
  packet.gso = batch.gso[index] as Gso;
  packet.gsoSize = batch.gsoSize[index];
  packet.checksumStart = batch.checksumStart[index];
  packet.checksumOffset = batch.checksumOffset[index];
  packet.flow = noFlow;
}

/** IPv4 and transport header in bytes; the key has been read. */
export function headersLength(view: DataView, packet: Packet, gso: Gso): number {
  const { transportAt } = packet.key;
  const transportLength = gso === Gso.Tcp4 ? tcpHeaderLength(view, transportAt) : udpHeaderLength;
  return transportAt - packet.at + transportLength;
}

/** Whether the checksum that the kernel left to be finished is TCP's or UDP's own. */
export function isPartial({ at, checksumOffset, checksumStart, key }: Packet): boolean {
  const offset = key.protocol === Protocol.Tcp ? tcpChecksumOffset : udpChecksumOffset;
  return checksumStart === key.transportAt - at && checksumOffset === offset;
}

/**
 * Whether finishing a partial checksum changes nothing that was decided by: not the IPv4 header,
 * not ports or lengths. The device knows of none of these; a guest may have written what it says.
 * The checksum of a packet within a tunnel lies deeper than its own transport's. For a packet whose
 * key has been read.
 */
export function isPartialInPlace(packet: Packet): boolean {
  const { at, checksumOffset, checksumStart, key, length } = packet;
  const field = checksumStart + checksumOffset;
  // Linux completes a checksum before it fragments, and those of ICMP are never partial.
  if (key.kind !== KeyKind.Plain || field + 2 > length) return false;
  if (isPartial(packet)) return true;
  if (key.protocol === Protocol.Tcp || key.protocol === Protocol.Icmp) return false;
  const transport = key.transportAt - at;
  const behind = key.protocol === Protocol.Udp ? transport + udpHeaderLength : transport;
  return checksumStart >= behind;
}

/** IPv4 and TCP headers without options: what an MSS does not count (RFC 9293 3.7.1). */
export const mssOverhead = 40;

/**
 * How many packets it is on the wire. Nothing of it may have been checked yet; one that has no room
 * for its headers is one.
 */
export function wirePackets(view: DataView, packet: Packet): number {
  const { at, gso, gsoSize, length } = packet;
  if (gso === Gso.None || length < ipv4MinimumHeaderLength) return 1;
  const transport = ipv4HeaderLength(view, at);
  if (transport + tcpMinimumHeaderLength > length) return 1;
  const isTcp = gso === Gso.Tcp4;
  const headers = transport + (isTcp ? tcpHeaderLength(view, at + transport) : udpHeaderLength);
  return Math.max(1, Math.ceil((length - headers) / gsoSize));
}
