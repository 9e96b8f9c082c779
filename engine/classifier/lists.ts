/**
 * From the rules that hold for a pair of addresses, in order, to what the plane's cell says: a
 * rule at once, or a trie over classes of local ports, or one over classes of the other services.
 */
import { Partition, renumber } from './axis.ts';
import { Nodes } from './nodes.ts';
import type { Services } from './services.ts';
import { type CompileLimits, digitBits, lastRule } from './tables.ts';

const digitSize = 1 << digitBits;

export const noRuleEntry = ~(lastRule << 1);

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
  readonly #row: Int32Array;
  readonly #localRow: Int32Array;
  readonly #serviceStamps: Int32Array;
  #stamp = 0;
  #list = new Int32Array(256);

  constructor(nodes: Nodes, services: Services, limits: CompileLimits) {
    this.#nodes = nodes;
    this.#services = services;
    this.#seen = new Nodes(limits);
    this.#row = new Int32Array(digitSize << firstShift(services.remoteCount));
    this.#localRow = new Int32Array(digitSize << firstShift(services.localCount));
    this.#serviceStamps = new Int32Array(services.remotes.length);
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
    const groups = new Int32Array(localCount);
    const partition = new Partition(groups);
    for (let i = 1; i <= count; i++) {
      const classes = locals[ofRule[this.#list[i]]];
      if (classes === undefined) continue;
      this.#nodes.spend(classes.length);
      partition.begin();
      for (const number of classes) partition.put(number);
    }
    const groupCount = renumber(groups);
    if (groupCount === 1) return this.#buildGroup(count, 0);
    const entries = new Map<number, number>();
    const row = this.#localRow.fill(noRuleEntry);
    for (let number = 0; number < localCount; number++) {
      const group = groups[number];
      const entry = entries.get(group) ?? this.#buildGroup(count, number);
      entries.set(group, entry);
      row[number] = entry;
    }
    const entry = this.#trie(row);
    return entry < 0 ? entry : ~((entry << 2) | 3);
  }

  /** The rules of the list that hold for a class of local ports. */
  #buildGroup(count: number, localClass: number): number {
    const { ofRule, locals, remotes } = this.#services;
    const row = this.#row.fill(noRuleEntry);
    this.#nodes.spend(row.length);
    for (let i = count; i > 0; i--) {
      const rule = this.#list[i];
      const service = ofRule[rule];
      if (locals[service]?.includes(localClass) === false) continue;
      const classes = remotes[service];
      this.#nodes.spend(classes.length);
      for (let k = 0; k < classes.length; k++) row[classes[k]] = ~(rule << 1);
    }
    const entry = this.#trie(row);
    return entry < 0 ? entry : ~((entry << 2) | 1);
  }

  /** @returns the entry that leads to what `row` holds, level by level; `row` is used up */
  #trie(row: Int32Array): number {
    for (let width = row.length; width > 1; width >>>= digitBits) {
      for (let i = 0; i < width; i += digitSize) {
        row[i >>> digitBits] = this.#nodes.internEntry(row, i, digitSize);
      }
    }
    return row[0];
  }
}
