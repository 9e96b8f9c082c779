/**
 * The flow table: one record for both directions of a connection, in columns allocated once.
 *
 * A record is a number. Its key is the 5-tuple in canonical order (the lower address-and-port end
 * is A), so both directions find the same record; `localIsA` says which end is this host's.
 *
 * A full table makes room by ending, in this order: the flow that closed first, a second ago or
 * more; the longest-silent of those not established, so that a flood of half-open connections
 * competes with itself only; one that closed just now; of a random sample the longest-idle of the
 * others, if it was silent for a second. Two queues keep all but these, which pay nothing for them.
 *
 * Nothing here assumes that every packet of a flow is seen: a kernel program may carry some. Ages
 * are in ticks of 100 ms.
 */
import { Protocol } from '../parsers/ipv4.ts';
import { TcpFlag } from '../parsers/tcp.ts';
import { type Carried, nothingCarried } from './carried.ts';
import { type FlowColumns, openFlowColumns } from './flow-columns.ts';
import { idlestOfSample } from './flow-eviction.ts';
import { hashTuple, RandomWords } from './flow-hash.ts';
import { FlowIndex } from './flow-index.ts';
import { FlowEnd, FlowEvent, FlowLogWriter, flowLogByteLength } from './flow-log.ts';
import { Closing, FlowState, Progress, Queue } from './flow-progress.ts';
import { FlowQueues } from './flow-queue.ts';
import { idleLimit, ticksPerSecond } from './flow-timeouts.ts';
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
  /** Between members of a group: the agent at the other end redirects it. */
  PassGroup: 8,
} as const;
export type Verdict = (typeof Verdict)[keyof typeof Verdict];

/** What a flow's rule says for when the firewall cannot be used. */
export const OnFailure = { Inherit: 0, Pass: 1, Drop: 2 } as const;
export type OnFailure = (typeof OnFailure)[keyof typeof OnFailure];

export const noFlow = -1;

export class Flows {
  readonly capacity: number;
  count = 0;
  evicted = 0;

  /** Which way round the last `find` or `insert` was asked: 1 when its source is end A. */
  sourceIsA = 0;

  carried: Carried = nothingCarried;

  /** Shared with readers in other threads. */
  readonly columns: FlowColumns;
  readonly verdict: Uint8Array;
  readonly state: Uint8Array;
  readonly protocol: Uint8Array;
  readonly localIsA: Uint8Array;
  readonly link: Uint8Array;
  readonly onFailure: Uint8Array;
  /** Which firewall holds it; noFirewall (engine/peers.ts): none. */
  readonly firewall: Uint8Array;
  /** The set of those that may. */
  readonly firewalls: Uint16Array;
  readonly cookie: Int32Array;
  readonly lastSeen: Int32Array;

  private readonly addressA: Int32Array;
  private readonly addressB: Int32Array;
  private readonly ports: Int32Array;
  private readonly hash: Int32Array;
  private readonly closing: Uint8Array;
  private readonly logged: Uint8Array;
  private readonly progress: Uint8Array;
  private readonly queues: FlowQueues;
  private readonly log: FlowLogWriter;
  private readonly free: Int32Array;
  private freeCount: number;
  private readonly index: FlowIndex;
  private readonly seed: number;
  private sweepAt = 0;
  private highWater = 0;
  private readonly random = new RandomWords();

  // The canonical key of the last find, kept so that insert need not repeat it.
  private keyA = 0;
  private keyB = 0;
  private keyPorts = 0;
  private keyProtocol = 0;
  /** Seeded hash of the tuple that `find` was last asked for, the same in both directions. */
  keyHash = 0;

  /**
   * @param memory flowColumnsByteLength(capacity) bytes; the table's own columns come on top
   * @param logMemory a ring (engine/flow-log.ts) for beginnings and ends; none by default
   */
  constructor(
    capacity: number,
    memory: SharedArrayBuffer,
    logMemory = new SharedArrayBuffer(flowLogByteLength(0)),
  ) {
    this.capacity = capacity;
    this.log = new FlowLogWriter(logMemory);
    this.queues = new FlowQueues(capacity, 2);
    this.index = new FlowIndex(capacity);
    const columns = openFlowColumns(memory, capacity);
    // A table that a dead worker left behind.
    columns.used.fill(0);
    this.columns = columns;
    this.verdict = columns.verdict;
    this.state = columns.state;
    this.protocol = columns.protocol;
    this.localIsA = columns.localIsA;
    this.link = columns.link;
    this.onFailure = columns.onFailure;
    this.firewall = columns.firewall;
    this.firewalls = new Uint16Array(capacity);
    this.cookie = columns.cookie;
    this.lastSeen = columns.lastSeen;
    this.addressA = columns.addressA;
    this.addressB = columns.addressB;
    this.ports = columns.ports;
    this.hash = new Int32Array(capacity);
    this.closing = new Uint8Array(capacity);
    this.logged = new Uint8Array(capacity);
    this.progress = new Uint8Array(capacity);
    this.free = new Int32Array(capacity);
    this.freeCount = capacity;
    for (let i = 0; i < capacity; i++) this.free[i] = capacity - 1 - i;
    // Secret, so that nobody outside can aim flows at one slot.
    this.seed = this.random.next();
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
    const hash = hashTuple(a, b, ports, protocol, this.seed);
    this.keyA = a;
    this.keyB = b;
    this.keyPorts = ports;
    this.keyProtocol = protocol;
    this.keyHash = hash;
    return this.index.find(a, b, ports, protocol, hash);
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
    this.columns.used[flow] = 1;
    this.addressA[flow] = this.keyA;
    this.addressB[flow] = this.keyB;
    this.ports[flow] = this.keyPorts;
    this.protocol[flow] = this.keyProtocol;
    this.hash[flow] = this.keyHash;
    this.localIsA[flow] = direction === 0 ? this.sourceIsA : 1 - this.sourceIsA;
    this.link[flow] = link;
    this.begin(flow, direction, verdict, nowTick);
    const { keyA, keyB, keyHash, keyPorts, keyProtocol } = this;
    this.index.insert(flow, keyA, keyB, keyPorts, keyProtocol, keyHash);
    return flow;
  }

  /**
   * Begin a record's life again, for a new connection on the same 5-tuple: new cookie, state and
   * counters. The caller describes what decided it.
   */
  restart(flow: number, direction: Direction, verdict: Verdict, nowTick: number): void {
    this.carried.end(flow);
    this.writeEnd(flow, FlowEnd.Replaced);
    this.begin(flow, direction, verdict, nowTick);
  }

  /**
   * The connection goes on under another verdict: the log has an end of it, and a beginning. The
   * caller describes what decided it.
   */
  judgeAgain(flow: number, verdict: Verdict, nowTick: number): void {
    this.carried.end(flow);
    this.writeEnd(flow, FlowEnd.Reclassified);
    this.judge(flow, verdict, nowTick);
  }

  /** Verdict and counters, which count what happened under it. */
  private judge(flow: number, verdict: Verdict, nowTick: number): void {
    const { columns } = this;
    columns.firstSeen[flow] = nowTick;
    columns.packets.fill(0, 2 * flow, 2 * flow + 2);
    columns.bytes[2 * flow] = 0;
    columns.bytes[2 * flow + 1] = 0;
    this.verdict[flow] = verdict;
  }

  private begin(flow: number, direction: Direction, verdict: Verdict, nowTick: number): void {
    this.judge(flow, verdict, nowTick);
    this.columns.opener[flow] = direction;
    this.state[flow] = FlowState.Opening;
    this.closing[flow] = 0;
    this.progress[flow] = Progress.Unanswered;
    this.queues.join(Queue.Opening, flow);
    this.cookie[flow] = this.random.next();
    this.lastSeen[flow] = nowTick;
  }

  /**
   * Note which rule of which policy decided the flow.
   * @param firewalls the set of those that may hold it
   * @param firewall the one that does
   * @param logged 1: its beginning and its end are for the log
   */
  describe(
    flow: number,
    rule: number,
    generation: number,
    onFailure: OnFailure,
    firewalls: number,
    firewall: number,
    logged = 1,
  ): void {
    this.columns.rule[flow] = rule;
    this.columns.generation[flow] = generation;
    this.onFailure[flow] = onFailure;
    this.firewalls[flow] = firewalls;
    this.firewall[flow] = firewall;
    this.logged[flow] = logged;
  }

  /** To the log, when it is to have the flow: it has begun, and is described. */
  writeStart(flow: number): void {
    if (this.logged[flow] === 1) this.log.write(this.columns, flow, FlowEvent.Start, FlowEnd.None);
  }

  /** Count what the host sent (egress) or the network brought (ingress). */
  account(flow: number, direction: Direction, packets: number, bytes: number): void {
    const at = 2 * flow + direction;
    this.columns.packets[at] += packets;
    this.columns.bytes[at] += bytes;
  }

  /**
   * Select a flow known by number for a packet that has no ports (a later fragment): false when the
   * record has ended, or serves another connection by now, which has another cookie.
   */
  select(flow: number, cookie: number, sourceIsA: number): boolean {
    if (this.columns.used[flow] === 0 || this.cookie[flow] !== cookie) return false;
    this.sourceIsA = sourceIsA;
    return true;
  }

  /** 0 when the packet that `find` was last asked for leaves this host, 1 when it comes to it. */
  directionOf(flow: number): Direction {
    return this.sourceIsA === this.localIsA[flow] ? 0 : 1;
  }

  /** Both ends have spoken and neither has begun to close. */
  isEstablished(flow: number): boolean {
    const isOpen = this.protocol[flow] !== Protocol.Tcp || this.state[flow] === FlowState.Open;
    return isOpen && this.progress[flow] === Progress.Established;
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
    if (this.progress[flow] !== Progress.Established) this.advance(flow, tcpFlags);
    if (tcpFlags === 0) return;
    if ((tcpFlags & TcpFlag.Rst) !== 0) {
      this.closing[flow] |= Closing.Rst;
      this.close(flow);
    } else if ((tcpFlags & TcpFlag.Fin) !== 0) {
      this.closing[flow] |= this.sourceIsA === 1 ? Closing.FinA : Closing.FinB;
      if ((this.closing[flow] & Closing.Fins) === Closing.Fins) this.close(flow);
      else this.state[flow] = FlowState.HalfClosed;
    } else if (this.state[flow] === FlowState.Opening && (tcpFlags & TcpFlag.Syn) === 0) {
      this.state[flow] = FlowState.Open;
    }
  }

  /** A packet of a flow that is not established; `find` or `select` was asked for it. */
  private advance(flow: number, tcpFlags: number): void {
    if (this.state[flow] === FlowState.Closed) return;
    const isTcp = this.protocol[flow] === Protocol.Tcp;
    if (this.directionOf(flow) !== this.columns.opener[flow]) {
      if (!isTcp) this.progress[flow] = Progress.Established;
      else if (tcpFlags !== 0) this.progress[flow] = Progress.Answered;
    } else if (isTcp && tcpFlags !== 0 && (tcpFlags & TcpFlag.Syn) === 0) {
      if (this.progress[flow] === Progress.Answered) this.progress[flow] = Progress.Established;
    }
    if (this.progress[flow] === Progress.Established) this.queues.leave(flow);
    else this.queues.join(Queue.Opening, flow);
  }

  private close(flow: number): void {
    this.state[flow] = FlowState.Closed;
    this.queues.join(Queue.Closed, flow);
  }

  /** Look at up to `budget` records and remove those idle for longer than their state allows. */
  sweep(nowTick: number, budget: number): void {
    const steps = Math.min(budget, this.highWater);
    for (let step = 0; step < steps; step++) {
      if (this.sweepAt >= this.highWater) this.sweepAt = 0;
      const flow = this.sweepAt++;
      if (this.columns.used[flow] === 0) continue;
      this.carried.collect(flow, nowTick);
      const limit = idleLimit(this.protocol[flow], this.state[flow] as FlowState);
      if (nowTick - this.lastSeen[flow] > limit) this.remove(flow, FlowEnd.Idle);
    }
  }

  /** Write down that the agent no longer sees what is left, as far as the log has room. */
  writeStop(): void {
    for (let flow = 0; flow < this.highWater; flow++) {
      if (this.columns.used[flow] === 0) continue;
      this.carried.end(flow);
      this.writeEnd(flow, FlowEnd.Stop);
    }
  }

  /** @param end why, unless its own sides have ended it */
  remove(flow: number, end: FlowEnd): void {
    this.carried.end(flow);
    this.writeEnd(flow, end);
    this.queues.leave(flow);
    this.index.remove(flow, this.hash[flow]);
    this.columns.used[flow] = 0;
    this.free[this.freeCount++] = flow;
    this.count--;
  }

  /** Make room, as the head of this file says. A table full of busy flows evicts nothing. */
  private evict(nowTick: number): void {
    const closed = this.queues.oldest(Queue.Closed);
    const opening = this.queues.oldest(Queue.Opening);
    // The last ACK of one that has just closed is still to come.
    const isOver = closed !== noFlow && nowTick - this.lastSeen[closed] > ticksPerSecond;
    let victim = isOver || opening === noFlow ? closed : opening;
    if (victim === noFlow) victim = idlestOfSample(this, this.random, nowTick);
    if (victim === noFlow) return;
    this.remove(victim, FlowEnd.Evicted);
    this.evicted++;
  }

  private writeEnd(flow: number, otherwise: FlowEnd): void {
    if (this.logged[flow] === 0) return;
    let end = otherwise;
    if (this.state[flow] === FlowState.Closed) {
      end = (this.closing[flow] & Closing.Rst) !== 0 ? FlowEnd.Rst : FlowEnd.Fin;
    }
    this.log.write(this.columns, flow, FlowEvent.End, end);
  }
}
