/**
 * The firewalls as the data path uses them: where each is, how large a packet it takes, whether it
 * may be used, and which one a flow goes to. Once a breath it asks the witnesses (`look`); after
 * what has arrived was read it probes and draws the conclusions (`conclude`).
 *
 * A flow keeps its firewall as long as that is usable, unless flows follow the active one. A flow
 * whose firewall was lost is looked at when its next packet comes, not before: a million of them
 * cost nothing until then.
 */
import type { Reason } from '../parsers/reason.ts';
import { type Encapsulation, innerMtu, type TunnelHeader } from '../tunnel/encapsulation.ts';
import { Firewalls, ProbeHealth, ProbeState } from '../tunnel/firewalls.ts';
import type { Arena } from './arena.ts';
import { contains, type Prefix } from './classifier/built-in.ts';
import { type FirewallColumns, openFirewallColumns } from './firewall-columns.ts';
import type { Gate } from './gate.ts';
import type { Carrier, Io, TunnelSocket } from './io.ts';
import { Prober } from './probe.ts';

/** What becomes of the flows of a firewall that was lost. */
export const OnLoss = {
  /** Another firewall takes them. */
  Move: 0,
  /** TCP passes until it ends, other protocols move: `established: pass`. */
  Pass: 1,
  /** TCP is reset, other protocols move. */
  Reset: 2,
  /** They go on to the lost firewall, as if it were there. */
  Stick: 3,
} as const;
export type OnLoss = (typeof OnLoss)[keyof typeof OnLoss];

/** Plain data: it crosses from the main thread to the data path as a message. */
export type PeerOptions = {
  readonly firewalls: readonly {
    /** int32. */
    readonly address: number;
    /** Who else counts as this firewall. */
    readonly returnFrom: Prefix;
  }[];
  readonly spread: boolean;
  readonly onLoss: OnLoss;
  /** All flows go to the active firewall, those of another one too. */
  readonly follow: boolean;
  readonly preempt: boolean;
  readonly holdDownMs: number;
  readonly graceMs: number;
  /** The probe through the tunnel; `elsewhere`: another thread writes the probe's columns. */
  readonly probe: 'off' | 'tunnel' | 'elsewhere';
  readonly probeIntervalMs: number;
  readonly probeFailures: number;
};

/** Of all firewalls together. */
export const Availability = {
  /** Some firewall may be used. */
  Usable: 0,
  /** Nothing was lost yet: at the start, or at the end. */
  Before: 1,
  /** None takes telemetry. */
  TelemetryLost: 2,
  /** Some take telemetry, and of these none answers its probe. */
  FirewallDown: 3,
} as const;
export type Availability = (typeof Availability)[keyof typeof Availability];

/** In the flows' column: none. A shift by it looks at bit 31 of a set, which is never there. */
export const noFirewall = 255;

/** What every IPv4 link carries (RFC 791 section 3.2). A path that leaves less is not for IPv4. */
const minimumMtu = 68;

export class Peers {
  readonly count: number;
  /** int32, by firewall. */
  readonly address: Int32Array;
  /** Largest inner packet on the way to each, bytes. */
  readonly innerMtu: Int32Array;
  /** The smallest of those that may be used, bytes: what a flow may be moved with. */
  smallestMtu: number;
  readonly onLoss: OnLoss;
  /** What has gone to each and what came back is counted here. */
  readonly columns: FirewallColumns;
  readonly choice: Firewalls;
  /** Whether some firewall has been usable since the start, of this worker or one before. */
  everUsable = false;
  private readonly options: PeerOptions;
  private readonly follow: boolean;
  /** Datagrams come in runs of one sender: the last answer of `sendersOf`. */
  private lastSource = 0;
  private lastSenders = 0;
  private readonly gates: readonly Gate[];
  private readonly health: readonly ProbeHealth[];
  private readonly prober: Prober;
  private readonly encapsulation: Encapsulation;
  private readonly graceEndMs: number;
  private readonly probeState: Float64Array;
  // Passive witness: counters as they were last seen, and since when nothing has come back.
  private readonly sentBefore: Float64Array;
  private readonly returnedBefore: Float64Array;
  private readonly silentSinceMs: Float64Array;

  /**
   * @param gates the lease of each firewall
   * @param memory of firewallColumnsByteLength bytes; what a worker before left in it is taken over
   * @param probeMemory likewise, of whoever probes: this worker, another thread
   */
  constructor(
    options: PeerOptions,
    gates: readonly Gate[],
    memory: SharedArrayBuffer,
    arena: Arena,
    encapsulation: Encapsulation,
    io: Io,
    probeMemory = memory,
  ) {
    const { firewalls, graceMs, holdDownMs, preempt, probe, spread } = options;
    const nowMs = io.clock.now();
    const count = firewalls.length;
    this.options = options;
    this.count = count;
    this.gates = gates;
    this.onLoss = options.onLoss;
    this.follow = options.follow;
    this.encapsulation = encapsulation;
    this.address = Int32Array.from(firewalls, ({ address }) => address);
    // Until the kernel knows the path: Ethernet's.
    this.smallestMtu = innerMtu(1500, encapsulation);
    this.innerMtu = new Int32Array(count).fill(this.smallestMtu);
    this.columns = openFirewallColumns(memory);
    this.probeState = openFirewallColumns(probeMemory).probeState;
    const seeds = [...this.address];
    this.choice = new Firewalls({ seeds, spread, preempt, holdDownMs, graceMs }, nowMs);
    this.graceEndMs = nowMs + graceMs;
    this.everUsable = this.columns.changes.some((count) => count > 0);
    if (probe !== 'off') this.awaitProbes();
    this.health = probe === 'tunnel' ? this.startHealth(nowMs) : [];
    this.prober = new Prober(
      arena,
      encapsulation,
      io.socket,
      io.clock,
      this.address,
      this.health,
      this.columns,
    );
    // 0.0.0.0 sends nothing, but returnFrom may be everybody.
    this.lastSource = -1;
    this.sendersOf(0);
    this.sentBefore = this.columns.sentPackets.slice();
    this.returnedBefore = this.columns.returnedPackets.slice();
    this.silentSinceMs = new Float64Array(count).fill(-1);
  }

  /** Nothing is known of a firewall before its first probe, unless a worker before knew it. */
  private awaitProbes(): void {
    const { probeState } = this;
    for (let i = 0; i < this.count; i++) {
      if (probeState[i] === ProbeState.Off) probeState[i] = ProbeState.Waiting;
    }
  }

  private startHealth(nowMs: number): readonly ProbeHealth[] {
    const { probeFailures, probeIntervalMs } = this.options;
    const { probeState } = this;
    return [...probeState].map(
      (state) => new ProbeHealth(probeIntervalMs, probeFailures, nowMs, state as ProbeState),
    );
  }

  /** Whether there is a probe through the tunnel. */
  get probes(): boolean {
    return this.health.length > 0;
  }

  /** Which firewalls a sender may be: a set, 0 for a stranger. */
  sendersOf(source: number): number {
    if (source === this.lastSource) return this.lastSenders;
    const { firewalls } = this.options;
    let set = 0;
    for (let i = 0; i < firewalls.length; i++) {
      const { address, returnFrom } = firewalls[i];
      if (source === address || contains(returnFrom, source)) set |= 1 << i;
    }
    this.lastSource = source;
    this.lastSenders = set;
    return set;
  }

  /** Whether a flow of these firewalls stays where it is. */
  keeps(firewall: number, set: number): boolean {
    if (((this.choice.usable >> firewall) & 1) === 0) return false;
    return !this.follow || this.choice.active(set) === firewall;
  }

  isLost(firewall: number): boolean {
    return firewall !== noFirewall && !this.choice.isUsable(firewall);
  }

  /** Ask the leases and the probes: once a breath. */
  look(nowMs: number): Availability {
    const { choice, gates } = this;
    let open = 0;
    let before = 0;
    let waiting = 0;
    for (let i = 0; i < this.count; i++) {
      const probe = this.probeState[i];
      const isOpen = gates[i].isOpen(nowMs);
      if (isOpen) open++;
      else if (gates[i].isBeforeOrAfter()) before++;
      if (isOpen && probe === ProbeState.Waiting) waiting++;
      choice.setHealthy(i, isOpen && (probe === ProbeState.Off || probe === ProbeState.Answered));
    }
    if (choice.update(nowMs)) this.publish(nowMs);
    if (choice.usable !== 0) {
      this.everUsable = true;
      return Availability.Usable;
    }
    if (before === this.count) return Availability.Before;
    if (open === 0) return Availability.TelemetryLost;
    const isStarting = !this.everUsable && (waiting > 0 || nowMs < this.graceEndMs);
    return isStarting ? Availability.Before : Availability.FirewallDown;
  }

  /**
   * Probe, and believe what was found out: after what has arrived was read, at the end of a breath.
   * True when a probe says something new.
   */
  conclude(nowMs: number): boolean {
    const { health } = this;
    let isNew = false;
    for (let i = 0; i < health.length; i++) {
      this.listen(i, nowMs);
      health[i].look(nowMs);
      if (this.probeState[i] === health[i].state) continue;
      this.probeState[i] = health[i].state;
      isNew = true;
    }
    if (health.length > 0) this.prober.run(nowMs);
    return isNew;
  }

  /** The passive witness. */
  private listen(firewall: number, nowMs: number): void {
    const { columns, returnedBefore, sentBefore, silentSinceMs } = this;
    const sent = columns.sentPackets[firewall];
    const returned = columns.returnedPackets[firewall];
    if (returned !== returnedBefore[firewall]) {
      columns.lastReturnMs[firewall] = nowMs;
      this.health[firewall].carried(nowMs);
      silentSinceMs[firewall] = -1;
    } else if (sent !== sentBefore[firewall] && silentSinceMs[firewall] < 0) {
      silentSinceMs[firewall] = nowMs;
    }
    sentBefore[firewall] = sent;
    returnedBefore[firewall] = returned;
    if (silentSinceMs[firewall] >= 0) this.health[firewall].silent(silentSinceMs[firewall], nowMs);
  }

  /**
   * To the firewalls that flows stay with, packets go without us; the others' come up.
   * @param watched packets are captured, so that all come up
   */
  tellCarrier(carrier: Carrier, watched: boolean): void {
    const { choice, columns, options } = this;
    for (let i = 0; i < this.count; i++) {
      const used = choice.isUsable(i) && (!options.follow || columns.active[i] === 1);
      carrier.setInnerMtu(i, used && !watched ? this.innerMtu[i] : 0);
    }
  }

  /** How long nothing is due, in whole milliseconds from 1 on. */
  idleMs(nowMs: number): number {
    let nextMs = Number.POSITIVE_INFINITY;
    for (let i = 0; i < this.health.length; i++) {
      nextMs = Math.min(nextMs, this.health[i].nextAtMs);
    }
    return Math.max(1, Math.ceil(nextMs - nowMs));
  }

  /** A sound packet from the tunnel between the probe's addresses, from one of `senders`. */
  takeProbe(innerAt: number, header: TunnelHeader, senders: number): Reason {
    return this.prober.take(innerAt, header, senders);
  }

  /** Ask the kernel for the path to each firewall: system calls. */
  updateMtu(socket: TunnelSocket, mtuLimit: number): void {
    for (let i = 0; i < this.count; i++) {
      const pathMtu = socket.pathMtu(this.address[i]);
      if (pathMtu <= 0) continue;
      const inner = innerMtu(Math.min(pathMtu, mtuLimit), this.encapsulation);
      this.innerMtu[i] = Math.max(inner, minimumMtu);
      this.columns.innerMtu[i] = this.innerMtu[i];
    }
    this.findSmallest();
  }

  private findSmallest(): void {
    const set = this.choice.usable === 0 ? -1 : this.choice.usable;
    let smallest = Number.POSITIVE_INFINITY;
    for (let i = 0; i < this.count; i++) {
      if (((set >> i) & 1) === 1) smallest = Math.min(smallest, this.innerMtu[i]);
    }
    this.smallestMtu = smallest;
  }

  /** What the choice has become, for whoever reads the columns. */
  private publish(nowMs: number): void {
    const { choice, columns, count, options } = this;
    const active = choice.active((1 << count) - 1);
    for (let i = 0; i < count; i++) {
      const usable = choice.isUsable(i) ? 1 : 0;
      const held = (choice.held >> i) & 1;
      if (columns.usable[i] !== usable) {
        columns.changes[i]++;
        columns.sinceMs[i] = nowMs;
      }
      columns.usable[i] = usable;
      columns.held[i] = held;
      columns.active[i] = options.spread ? usable & (1 - held) : i === active ? 1 : 0;
    }
    this.findSmallest();
  }
}
