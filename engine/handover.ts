/**
 * Several data-path workers: a packet that comes to one of them and is of another's flow is given
 * to that one, which treats it as if it had read it. Every flow is in one worker only, whatever
 * the kernel chose and whatever ports a firewall sends from.
 *
 * - A packet of a known flow costs nothing more: only of one that is not known the home is
 *   computed (engine/spread.ts).
 * - An ICMP error has the home of the flow that it is about.
 * - Fragments meet at one worker, the first one too. It remembers the datagram's home from the
 *   first, and gives this and the later ones to it, in the order in which they may be treated.
 * - What answers a probe goes to the worker that probes, the first.
 *
 * A packet is given at most twice: `Stage` says how far it has come.
 */

import { type FlowKey, KeyKind } from '../parsers/flow-key.ts';
import { ipv4Id, ipv4Protocol } from '../parsers/ipv4.ts';
import { Reason } from '../parsers/reason.ts';
import type { Arena } from './arena.ts';
import { type Counters, count, Gauge } from './counters.ts';
import type { Fragments } from './fragments.ts';
import {
  HandoverReader,
  type HandoverRecord,
  HandoverWriter,
  handoverRingByteLength,
  recordWords,
} from './handover-ring.ts';
import type { Gso } from './io.ts';
import { type Packet, wirePackets } from './packet.ts';
import { probeSource } from './probe.ts';
import { type Spread, workerOf } from './spread.ts';

export function isFragment({ kind }: FlowKey): boolean {
  return kind === KeyKind.FirstFragment || kind === KeyKind.LaterFragment;
}

/** Plain data, but for `wake`: what a worker needs to know of the others. */
export type HandoverOptions = {
  readonly spread: Spread;
  readonly self: number;
  /** handoverByteLength bytes, the same for all. */
  readonly memory: SharedArrayBuffer;
  /** Ends the sleep of another worker: a system call. */
  readonly wake: (worker: number) => void;
};

/** Where a packet stands: just read; at the worker where fragments meet; at its home. */
export const Stage = { Fresh: 0, Meeting: 1, Home: 2 } as const;
export type Stage = (typeof Stage)[keyof typeof Stage];

/** A packet from a device, or a tunnelled one without its tunnel header. */
export const Handed = { Packet: 0, Inner: 1 } as const;
export type Handed = (typeof Handed)[keyof typeof Handed];

const Word = {
  kind: 0,
  stage: 1,
  /** Of a packet: 2 * link + direction. Of a tunnelled one: the firewalls it may be from. */
  origin: 2,
  gso: 3,
  gsoSize: 4,
  checksumStart: 5,
  checksumOffset: 6,
  cookie: 7,
} as const;

const sleepersAt = 0;
const maximumWorkers = 16;
const ringsAt = 4 * maximumWorkers;

/** A ring for each ordered pair of workers, and who sleeps. */
export function handoverByteLength(workers: number): number {
  return ringsAt + workers * workers * handoverRingByteLength;
}

export class Handover {
  /** Of the record last taken. */
  kind: Handed = Handed.Packet;
  stage: Stage = Stage.Home;
  origin = 0;
  cookie = 0;
  length = 0;
  private readonly options: HandoverOptions;
  private readonly arena: Arena;
  private readonly counters: Counters;
  private readonly fragments: Fragments;
  private readonly sleepers: Int32Array;
  private readonly readers: readonly HandoverReader[];
  private readonly writers: readonly HandoverWriter[];
  private readonly record: HandoverRecord = { length: 0, words: new Int32Array(recordWords) };
  private readonly numbers = new Int32Array(recordWords);
  private nextReader = 0;
  /** What `leads` found: to whom, and at which stage. */
  private to = 0;
  private toStage: Stage = Stage.Home;

  constructor(options: HandoverOptions, arena: Arena, counters: Counters, fragments: Fragments) {
    const { memory, self, spread } = options;
    this.options = options;
    this.arena = arena;
    this.counters = counters;
    this.fragments = fragments;
    this.sleepers = new Int32Array(memory, sleepersAt, maximumWorkers);
    const ringAt = (from: number, to: number) =>
      ringsAt + (from * spread.workers + to) * handoverRingByteLength;
    const all = Array.from({ length: spread.workers }, (_, worker) => worker);
    // The ring to oneself is never written.
    this.readers = all.map((worker) => new HandoverReader(memory, ringAt(worker, self)));
    this.writers = all.map((worker) => new HandoverWriter(memory, ringAt(self, worker)));
  }

  /**
   * Whether the packet at `at` is another worker's to treat; then the caller gives it there. For
   * one whose key was read and whose flow is not known here, and for every fragment: what is known
   * of its datagram may be of an older one.
   */
  leads(key: FlowKey, at: number, stage: Stage, nowTick: number): boolean {
    const { spread, self } = this.options;
    if (stage === Stage.Home) return false;
    this.toStage = Stage.Home;
    if (!isFragment(key)) this.to = this.homeOf(key);
    else {
      const { destination, source } = key;
      const { view } = this.arena;
      const id = ipv4Id(view, at);
      const protocol = ipv4Protocol(view, at);
      this.to = workerOf(spread, source, destination, 0, 0, protocol);
      this.toStage = Stage.Meeting;
      if (this.to !== self) return true;
      this.toStage = Stage.Home;
      const { fragments } = this;
      if (key.kind === KeyKind.FirstFragment) {
        this.to = this.homeOf(key);
        if (this.to !== self) {
          fragments.rememberHome(source, destination, id, protocol, this.to, nowTick);
        }
      } else {
        const home = fragments.findHome(source, destination, id, protocol, nowTick);
        this.to = home < 0 ? self : home;
      }
    }
    return this.to !== self;
  }

  private homeOf(key: FlowKey): number {
    const { destination, destinationPort, protocol, source, sourcePort } = key;
    if (source === probeSource) return 0;
    const { spread } = this.options;
    return workerOf(spread, source, destination, sourcePort, destinationPort, protocol);
  }

  /** Give the packet to whom `leads` said last. Counted when there is no room. */
  givePacket(packet: Packet, queue: number): void {
    const { numbers } = this;
    numbers[Word.kind] = Handed.Packet;
    numbers[Word.origin] = queue;
    numbers[Word.gso] = packet.gso;
    numbers[Word.gsoSize] = packet.gsoSize;
    numbers[Word.checksumStart] = packet.checksumStart;
    numbers[Word.checksumOffset] = packet.checksumOffset;
    this.give(packet.at, packet.length, wirePackets(this.arena.view, packet));
  }

  /** Likewise a packet from the tunnel; its header has been checked. */
  giveInner(at: number, length: number, senders: number, cookie: number): void {
    const { numbers } = this;
    numbers[Word.kind] = Handed.Inner;
    numbers[Word.origin] = senders;
    numbers[Word.cookie] = cookie;
    this.give(at, length, 1);
  }

  private give(at: number, length: number, packets: number): void {
    const { counters, numbers, sleepers, to } = this;
    numbers[Word.stage] = this.toStage;
    if (!this.writers[to].write(this.arena.bytes, at, length, numbers)) {
      return count(counters, Reason.HandoverFull, packets, length);
    }
    counters.gauges[Gauge.HandedOver] += packets;
    // It looks into the rings once more after it has said that it sleeps.
    if (Atomics.exchange(sleepers, to, 0) === 1) this.options.wake(to);
  }

  /**
   * The oldest that another worker has given, into the arena at `at`; the workers take turns.
   * False: there is none.
   */
  take(at: number): boolean {
    const { readers, record } = this;
    for (let tried = 0; tried < readers.length; tried++) {
      const reader = readers[this.nextReader];
      this.nextReader = (this.nextReader + 1) % readers.length;
      if (!reader.read(this.arena.bytes, at, record)) continue;
      const { words } = record;
      this.kind = words[Word.kind] as Handed;
      this.stage = words[Word.stage] as Stage;
      this.origin = words[Word.origin];
      this.cookie = words[Word.cookie];
      this.length = record.length;
      return true;
    }
    return false;
  }

  /** The packet last taken, but for its key. */
  load(packet: Packet, at: number): void {
    const { words } = this.record;
    packet.at = at;
    packet.length = this.length;
    packet.gso = words[Word.gso] as Gso;
    packet.gsoSize = words[Word.gsoSize];
    packet.checksumStart = words[Word.checksumStart];
    packet.checksumOffset = words[Word.checksumOffset];
  }

  /** Whether we may sleep: others will wake us then, until `awake`. */
  fallAsleep(): boolean {
    const { readers, sleepers } = this;
    const { self } = this.options;
    Atomics.store(sleepers, self, 1);
    for (let i = 0; i < readers.length; i++) {
      if (!readers[i].isEmpty) {
        this.awake();
        return false;
      }
    }
    return true;
  }

  awake(): void {
    Atomics.store(this.sleepers, this.options.self, 0);
  }
}
