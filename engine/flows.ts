/**
 * The flow table: one record for both directions of a connection, in columns allocated once.
 *
 * A record is a number. Its key is the 5-tuple in canonical order (the lower address-and-port end
 * is A), so both directions find the same record; `localIsA` says which end is this host's. The
 * index is open addressing with linear probing at a load of at most one half, and deletion shifts
 * back instead of leaving tombstones, so a probe ends at the first empty slot.
 *
 * Nothing here assumes that every packet of a flow is seen: a kernel program may carry some.
 * Ages are in ticks of 100 ms (engine/gate.ts uses the same).
 */
import { Protocol } from '../parsers/ipv4.ts';
import { TcpFlag } from '../parsers/tcp.ts';
import { type FlowColumns, openFlowColumns } from './flow-columns.ts';
import type { Direction } from './io.ts';

/** What was decided about a flow. */
export const Verdict = {
  Undecided: 0,
  Redirect: 1,
  Pass: 2,
  Drop: 3,
  /** Began where the firewall did not see it; passes until it ends. */
  PassEstablished: 4,
  /** Never redirected, whatever the rules say. */
  PassBuiltIn: 5,
  /** Would be redirected, but is not in the share that `rollout` redirects. */
  PassRollout: 6,
  /** Would be redirected, but `mode: observe` only looks. */
  Observe: 7,
} as const;
export type Verdict = (typeof Verdict)[keyof typeof Verdict];

/** What a flow's rule says for when the firewall cannot be used. */
export const OnFailure = { Inherit: 0, Pass: 1, Drop: 2 } as const;
export type OnFailure = (typeof OnFailure)[keyof typeof OnFailure];

/** Where a flow stands in its life; decides its timeout. */
export const FlowState = { Opening: 0, Open: 1, HalfClosed: 2, Closed: 3 } as const;
export type FlowState = (typeof FlowState)[keyof typeof FlowState];

export const noFlow = -1;
export const tickMs = 100;

const second = 1000 / tickMs;
/**
 * Idle limits by state. TCP: a handshake is over in the kernel's own SYN retries' first half
 * minute; 2 hours and a bit is the default keepalive (RFC 9293 3.8.4, so an idle but living
 * connection shows itself); a half-closed one may still send. UDP and ICMP: semantics.md section 3.
 */
const tcpTimeouts = Int32Array.of(30 * second, 7500 * second, 300 * second, 10 * second);
const udpTimeout = 120 * second;
const icmpTimeout = 30 * second;
const otherTimeout = 600 * second;

/** How many records are looked at when the table is full and one must go. */
const evictionSample = 64;
/** Random words fetched at once: a call to the system's generator costs microseconds. */
const randomPool = 1024;

export class Flows {
  readonly capacity: number;
  count = 0;
  evicted = 0;

  /** Which way round the last `find` or `insert` was asked: 1 when its source is end A. */
  sourceIsA = 0;

  /** Shared with readers in other threads. */
  readonly columns: FlowColumns;
  readonly verdict: Uint8Array;
  readonly state: Uint8Array;
  readonly protocol: Uint8Array;
  readonly localIsA: Uint8Array;
  readonly link: Uint8Array;
  readonly onFailure: Uint8Array;
  readonly cookie: Int32Array;
  readonly lastSeen: Int32Array;

  private readonly used: Uint8Array;
  private readonly addressA: Int32Array;
  private readonly addressB: Int32Array;
  private readonly ports: Int32Array;
  private readonly hash: Int32Array;
  private readonly finSeen: Uint8Array;
  private readonly free: Int32Array;
  private freeCount: number;
  private readonly index: Int32Array;
  private readonly mask: number;
  private readonly seed: number;
  private sweepAt = 0;
  private highWater = 0;
  private readonly random = new Int32Array(randomPool);
  private randomAt = randomPool;

  // The canonical key of the last find, kept so that insert need not repeat it.
  private keyA = 0;
  private keyB = 0;
  private keyPorts = 0;
  private keyProtocol = 0;
  /** Seeded hash of the tuple that `find` was last asked for, the same in both directions. */
  keyHash = 0;

  /** @param memory flowColumnsByteLength(capacity) bytes; the table's own columns come on top */
  constructor(capacity: number, memory: SharedArrayBuffer) {
    this.capacity = capacity;
    const slots = 2 ** Math.ceil(Math.log2(capacity * 2));
    this.index = new Int32Array(slots);
    this.mask = slots - 1;
    const columns = openFlowColumns(memory, capacity);
    // A table that a dead worker left behind.
    columns.used.fill(0);
    this.columns = columns;
    this.used = columns.used;
    this.verdict = columns.verdict;
    this.state = columns.state;
    this.protocol = columns.protocol;
    this.localIsA = columns.localIsA;
    this.link = columns.link;
    this.onFailure = columns.onFailure;
    this.cookie = columns.cookie;
    this.lastSeen = columns.lastSeen;
    this.addressA = columns.addressA;
    this.addressB = columns.addressB;
    this.ports = columns.ports;
    this.hash = new Int32Array(capacity);
    this.finSeen = new Uint8Array(capacity);
    this.free = new Int32Array(capacity);
    this.freeCount = capacity;
    for (let i = 0; i < capacity; i++) this.free[i] = capacity - 1 - i;
    // Secret, so that nobody outside can aim flows at one slot.
    this.seed = this.nextRandom();
  }

  /**
   * The record of this 5-tuple, in whichever direction, or noFlow. Afterwards `sourceIsA` tells
   * the direction and `insert` may be called for the same tuple.
   */
  find(
    source: number,
    target: number,
    sourcePort: number,
    targetPort: number,
    protocol: number,
  ): number {
    const sourceUnsigned = source >>> 0;
    const targetUnsigned = target >>> 0;
    const sourceFirst =
      sourceUnsigned < targetUnsigned ||
      (sourceUnsigned === targetUnsigned && sourcePort <= targetPort);
    this.sourceIsA = sourceFirst ? 1 : 0;
    const a = sourceFirst ? source : target;
    const b = sourceFirst ? target : source;
    const ports = sourceFirst ? (sourcePort << 16) | targetPort : (targetPort << 16) | sourcePort;
    const hash = mix(a, b, ports, protocol, this.seed);
    this.keyA = a;
    this.keyB = b;
    this.keyPorts = ports;
    this.keyProtocol = protocol;
    this.keyHash = hash;
    for (let slot = hash & this.mask; ; slot = (slot + 1) & this.mask) {
      const flow = this.index[slot] - 1;
      if (flow < 0) return noFlow;
      if (
        this.hash[flow] === hash &&
        this.addressA[flow] === a &&
        this.addressB[flow] === b &&
        this.ports[flow] === ports &&
        this.protocol[flow] === protocol
      ) {
        return flow;
      }
    }
  }

  /**
   * A new record for the tuple that `find` was last asked for and did not find. `direction` is the
   * packet's. Returns noFlow when the table is full and nothing may be evicted.
   */
  insert(direction: Direction, link: number, verdict: Verdict, nowTick: number): number {
    if (this.freeCount === 0) {
      this.evict(nowTick);
      if (this.freeCount === 0) return noFlow;
    }
    const flow = this.free[--this.freeCount];
    if (flow >= this.highWater) this.highWater = flow + 1;
    this.count++;
    this.used[flow] = 1;
    this.addressA[flow] = this.keyA;
    this.addressB[flow] = this.keyB;
    this.ports[flow] = this.keyPorts;
    this.protocol[flow] = this.keyProtocol;
    this.hash[flow] = this.keyHash;
    this.localIsA[flow] = direction === 0 ? this.sourceIsA : 1 - this.sourceIsA;
    this.link[flow] = link;
    this.restart(flow, direction, verdict, nowTick);
    let slot = this.keyHash & this.mask;
    while (this.index[slot] !== 0) slot = (slot + 1) & this.mask;
    this.index[slot] = flow + 1;
    return flow;
  }

  /**
   * Begin a record's life again, for a new connection on the same 5-tuple: new cookie, state and
   * counters. The caller describes what decided it.
   */
  restart(flow: number, direction: Direction, verdict: Verdict, nowTick: number): void {
    const { columns } = this;
    columns.opener[flow] = direction;
    columns.firstSeen[flow] = nowTick;
    columns.packets[2 * flow] = 0;
    columns.packets[2 * flow + 1] = 0;
    columns.bytes[2 * flow] = 0;
    columns.bytes[2 * flow + 1] = 0;
    this.verdict[flow] = verdict;
    this.state[flow] = FlowState.Opening;
    this.finSeen[flow] = 0;
    this.cookie[flow] = this.nextRandom();
    this.lastSeen[flow] = nowTick;
  }

  /** Note which rule of which policy decided the flow. */
  describe(flow: number, rule: number, generation: number, onFailure: OnFailure): void {
    this.columns.rule[flow] = rule;
    this.columns.generation[flow] = generation;
    this.onFailure[flow] = onFailure;
  }

  /** Count what the host sent (egress) or the network brought (ingress). */
  account(flow: number, direction: Direction, packets: number, bytes: number): void {
    const at = 2 * flow + direction;
    this.columns.packets[at] += packets;
    this.columns.bytes[at] += bytes;
  }

  /**
   * Select a flow known by number for a packet between two addresses (a later fragment, which has
   * no ports): false when the record has ended or now belongs to others.
   */
  select(flow: number, source: number, target: number): boolean {
    if (this.used[flow] === 0) return false;
    this.sourceIsA = this.addressA[flow] === source && this.addressB[flow] === target ? 1 : 0;
    return (
      this.sourceIsA === 1 || (this.addressA[flow] === target && this.addressB[flow] === source)
    );
  }

  /** 0 when the packet that `find` was last asked for leaves this host, 1 when it comes to it. */
  directionOf(flow: number): Direction {
    return this.sourceIsA === this.localIsA[flow] ? 0 : 1;
  }

  /** Chooses the tunnel's source port: one flow keeps one port, both directions the same. */
  entropy(flow: number): number {
    return this.hash[flow];
  }

  /**
   * Note a packet of the flow: its age and, for TCP, its state by the flags of both directions.
   * `tcpFlags` is 0 for a packet that has none: a later fragment, an ICMP error.
   */
  touch(flow: number, tcpFlags: number, nowTick: number): void {
    this.lastSeen[flow] = nowTick;
    if (tcpFlags === 0) return;
    if ((tcpFlags & TcpFlag.Rst) !== 0) {
      this.state[flow] = FlowState.Closed;
    } else if ((tcpFlags & TcpFlag.Fin) !== 0) {
      this.finSeen[flow] |= this.sourceIsA === 1 ? 1 : 2;
      this.state[flow] = this.finSeen[flow] === 3 ? FlowState.Closed : FlowState.HalfClosed;
    } else if (this.state[flow] === FlowState.Opening && (tcpFlags & TcpFlag.Syn) === 0) {
      this.state[flow] = FlowState.Open;
    }
  }

  /** Look at up to `budget` records and remove those idle for longer than their state allows. */
  sweep(nowTick: number, budget: number): void {
    const steps = Math.min(budget, this.highWater);
    for (let step = 0; step < steps; step++) {
      if (this.sweepAt >= this.highWater) this.sweepAt = 0;
      const flow = this.sweepAt++;
      if (this.used[flow] === 1 && nowTick - this.lastSeen[flow] > this.timeout(flow))
        this.remove(flow);
    }
  }

  remove(flow: number): void {
    let hole = this.hash[flow] & this.mask;
    while (this.index[hole] !== flow + 1) hole = (hole + 1) & this.mask;
    // Shift back what probed past the hole (Knuth 6.4, algorithm R).
    for (let slot = (hole + 1) & this.mask; this.index[slot] !== 0; slot = (slot + 1) & this.mask) {
      const home = this.hash[this.index[slot] - 1] & this.mask;
      if (((slot - home) & this.mask) >= ((slot - hole) & this.mask)) {
        this.index[hole] = this.index[slot];
        hole = slot;
      }
    }
    this.index[hole] = 0;
    this.used[flow] = 0;
    this.free[this.freeCount++] = flow;
    this.count--;
  }

  /** Idle ticks after which the flow is gone. */
  private timeout(flow: number): number {
    switch (this.protocol[flow]) {
      case Protocol.Tcp:
        return tcpTimeouts[this.state[flow]];
      case Protocol.Udp:
        return udpTimeout;
      case Protocol.Icmp:
        return icmpTimeout;
      default:
        return otherTimeout;
    }
  }

  /**
   * Make room: of a random sample the longest-idle closed flow, else the longest-idle one that has
   * been silent for a second. A table full of busy flows evicts nothing.
   */
  private evict(nowTick: number): void {
    let victim = noFlow;
    let victimScore = second;
    for (let step = 0; step < evictionSample; step++) {
      const flow = (this.nextRandom() >>> 0) % this.capacity;
      if (this.used[flow] === 0) continue;
      const idle = nowTick - this.lastSeen[flow];
      const score = this.state[flow] >= FlowState.HalfClosed ? idle + 1_000_000 : idle;
      if (score > victimScore) {
        victim = flow;
        victimScore = score;
      }
    }
    if (victim === noFlow) return;
    this.remove(victim);
    this.evicted++;
  }

  private nextRandom(): number {
    if (this.randomAt === randomPool) {
      crypto.getRandomValues(this.random);
      this.randomAt = 0;
    }
    return this.random[this.randomAt++];
  }
}

/** MurmurHash3's finaliser over the words of the key (public domain, Austin Appleby). */
function mix(a: number, b: number, ports: number, protocol: number, seed: number): number {
  let h = seed ^ a;
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b) ^ b;
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35) ^ ports;
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b) ^ protocol;
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return h ^ (h >>> 16);
}
