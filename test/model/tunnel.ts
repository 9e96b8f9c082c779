/** Cutting and joining for tests: pieces copied out of the arena into packets of their own. */
import { finishPartial } from '../../parsers/checksum.ts';
import { Coalescer } from '../../tunnel/coalesce.ts';
import type { Encapsulation } from '../../tunnel/encapsulation.ts';
import { createPieces, type Direction, type Gso, type Pieces } from '../../tunnel/pieces.ts';
import {
  createCursor,
  fragmentPacket,
  scratchPerCall,
  segmentPacket,
} from '../../tunnel/segment.ts';
import { type Memory, staleMemory } from './packet.ts';

export function gather(bytes: Uint8Array, pieces: Pieces, from = 0, to = pieces.count): Uint8Array {
  const parts: number[] = [];
  for (let index = from; index < to; index++) {
    const at = pieces.at[index]!;
    parts.push(...bytes.slice(at, at + pieces.length[index]!));
  }
  return Uint8Array.from(parts);
}

export type Send = { datagrams: Uint8Array[]; datagramSize: number };

/** Every send that a super-packet becomes. The packet lies between stale bytes. */
export function segmentAll(
  whole: Uint8Array,
  gso: Gso,
  payloadPerSegment: number,
  encapsulation: Encapsulation,
  direction: Direction,
): Send[] {
  const at = 64;
  const scratchAt = at + whole.length + 3;
  const memory = staleMemory(scratchAt + scratchPerCall(encapsulation) * 8);
  memory.bytes.set(whole, at);
  const cursor = createCursor(encapsulation);
  const pieces = createPieces();
  const length = whole.length;
  Object.assign(cursor, { at, length, gso, payloadPerSegment, direction, cookie: 7, scratchAt });
  const sends: Send[] = [];
  for (;;) {
    const before = cursor.scratchAt;
    const segments = segmentPacket(memory.bytes, memory.view, cursor, pieces);
    if (segments === 0) break;
    if (pieces.count !== segments * 2) throw new Error(`${pieces.count} pieces`);
    if (cursor.scratchAt - before > scratchPerCall(encapsulation)) throw new Error('scratch');
    const datagrams = Array.from({ length: segments }, (_, index) =>
      gather(memory.bytes, pieces, index * 2, index * 2 + 2),
    );
    sends.push({ datagrams, datagramSize: cursor.datagramSize });
  }
  const untouched = Buffer.compare(memory.bytes.slice(at, at + length), whole) === 0;
  if (!untouched) throw new Error('the packet itself was changed');
  return sends;
}

/** Every fragment of a packet, tunnel headers taken off. */
export function fragmentAll(
  whole: Uint8Array,
  mtu: number,
  encapsulation: Encapsulation,
): Uint8Array[] {
  const at = 33;
  const scratchAt = at + whole.length + 1;
  const memory = staleMemory(scratchAt + 100 * whole.length + 1000);
  memory.bytes.set(whole, at);
  const cursor = createCursor(encapsulation);
  const pieces = createPieces();
  Object.assign(cursor, { at, length: whole.length, scratchAt });
  const fragments: Uint8Array[] = [];
  while (fragmentPacket(memory.view, cursor, mtu, pieces)) {
    fragments.push(gather(memory.bytes, pieces).slice(encapsulation.headerLength));
  }
  return fragments;
}

export type Emitted = {
  /** As the device would take it. */
  packet: Uint8Array;
  count: number;
  gso: Gso;
  gsoSize: number;
  checksumStart: number;
  checksumOffset: number;
  queue: number;
};

export type Arrival = { packet: Uint8Array; flow?: number; queue?: number; padding?: number };

/** What a coalescer makes of packets that arrive one after the other. */
export function coalesceAll(
  arrivals: Arrival[],
  configure: (coalescer: Coalescer) => void = () => {},
): Emitted[] {
  const total = arrivals.reduce((sum, { packet }) => sum + packet.length + 80, 80);
  const memory = staleMemory(total);
  const emitted: Emitted[] = [];
  const coalescer = new Coalescer(memory.bytes, memory.view, {
    emit(pieces, gso, gsoSize, checksumStart, checksumOffset, queue) {
      const packet = gather(memory.bytes, pieces);
      const count = pieces.count;
      emitted.push({ packet, count, gso, gsoSize, checksumStart, checksumOffset, queue });
    },
  });
  configure(coalescer);
  let at = 41;
  for (const { packet, flow = 1, queue = 0, padding = 0 } of arrivals) {
    memory.bytes.set(packet, at);
    coalescer.add(at, packet.length + padding, flow, queue);
    at += packet.length + padding + 21;
  }
  coalescer.flush();
  coalescer.flush();
  return emitted;
}

/** A joined packet with its checksum completed, as whoever receives it would see it. */
export function complete(emitted: Emitted): Uint8Array {
  const memory: Memory = staleMemory(emitted.packet.length);
  memory.bytes.set(emitted.packet);
  const { checksumStart, checksumOffset } = emitted;
  if (checksumStart !== 0) {
    const end = emitted.packet.length;
    finishPartial(memory.bytes, memory.view, checksumStart, checksumOffset, end);
  }
  return memory.bytes;
}
