/**
 * What a capture sees: a ring of records in shared memory, written by one data path and read by
 * the main thread, which hands it on as it is. Off, it costs a comparison where a packet is
 * decided; on, a copy of what is captured. A record that finds no room is lost and counted, never
 * waited for.
 *
 * A packet is seen at up to three points: before the tunnel, as the host or the network gave it,
 * with what became of it; in the tunnel, both ways; after the tunnel, as it goes on. The data path
 * may still find out what becomes of a packet when its record is written, so records are published
 * at the end of a breath.
 *
 *     header   16 words: snap length (0: off), points (bits), written, read, lost
 *     record   64 bytes, then the captured bytes, padded to 64; never across the end of the
 *              ring, where a record of point 0 fills what is left: padding leaves room for it
 */
import { Reason } from '../parsers/reason.ts';
import type { Pieces } from '../tunnel/pieces.ts';
import type { Arena } from './arena.ts';
import type { Direction } from './io.ts';
import type { Path } from './path.ts';
import { noFirewall } from './peers.ts';

export const TapPoint = { None: 0, Before: 1, Tunnel: 2, After: 3 } as const;
export type TapPoint = (typeof TapPoint)[keyof typeof TapPoint];

/** Which way a packet in the tunnel goes. */
export const TapWay = { ToFirewall: 0, FromFirewall: 1 } as const;
export type TapWay = (typeof TapWay)[keyof typeof TapWay];

/** Words of a record; the time is a double before them. */
export const TapWord = {
  /** Bytes of the record, a multiple of 64. */
  size: 2,
  /** Bytes of the packet; in the tunnel, from the UDP payload on. */
  original: 3,
  captured: 4,
  point: 5,
  direction: 6,
  way: 7,
  reason: 8,
  /** As `classify` answers, of the policy of `generation`; noTapRule where no flow is known. */
  rule: 9,
  generation: 10,
  /** Its place in the configuration; 255: none. */
  firewall: 11,
  /** Index of the interface. */
  link: 12,
  /** Address of the other end of the tunnel, int32. */
  peer: 13,
  /** Where in the packet the inner IPv4 header begins. */
  innerAt: 14,
} as const;

export const noTapRule = -100;
export const tapRecordHeader = 64;
export const tapHeaderBytes = 64;
const TapHeader = { snapLength: 0, points: 1, written: 2, read: 3, lost: 4 } as const;

/** The kernel gives the memory a page at a time, when it is first written. */
const ringBytes = 4 * 1024 * 1024;
export const tapByteLength = tapHeaderBytes + ringBytes;

/** The data path's end. Nothing allocates. */
export class Tap {
  /** Bits of the points that are captured in this breath, 1 << TapPoint. */
  points = 0;

  private readonly bytes: Uint8Array;
  private readonly header: Int32Array;
  private readonly ring: Uint8Array;
  private readonly words: Int32Array;
  private readonly doubles: Float64Array;
  private readonly capacity: number;
  private readonly capacityMask: number;
  private snapLength = 0;
  /** Bytes written since ever, modulo 2^32; published by `publish`. */
  private written: number;
  /** Where the last record begins; -1: it was lost, or published. */
  private last = -1;
  /** Wall clock less the monotonic one, in milliseconds, when the capture began. */
  private clockBase = 0;

  /** @param memory tapHeaderBytes and a power of two of bytes */
  constructor(memory: SharedArrayBuffer, arena: Arena) {
    this.bytes = arena.bytes;
    this.header = new Int32Array(memory, 0, tapHeaderBytes / 4);
    this.capacity = memory.byteLength - tapHeaderBytes;
    this.capacityMask = this.capacity - 1;
    this.ring = new Uint8Array(memory, tapHeaderBytes);
    this.words = new Int32Array(memory, tapHeaderBytes);
    this.doubles = new Float64Array(memory, tapHeaderBytes);
    this.written = this.header[TapHeader.written];
  }

  /** Once a breath. */
  look(): void {
    const snapLength = Atomics.load(this.header, TapHeader.snapLength);
    if (snapLength === this.snapLength) return;
    this.clockBase = Date.now() - performance.now();
    this.snapLength = snapLength;
    this.points = this.snapLength === 0 ? 0 : this.header[TapHeader.points];
  }

  /** The end of a breath: the reader may have what it wrote. */
  publish(): void {
    this.last = -1;
    if (this.points !== 0) Atomics.store(this.header, TapHeader.written, this.written);
  }

  isOn(point: TapPoint): boolean {
    return (this.points & (1 << point)) !== 0;
  }

  /**
   * A packet of the arena, outside the tunnel. Where `isOn(point)` only.
   * @param rule noTapRule when no flow is known
   */
  packet(
    point: TapPoint,
    at: number,
    length: number,
    direction: Direction,
    link: number,
    reason: number,
    rule: number,
    generation: number,
    firewall: number,
  ): void {
    const captured = Math.min(length, this.snapLength);
    if (!this.begin(point, length, captured, direction, reason)) return;
    this.describe(rule, generation, firewall, link);
    this.ring.set(this.bytes.subarray(at, at + captured), this.last + tapRecordHeader);
  }

  /** A datagram that came from `peer`; what becomes of it is amended. */
  received(at: number, length: number, peer: number): void {
    const captured = Math.min(length, this.snapLength);
    if (!this.begin(TapPoint.Tunnel, length, captured, 0, Reason.Reinjected)) return;
    this.describe(noTapRule, 0, noFirewall, 0);
    const { last, words } = this;
    words[(last >> 2) + TapWord.way] = TapWay.FromFirewall;
    words[(last >> 2) + TapWord.peer] = peer;
    this.ring.set(this.bytes.subarray(at, at + captured), last + tapRecordHeader);
  }

  /** A send to `peer`, one record for each datagram that it will be cut into. */
  sent(
    pieces: Pieces,
    datagramSize: number,
    headerLength: number,
    direction: Direction,
    reason: number,
    peer: number,
    rule: number,
    generation: number,
    firewall: number,
  ): void {
    let total = 0;
    for (let i = 0; i < pieces.count; i++) total += pieces.length[i];
    const step = datagramSize === 0 ? total : datagramSize;
    for (let from = 0; from < total; from += step) {
      const length = Math.min(step, total - from);
      const captured = Math.min(length, this.snapLength);
      if (!this.begin(TapPoint.Tunnel, length, captured, direction, reason)) continue;
      this.describe(rule, generation, firewall, 0);
      const { last, words } = this;
      words[(last >> 2) + TapWord.peer] = peer;
      words[(last >> 2) + TapWord.innerAt] = headerLength;
      this.copy(pieces, from, captured);
    }
  }

  /** What has become of the packet whose record was written last. */
  amend(reason: number): void {
    if (this.last >= 0) this.words[(this.last >> 2) + TapWord.reason] = reason;
  }

  /** How far it has written: what stands between two such marks can be amended. */
  mark(): number {
    return this.written;
  }

  /** What has become of the packets whose records stand between two marks of this breath. */
  amendBetween(from: number, to: number, reason: number): void {
    const { capacityMask, words } = this;
    for (let at = from; at !== to; ) {
      const word = (at & capacityMask) >> 2;
      words[word + TapWord.reason] = reason;
      at = (at + words[word + TapWord.size]) | 0;
    }
  }

  /** Whose packet it was, now that its flow is known. */
  amendFlow(
    direction: Direction,
    rule: number,
    generation: number,
    firewall: number,
    innerAt: number,
  ): void {
    if (this.last < 0) return;
    const { words } = this;
    const at = this.last >> 2;
    words[at + TapWord.direction] = direction;
    words[at + TapWord.rule] = rule;
    words[at + TapWord.generation] = generation;
    words[at + TapWord.firewall] = firewall;
    words[at + TapWord.innerAt] = innerAt;
  }

  /** Bytes `[from, from + length)` of the pieces as they follow each other. */
  private copy(pieces: Pieces, from: number, length: number): void {
    let to = this.last + tapRecordHeader;
    let skip = from;
    let left = length;
    for (let i = 0; i < pieces.count && left > 0; i++) {
      const size = pieces.length[i];
      if (skip >= size) {
        skip -= size;
        continue;
      }
      const at = pieces.at[i] + skip;
      const part = Math.min(size - skip, left);
      this.ring.set(this.bytes.subarray(at, at + part), to);
      to += part;
      left -= part;
      skip = 0;
    }
  }

  /** Room for a record, and its first words; false when there is none. */
  private begin(
    point: TapPoint,
    original: number,
    captured: number,
    direction: Direction,
    reason: number,
  ): boolean {
    const { capacity, capacityMask, header, words } = this;
    const size = tapRecordHeader + ((captured + 63) & ~63);
    let at = this.written & capacityMask;
    const rest = capacity - at;
    const needed = rest < size ? rest + size : size;
    const used = (this.written - Atomics.load(header, TapHeader.read)) >>> 0;
    if (used + needed > capacity) {
      header[TapHeader.lost]++;
      this.last = -1;
      return false;
    }
    if (rest < size) {
      words[(at >> 2) + TapWord.size] = rest;
      words[(at >> 2) + TapWord.point] = TapPoint.None;
      this.written = (this.written + rest) | 0;
      at = 0;
    }
    this.last = at;
    this.doubles[at >> 3] = this.clockBase + performance.now();
    const word = at >> 2;
    words[word + TapWord.size] = size;
    words[word + TapWord.original] = original;
    words[word + TapWord.captured] = captured;
    words[word + TapWord.point] = point;
    words[word + TapWord.direction] = direction;
    words[word + TapWord.way] = TapWay.ToFirewall;
    words[word + TapWord.reason] = reason;
    words[word + TapWord.peer] = 0;
    words[word + TapWord.innerAt] = 0;
    this.written = (this.written + size) | 0;
    return true;
  }

  private describe(rule: number, generation: number, firewall: number, link: number): void {
    const { words } = this;
    const at = this.last >> 2;
    words[at + TapWord.rule] = rule;
    words[at + TapWord.generation] = generation;
    words[at + TapWord.firewall] = firewall;
    words[at + TapWord.link] = link;
  }
}

/** A packet of the arena, outside the tunnel, to the tap of its path; `flow` may be noFlow. */
export function showPacket(
  { flows, tap }: Pick<Path, 'flows' | 'tap'>,
  point: TapPoint,
  at: number,
  length: number,
  direction: Direction,
  link: number,
  reason: number,
  flow: number,
): void {
  const known = flow >= 0;
  const { firewall, generation, rule } = flows.columns;
  tap.packet(
    point,
    at,
    length,
    direction,
    link,
    reason,
    known ? rule[flow] : noTapRule,
    known ? generation[flow] : 0,
    known ? firewall[flow] : noFirewall,
  );
}

/** The reader's end: switches the tap, and takes what was written. */
export class TapReader {
  private readonly header: Int32Array;
  private readonly ring: Uint8Array;
  private readonly capacity: number;

  constructor(memory: SharedArrayBuffer) {
    this.header = new Int32Array(memory, 0, tapHeaderBytes / 4);
    this.ring = new Uint8Array(memory, tapHeaderBytes);
    this.capacity = memory.byteLength - tapHeaderBytes;
  }

  /**
   * Forget what is there, and have packets captured from the next breath on.
   * @param snapLength bytes of each packet at most, from 1
   * @param points bits, 1 << TapPoint
   */
  begin(snapLength: number, points: number): void {
    this.end();
    this.header[TapHeader.read] = Atomics.load(this.header, TapHeader.written);
    this.header[TapHeader.lost] = 0;
    this.header[TapHeader.points] = points;
    Atomics.store(this.header, TapHeader.snapLength, snapLength);
  }

  end(): void {
    Atomics.store(this.header, TapHeader.snapLength, 0);
  }

  /** Packets that found no room since `begin`. */
  get lost(): number {
    return this.header[TapHeader.lost];
  }

  /** A copy of what was written since, up to the end of the ring; empty when there is nothing. */
  take(): Uint8Array {
    const { capacity, header } = this;
    const read = header[TapHeader.read];
    const waiting = (Atomics.load(header, TapHeader.written) - read) >>> 0;
    const at = read & (capacity - 1);
    const length = Math.min(waiting, capacity - at);
    const copy = this.ring.slice(at, at + length);
    Atomics.store(header, TapHeader.read, (read + length) | 0);
    return copy;
  }
}
