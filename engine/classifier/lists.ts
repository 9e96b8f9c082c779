/**
 * From the rules that hold for a pair of addresses, in order, to what the plane's cell says: a
 * rule at once, or a trie over the classes of services.
 */
import { Nodes } from './nodes.ts';
import type { Services } from './services.ts';
import { digitBits, lastRule } from './tables.ts';

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
  readonly #serviceStamps: Int32Array;
  #stamp = 0;
  #list = new Int32Array(256);

  constructor(nodes: Nodes, services: Services, bytesMax: number) {
    this.#nodes = nodes;
    this.#services = services;
    this.#seen = new Nodes(bytesMax);
    this.#row = new Int32Array(digitSize << firstShift(services.classCount));
    this.#serviceStamps = new Int32Array(services.members.length);
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
    const { ofRule, members, classCount } = this.#services;
    return members[ofRule[rule]].length === classCount;
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
    const { ofRule, members } = this.#services;
    const row = this.#row.fill(noRuleEntry);
    for (let i = count; i > 0; i--) {
      const rule = this.#list[i];
      const classes = members[ofRule[rule]];
      for (let k = 0; k < classes.length; k++) row[classes[k]] = ~(rule << 1);
    }
    for (let width = row.length; width > 1; width >>>= digitBits) {
      for (let i = 0; i < width; i += digitSize) {
        row[i >>> digitBits] = this.#nodes.internEntry(row, i, digitSize);
      }
    }
    return row[0] < 0 ? row[0] : ~((row[0] << 1) | 1);
  }
}
