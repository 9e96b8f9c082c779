/**
 * From the rules that hold for a pair of addresses, in order, to what the plane's cell says: a
 * rule at once, or a trie over classes of local ports, or one over classes of the other services.
 */
import { Partition } from './axis.ts';
import { Nodes } from './nodes.ts';
import type { Services } from './services.ts';
import { SparseTrie } from './sparse.ts';
import { type CompileLimits, digitBits, lastRule } from './tables.ts';

const digitSize = 1 << digitBits;

export const noRuleEntry = ~(lastRule << 1);
/** A class of local ports that is in no rule's list. */
const noClass = -1;

/** @returns the shift of the first digit for numbers below `count` */
export function firstShift(count: number): number {
  let shift = 0;
  while ((count - 1) >>> shift >= digitSize) shift += digitBits;
  return shift;
}

export class Lists {
  readonly #nodes: Nodes;
  readonly #services: Services;
  /** Every list that has been seen, and what came of it. */
  readonly #seen: Nodes;
  readonly #entries = new Map<number, number>();
  readonly #service: SparseTrie;
  readonly #local: SparseTrie;
  /** By class of local ports; all 0 between two lists. */
  readonly #groups: Int32Array;
  readonly #serviceStamps: Int32Array;
  readonly #localStamps: Int32Array;
  #stamp = 0;
  #list = new Int32Array(256);

  constructor(nodes: Nodes, services: Services, limits: CompileLimits) {
    this.#nodes = nodes;
    this.#services = services;
    this.#seen = new Nodes(limits);
    this.#service = new SparseTrie(nodes, services.remoteCount);
    this.#local = new SparseTrie(nodes, services.localCount);
    this.#groups = new Int32Array(services.localCount);
    this.#serviceStamps = new Int32Array(services.remotes.length);
    this.#localStamps = new Int32Array(services.localCount);
  }

  /** @param rules in order; not kept */
  entryOf(rules: readonly number[]): number {
    const count = this.#prune(rules);
    if (count === 0) return noRuleEntry;
    const first = this.#list[1];
    if (count === 1 && this.#isAny(first)) return ~(first << 1);
    this.#list[0] = count;
    const before = this.#seen.length;
    const offset = this.#seen.intern(this.#list, 0, count + 1);
    const known = this.#seen.length === before ? this.#entries.get(offset) : undefined;
    if (known !== undefined) return known;
    this.#nodes.hold(this.#seen.length - before);
    const entry = this.#build(count);
    this.#entries.set(offset, entry);
    return entry;
  }

  #isAny(rule: number): boolean {
    const { ofRule, remotes, remoteCount } = this.#services;
    return remotes[ofRule[rule]].length === remoteCount;
  }

  /** Leaves out rules behind one with the same service, and all behind one with any service. */
  #prune(rules: readonly number[]): number {
    const { ofRule } = this.#services;
    if (rules.length + 1 > this.#list.length) this.#list = new Int32Array(rules.length * 2);
    const stamp = ++this.#stamp;
    let count = 0;
    for (const rule of rules) {
      const service = ofRule[rule];
      if (this.#serviceStamps[service] === stamp) continue;
      this.#serviceStamps[service] = stamp;
      this.#list[++count] = rule;
      if (this.#isAny(rule)) break;
    }
    return count;
  }

  #build(count: number): number {
    const { ofRule, locals, localCount } = this.#services;
    const groups = this.#groups;
    const partition = new Partition(groups);
    const spoken: number[] = [];
    for (let i = 1; i <= count; i++) {
      const classes = locals[ofRule[this.#list[i]]];
      if (classes === undefined) continue;
      this.#nodes.spend(classes.length);
      partition.begin();
      for (const number of classes) {
        if (this.#localStamps[number] !== this.#stamp) spoken.push(number);
        this.#localStamps[number] = this.#stamp;
        partition.put(number);
      }
    }
    const others = spoken.length < localCount ? this.#buildGroup(count, noClass) : noRuleEntry;
    if (spoken.length === 0) return others;
    const entries = new Map<number, number>();
    this.#local.begin(others);
    for (const number of spoken) {
      const group = groups[number];
      const entry = entries.get(group) ?? this.#buildGroup(count, number);
      entries.set(group, entry);
      this.#local.set(number, entry);
    }
    groups.fill(0);
    const entry = this.#local.finish();
    return entry < 0 ? entry : ~((entry << 2) | 3);
  }

  /** The rules of the list that hold for a class of local ports, or for ports none speaks of. */
  #buildGroup(count: number, localClass: number): number {
    const { ofRule, locals, remotes } = this.#services;
    this.#service.begin(noRuleEntry);
    for (let i = count; i > 0; i--) {
      const rule = this.#list[i];
      const service = ofRule[rule];
      if (locals[service]?.includes(localClass) === false) continue;
      const classes = remotes[service];
      this.#nodes.spend(classes.length);
      for (let k = 0; k < classes.length; k++) this.#service.set(classes[k], ~(rule << 1));
    }
    const entry = this.#service.finish();
    return entry < 0 ? entry : ~((entry << 2) | 1);
  }
}
