/**
 * Which firewalls are healthy and which of them takes a flow. Pure: time is passed in
 * (CLOCK_MONOTONIC, milliseconds), nothing is sent and nobody is asked here.
 *
 * A firewall has three witnesses: telemetry (its lease), a probe that it must answer, and the
 * traffic that comes back from it. Traffic alone never declares a firewall lost, since a firewall
 * may block all of it; silence only makes the probe be sent at once.
 *
 *  1. `ProbeHealth`  when to probe one firewall, and what answers and silence mean
 *  2. `Firewalls`    from healthy or not to: usable, active, held down
 *
 * A set of firewalls is a number, bit i for the i-th of the configuration. Nothing allocates but
 * the constructors and `Firewalls.watch`.
 */

/** More than any site has for one workload; a set must fit in 16 bits. */
const maximumFirewalls = 16;

/** What the probe says. Off: there is none, and telemetry is believed. */
export const ProbeState = { Off: 0, Waiting: 1, Answered: 2, Lost: 3 } as const;
export type ProbeState = (typeof ProbeState)[keyof typeof ProbeState];

/**
 * While nothing is wrong there is one probe an interval, and none when traffic came back within
 * it. An unanswered one is followed by others at a quarter of the interval, so that a path that
 * loses every third packet is not taken for a dead one: ten probes in a row with the defaults.
 */
const hurriedPart = 4;

export class ProbeHealth {
  state: ProbeState;
  /** When the next probe is due; in the past: now. */
  nextAtMs: number;
  private readonly intervalMs: number;
  private readonly failures: number;
  /** When the first of the probes went that nothing has followed; -1: none. */
  private askedMs = -1;
  /** The last sign of life; for an answer, when its probe went. */
  private aliveMs = 0;
  private unanswered = 0;

  /**
   * Lost after `failures` intervals of silence, counted from the middle of the first one.
   * @param state Waiting, or what is known from before
   */
  constructor(intervalMs: number, failures: number, nowMs: number, state: ProbeState) {
    this.intervalMs = intervalMs;
    this.failures = failures;
    this.nextAtMs = nowMs;
    this.state = state;
  }

  sent(nowMs: number): void {
    if (this.askedMs < 0) this.askedMs = nowMs;
    this.unanswered++;
    const isLost = this.state === ProbeState.Lost;
    this.nextAtMs = nowMs + (isLost ? this.intervalMs : this.intervalMs / hurriedPart);
  }

  /** An answer to the probe that went at `sentMs`. */
  answered(sentMs: number): void {
    this.live(sentMs);
    this.nextAtMs = sentMs + this.intervalMs;
  }

  /** Traffic came back: no probe is needed. A lost firewall must answer one all the same. */
  carried(nowMs: number): void {
    if (this.state === ProbeState.Lost) return;
    this.live(nowMs);
    this.nextAtMs = nowMs + this.intervalMs;
  }

  /** Packets went at `sinceMs` and nothing has come back: half an interval, and it is asked. */
  silent(sinceMs: number, nowMs: number): void {
    if (this.askedMs >= 0 || nowMs >= this.nextAtMs) return;
    if (nowMs - Math.max(sinceMs, this.aliveMs) >= this.intervalMs / 2) this.nextAtMs = nowMs;
  }

  /** Call it after what has arrived was read: an answer may have waited while we did not run. */
  look(nowMs: number): void {
    if (this.state === ProbeState.Lost || this.askedMs < 0) return;
    const limitMs = (this.failures - 0.5) * this.intervalMs;
    if (this.unanswered >= this.failures && nowMs - this.askedMs >= limitMs) {
      this.state = ProbeState.Lost;
    }
  }

  private live(aliveMs: number): void {
    this.state = ProbeState.Answered;
    this.aliveMs = aliveMs;
    this.askedMs = -1;
    this.unanswered = 0;
  }
}

export type ChoiceOptions = {
  /** By firewall: any number that is its own, such as its address. */
  readonly seeds: readonly number[];
  /** Spread flows over all usable firewalls, instead of one that takes all. */
  readonly spread: boolean;
  /** Go back to an earlier firewall of the list when it is well again. */
  readonly preempt: boolean;
  /** How long a firewall that was lost must be healthy before it is preferred to others. */
  readonly holdDownMs: number;
  /** A firewall that is not healthy by then counts as lost. */
  readonly graceMs: number;
};

export class Firewalls {
  /** The set of those that may take flows. */
  usable = 0;
  /** The set of those that are usable, but were lost a short while ago. */
  held = 0;
  /** How often the choice has changed. */
  generation = 0;
  readonly count: number;
  private readonly options: ChoiceOptions;
  private readonly graceEndMs: number;
  private readonly healthy: Uint8Array;
  /** 1: it was lost at some time. */
  private readonly fell: Uint8Array;
  private readonly upSinceMs: Float64Array;
  /** The firewall that takes the flows of a set; -1: none. */
  private readonly activeBySet = new Int8Array(1 << maximumFirewalls).fill(-1);
  private readonly sets: number[] = [];

  constructor(options: ChoiceOptions, nowMs: number) {
    this.options = options;
    this.count = options.seeds.length;
    this.graceEndMs = nowMs + options.graceMs;
    this.healthy = new Uint8Array(this.count);
    this.fell = new Uint8Array(this.count);
    this.upSinceMs = new Float64Array(this.count);
    this.watch((1 << this.count) - 1);
  }

  /** From now on a firewall is kept chosen for this set. */
  watch(set: number): void {
    if (this.sets.includes(set)) return;
    this.sets.push(set);
    this.activeBySet[set] = this.choose(set, -1);
  }

  setHealthy(index: number, healthy: boolean): void {
    this.healthy[index] = healthy ? 1 : 0;
  }

  /** Draw the conclusions; true when something has changed. */
  update(nowMs: number): boolean {
    let usable = 0;
    let held = 0;
    for (let i = 0; i < this.count; i++) {
      const wasUsable = ((this.usable >> i) & 1) === 1;
      if (this.healthy[i] === 0) {
        if (wasUsable || nowMs >= this.graceEndMs) this.fell[i] = 1;
        continue;
      }
      usable |= 1 << i;
      if (!wasUsable) this.upSinceMs[i] = nowMs;
      if (this.fell[i] === 1 && nowMs - this.upSinceMs[i] < this.options.holdDownMs) held |= 1 << i;
    }
    if (usable === this.usable && held === this.held) return false;
    this.usable = usable;
    this.held = held;
    for (let i = 0; i < this.sets.length; i++) {
      const set = this.sets[i];
      this.activeBySet[set] = this.choose(set, this.activeBySet[set]);
    }
    this.generation++;
    return true;
  }

  isUsable(index: number): boolean {
    return ((this.usable >> index) & 1) === 1;
  }

  /** The one that takes all flows of a watched set when they are not spread; -1: none is usable. */
  active(set: number): number {
    return this.activeBySet[set];
  }

  /**
   * The firewall for a new flow, or for one whose firewall was lost; -1: none of `set` is usable.
   * @param hash the same for both directions of the flow, and on every host
   */
  place(set: number, hash: number): number {
    const { seeds, spread } = this.options;
    return spread ? rendezvous(seeds, this.preferred(set), hash) : this.activeBySet[set];
  }

  /** The usable ones of a set, without those held down while there are others. */
  private preferred(set: number): number {
    const candidates = this.usable & set;
    const ready = candidates & ~this.held;
    return ready === 0 ? candidates : ready;
  }

  private choose(set: number, current: number): number {
    const candidates = this.usable & set;
    if (candidates === 0) return -1;
    if (current < 0 || ((candidates >> current) & 1) === 0) return lowest(this.preferred(set));
    // While the agent starts, the order in which firewalls come up is not a reason.
    const ready = candidates & ~this.held;
    for (let i = 0; i < current; i++) {
      if (((ready >> i) & 1) === 1 && (this.options.preempt || this.fell[i] === 0)) return i;
    }
    return current;
  }
}

/**
 * The firewall of `set` with the highest draw takes the flow (Thaler and Ravishankar, 1998): the
 * loss of one moves its own flows only. -1 for the empty set.
 */
export function rendezvous(seeds: readonly number[], set: number, hash: number): number {
  let best = -1;
  let bestDraw = -1;
  for (let i = 0; i < seeds.length; i++) {
    if (((set >> i) & 1) === 0) continue;
    const draw = mix(hash, seeds[i]);
    if (draw <= bestDraw) continue;
    best = i;
    bestDraw = draw;
  }
  return best;
}

function lowest(set: number): number {
  return 31 - Math.clz32(set & -set);
}

/** MurmurHash3's finaliser (public domain, Austin Appleby), unsigned. */
function mix(hash: number, seed: number): number {
  let h = hash ^ Math.imul(seed, 0x9e3779b1);
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}
