/**
 * The packet at hand: where it lies, what the device said of it, and its key. One record, reused
 * for every packet of a batch; whoever processes a batch fills it and hands it to the steps.
 */
import { createFlowKey, type FlowKey } from '../parsers/flow-key.ts';
import { tcpHeaderLength } from '../parsers/tcp.ts';
import { udpHeaderLength } from '../parsers/udp.ts';
import { Gso, type PacketBatch } from './io.ts';

export type Packet = {
  at: number;
  length: number;
  gso: Gso;
  gsoSize: number;
  /** As in PacketBatch: 0 when the transport checksum is complete. */
  checksumStart: number;
  checksumOffset: number;
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
}

/** IPv4 and transport header in bytes; the key has been read. */
export function headersLength(view: DataView, packet: Packet, gso: Gso): number {
  const { transportAt } = packet.key;
  const transportLength = gso === Gso.Tcp4 ? tcpHeaderLength(view, transportAt) : udpHeaderLength;
  return transportAt - packet.at + transportLength;
}

/** IPv4 and TCP headers without options: what an MSS does not count (RFC 9293 3.7.1). */
export const mssOverhead = 40;

/** How many wire packets it stands for, by the smallest headers: its key may not have been read. */
export function wirePackets(packet: Packet): number {
  if (packet.gso === Gso.None) return 1;
  return Math.max(1, Math.ceil((packet.length - mssOverhead) / packet.gsoSize));
}
