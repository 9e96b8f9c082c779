/**
 * Flows that the programs in the kernel carry by themselves. The engine sees a flow begin, has the
 * programs carry it, reads what they carried, and is there for every packet that is not plain.
 *
 * Order. A packet must not overtake one of its flow that is on its way through the engine. So the
 * programs count, by flow and direction, what they give to the engine; the engine says how many of
 * these it has sent on; and only while both numbers are equal is a packet carried. It holds in both
 * parts of the way: from the device to the firewall, and from the socket to the network.
 *
 * The numbers agree from the start when a flow begins to be counted while none of its packets is
 * under way: at the SYN-ACK, for which both ends wait. Else, and when a queue has lost packets,
 * they are made to agree: the programs' number is read before a queue is, and once the queue was
 * found empty, everything up to that number has been sent on or was lost.
 */
import { Protocol } from '../parsers/ipv4.ts';
import { Reason } from '../parsers/reason.ts';
import { TcpFlag } from '../parsers/tcp.ts';
import { type Counters, count } from './counters.ts';
import type { FirewallColumns } from './firewall-columns.ts';
import { type Flows, Verdict } from './flows.ts';
import { type Carrier, carrierTotals, Direction } from './io.ts';

/** Each is a system call; the rest of a breath's flows begin in the next ones. */
const beginsPerBreath = 64;
/** A question and its answer are over before it would pay. */
const minimumUdpPackets = 8;
/** Flows whose numbers are made to agree in one breath. */
const agreeAtOnce = 64;
/** Flows that one batch can have packets of: a datagram joined by the kernel has 64 at most. */
const touchedMost = 4096;

const Stage = {
  None: 0,
  /** The numbers say nothing yet: packets that were not counted may be under way. */
  Waiting: 1,
  /** They are right; the engine has yet to see the flow established. */
  Counted: 2,
  Carried: 3,
} as const;

/** What was found empty in a breath. */
const Emptied = { Egress: 1, Ingress: 2, Socket: 4, All: 7 } as const;

export class CarriedFlows {
  private readonly carrier: Carrier;
  private readonly flows: Flows;
  private readonly counters: Counters;
  private readonly firewalls: FirewallColumns;
  private readonly stage: Uint8Array;
  /** Where it is carried to. */
  private readonly firewall: Uint8Array;
  /** By flow and direction: packets sent on, of those that the programs gave to the engine. */
  private readonly sent: Int32Array;
  private readonly delivered: Int32Array;
  /** What was read last of each flow's totals. */
  private readonly seen: Float64Array;
  private readonly totals = new Float64Array(carrierTotals);
  private readonly touched = new Int32Array(touchedMost);
  private touchedCount = 0;
  private readonly unequal = new Int32Array(agreeAtOnce);
  private readonly emptied = new Uint8Array(agreeAtOnce);
  /** Of these flows: of one direction before a queue is read, of both before the socket is. */
  private readonly snapshots = new Int32Array(2 * agreeAtOnce);
  private unequalCount = 0;
  /** Those of them that were there when the breath began. */
  private agreeing = 0;
  private budget = 0;

  constructor(carrier: Carrier, flows: Flows, counters: Counters, firewalls: FirewallColumns) {
    this.firewalls = firewalls;
    this.carrier = carrier;
    this.flows = flows;
    this.counters = counters;
    const { capacity } = carrier;
    flows.carried = this;
    this.stage = new Uint8Array(capacity);
    this.firewall = new Uint8Array(capacity);
    this.sent = new Int32Array(2 * capacity);
    this.delivered = new Int32Array(2 * capacity);
    this.seen = new Float64Array(carrierTotals * capacity);
  }

  /** Once a breath, before anything is read. */
  beginBreath(): void {
    if (this.carrier.beginsAgain()) this.endAll();
    this.budget = beginsPerBreath;
    this.agreeing = this.unequalCount;
    this.emptied.fill(0);
  }

  /**
   * A plain packet of a redirected flow is sent to `firewall` now; `touch` has noted it. From now
   * on the flow may be counted, and carried.
   */
  redirected(
    flow: number,
    direction: Direction,
    tcpFlags: number,
    firewall: number,
    interfaceIndex: number,
  ): void {
    if (flow >= this.stage.length) return;
    // Another firewall has taken it: what was counted is of the way to the one before.
    if (this.stage[flow] !== Stage.None && this.firewall[flow] !== firewall) this.end(flow);
    if (this.stage[flow] !== Stage.None) {
      this.sent[2 * flow + direction]++;
      this.touch(flow);
    } else if (this.budget > 0) {
      this.begin(flow, tcpFlags, firewall, interfaceIndex);
    }
  }

  /** A packet of the flow has come back by the socket. */
  returned(flow: number, direction: Direction): void {
    if (flow >= this.stage.length || this.stage[flow] === Stage.None) return;
    this.delivered[2 * flow + direction]++;
    this.touch(flow);
  }

  private touch(flow: number): void {
    if (this.touchedCount < touchedMost) this.touched[this.touchedCount++] = flow;
  }

  private begin(flow: number, tcpFlags: number, firewall: number, interfaceIndex: number): void {
    const { flows } = this;
    const opening = TcpFlag.Syn | TcpFlag.Ack;
    const isTcp = flows.protocol[flow] === Protocol.Tcp;
    const quiet = isTcp && (tcpFlags & opening) === opening;
    if (!quiet && !this.isWorthwhile(flow, isTcp)) return;
    this.budget--;
    this.introduce(flow, firewall, interfaceIndex);
    this.stage[flow] = quiet ? Stage.Counted : Stage.Waiting;
    this.firewall[flow] = firewall;
    this.sent.fill(0, 2 * flow, 2 * flow + 2);
    this.delivered.fill(0, 2 * flow, 2 * flow + 2);
    if (!quiet) this.makeEqual(flow);
  }

  /** To the programs, with the host's end first. */
  private introduce(flow: number, firewall: number, interfaceIndex: number): void {
    const { addressA, addressB, localIsA, ports } = this.flows.columns;
    const isA = localIsA[flow] === 1;
    const portA = ports[flow] >>> 16;
    const portB = ports[flow] & 0xffff;
    this.carrier.begin(
      flow,
      isA ? addressA[flow] : addressB[flow],
      isA ? addressB[flow] : addressA[flow],
      isA ? portA : portB,
      isA ? portB : portA,
      this.flows.protocol[flow],
      this.flows.cookie[flow],
      this.flows.entropy(flow),
      firewall,
      interfaceIndex,
    );
  }

  private isWorthwhile(flow: number, isTcp: boolean): boolean {
    const { flows } = this;
    if (!flows.isEstablished(flow)) return false;
    const { packets } = flows.columns;
    return isTcp || packets[2 * flow] + packets[2 * flow + 1] >= minimumUdpPackets;
  }

  /** What was noted since the last call has left: the programs may go on from there. */
  settle(): void {
    for (let index = 0; index < this.touchedCount; index++) {
      const flow = this.touched[index];
      if (this.stage[flow] === Stage.Counted && this.flows.isEstablished(flow)) {
        this.stage[flow] = Stage.Carried;
      }
      if (this.stage[flow] === Stage.Carried) this.tell(flow);
    }
    this.touchedCount = 0;
  }

  private tell(flow: number): void {
    const { carrier, delivered, sent } = this;
    for (let direction: Direction = 0; direction < 2; direction++) {
      carrier.setSent(flow, direction as Direction, sent[2 * flow + direction]);
      carrier.setDelivered(flow, direction as Direction, delivered[2 * flow + direction]);
    }
  }

  private makeEqual(flow: number): void {
    for (let index = 0; index < this.unequalCount; index++) {
      if (this.unequal[index] === flow) return;
    }
    if (this.unequalCount < agreeAtOnce) this.unequal[this.unequalCount++] = flow;
  }

  /** Before a queue is read. */
  beforeQueue(direction: Direction): void {
    for (let index = 0; index < this.agreeing; index++) {
      this.snapshots[index] = this.carrier.given(this.unequal[index], direction);
    }
  }

  /** The queue was found empty, and all that was read from it has been sent. */
  afterEmptyQueue(direction: Direction, link: number): void {
    for (let index = 0; index < this.agreeing; index++) {
      const flow = this.unequal[index];
      if (this.flows.link[flow] !== link) continue;
      this.sent[2 * flow + direction] = this.snapshots[index];
      this.emptied[index] |= direction === Direction.Egress ? Emptied.Egress : Emptied.Ingress;
    }
  }

  beforeSocket(): void {
    for (let index = 0; index < this.agreeing; index++) {
      const flow = this.unequal[index];
      this.snapshots[2 * index] = this.carrier.returned(flow, Direction.Egress);
      this.snapshots[2 * index + 1] = this.carrier.returned(flow, Direction.Ingress);
    }
  }

  /** The socket was found empty: the end of a round. What was not settled has another one. */
  afterEmptySocket(): void {
    let left = 0;
    for (let index = 0; index < this.unequalCount; index++) {
      const flow = this.unequal[index];
      if (index < this.agreeing) {
        this.delivered[2 * flow] = this.snapshots[2 * index];
        this.delivered[2 * flow + 1] = this.snapshots[2 * index + 1];
        if ((this.emptied[index] | Emptied.Socket) === Emptied.All) {
          this.agree(flow);
          continue;
        }
      }
      this.unequal[left++] = flow;
    }
    this.unequalCount = left;
    this.agreeing = 0;
    this.settle();
  }

  private agree(flow: number): void {
    if (this.stage[flow] === Stage.Waiting) this.stage[flow] = Stage.Counted;
    if (this.stage[flow] !== Stage.None) this.touch(flow);
  }

  /** Add what the programs have carried since the last time. */
  collect(flow: number, nowTick: number): void {
    if (flow >= this.stage.length || this.stage[flow] === Stage.None) return;
    // It passes now, since its firewall was lost.
    if (this.flows.verdict[flow] !== Verdict.Redirect) return this.end(flow);
    if (this.read(flow)) this.flows.lastSeen[flow] = nowTick;
    this.compare(flow);
  }

  /** False when nothing was carried. */
  private read(flow: number): boolean {
    const { carrier, counters, flows, seen, totals } = this;
    carrier.read(flow, totals);
    const at = carrierTotals * flow;
    let moved = 0;
    for (let index = 0; index < carrierTotals; index++) {
      const total = totals[index];
      totals[index] = total - seen[at + index];
      seen[at + index] = total;
      moved += totals[index];
    }
    if (moved === 0) return false;
    flows.columns.carried[flow] = 1;
    flows.account(flow, Direction.Egress, totals[0], totals[1]);
    flows.account(flow, Direction.Ingress, totals[2], totals[3]);
    const firewall = this.firewall[flow];
    const sentPackets = totals[0] + totals[2];
    const sentBytes = totals[1] + totals[3];
    count(counters, Reason.Redirected, sentPackets, sentBytes);
    count(counters, Reason.Reinjected, totals[4], totals[5]);
    this.firewalls.sentPackets[firewall] += sentPackets;
    this.firewalls.sentBytes[firewall] += sentBytes;
    this.firewalls.returnedPackets[firewall] += totals[4];
    this.firewalls.returnedBytes[firewall] += totals[5];
    return true;
  }

  /**
   * Behind: packets are under way, or were lost. Ahead: packets came by that the programs did not
   * count, because they have forgotten the flow or could not read it; then equal numbers would say
   * nothing.
   */
  private compare(flow: number): void {
    const { carrier, delivered, sent } = this;
    let isAhead = false;
    let isEqual = this.stage[flow] !== Stage.Waiting;
    for (let direction: Direction = 0; direction < 2; direction++) {
      const at = 2 * flow + direction;
      const given = (sent[at] - carrier.given(flow, direction as Direction)) | 0;
      const returned = (delivered[at] - carrier.returned(flow, direction as Direction)) | 0;
      if (given > 0 || returned > 0) isAhead = true;
      if (given !== 0 || returned !== 0) isEqual = false;
    }
    if (isAhead) this.startOver(flow);
    if (!isEqual) this.makeEqual(flow);
  }

  /** Nothing is carried until the numbers agree again, and the programs know the flow. */
  private startOver(flow: number): void {
    const { carrier } = this;
    this.stage[flow] = Stage.Waiting;
    for (let direction: Direction = 0; direction < 2; direction++) {
      const way = direction as Direction;
      carrier.setSent(flow, way, carrier.given(flow, way) - 1);
      carrier.setDelivered(flow, way, carrier.returned(flow, way) - 1);
    }
    carrier.remind(flow);
  }

  /** Every packet comes up, from now on. */
  endAll(): void {
    for (let flow = 0; flow < this.stage.length; flow++) this.end(flow);
  }

  /** The record is about to end or to begin again. */
  end(flow: number): void {
    if (flow >= this.stage.length || this.stage[flow] === Stage.None) return;
    this.carrier.end(flow);
    this.read(flow);
    this.stage[flow] = Stage.None;
    this.flows.columns.carried[flow] = 0;
  }
}
