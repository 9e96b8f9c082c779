/**
 * Words under construction. Equal nodes are stored once: that is what keeps a trie over five
 * fields small, because most of its sub-tries are the same.
 */
import { type CompileLimits, RulesTooLargeError } from './tables.ts';

const initialWords = 1 << 16;
/** An entry holds an offset and two bits. */
const offsetMax = 2 ** 28;
const workPerLook = 1 << 20;
/** What the compiler may keep in all, of what the tables may take. */
const heldShare = 1.5;
/** More than is done in the time that the default limits allow. */
const cellsMax = 2 ** 28;
const advice =
  'use fewer rules, or wider prefixes and port ranges, or such as do not overlap each other';

export class Nodes {
  words = new Int32Array(initialWords);
  length = 0;
  readonly #wordsMax: number;
  readonly #deadline: number;
  #workLeft: number;
  #sinceLook = 0;
  #held = 0;
  /** Open addressing: offset + 1 of a node, 0 for empty. */
  #index = new Int32Array(1 << 14);
  #hashes = new Int32Array(1 << 14);
  #count = 0;

  /** @param workMax cells that may be written until it takes too long, whatever the clock says */
  constructor(limits: CompileLimits, workMax = Infinity) {
    this.#workLeft = workMax;
    this.#wordsMax = Math.min(Math.floor(limits.bytes / 4), offsetMax);
    this.#deadline = performance.now() + limits.ms;
  }

  /** Counts cells written, and looks at the clock now and then. */
  spend(cells: number): void {
    this.#sinceLook += cells + 1;
    if (this.#sinceLook < workPerLook) return;
    this.#workLeft -= this.#sinceLook;
    this.#sinceLook = 0;
    if (this.#workLeft < 0 || performance.now() > this.#deadline) throw this.#tooSlow();
  }

  /** Refuses at once what would be refused after a long time: `cells` are to be written. */
  expect(cells: number): void {
    if (cells > cellsMax || cells > this.#workLeft) throw this.#tooSlow();
  }

  /** Counts words that the compiler keeps beside the nodes; negative: let go. */
  hold(words: number): void {
    this.#held += words;
    const heldMax = this.#wordsMax * heldShare;
    if (this.#held + this.length > heldMax) throw this.#tooLarge('compiling the rules', heldMax);
  }

  /** @returns where `count` new words begin, filled with 0 */
  allocate(count: number): number {
    const offset = this.length;
    const needed = offset + count;
    if (needed > this.#wordsMax) throw this.#tooLarge('the compiled rules', this.#wordsMax);
    if (needed > this.words.length) {
      const grown = new Int32Array(Math.min(this.#wordsMax, Math.max(needed, offset * 2)));
      grown.set(this.words.subarray(0, offset));
      this.words = grown;
    }
    this.length = needed;
    return offset;
  }

  /** @returns the offset of a node with these words: an old one if there is one */
  intern(source: Int32Array, start: number, count: number): number {
    let hash = count;
    this.spend(count);
    for (let i = 0; i < count; i++) {
      hash = Math.imul(hash ^ source[start + i], 0x9e3779b1);
      hash ^= hash >>> 15;
    }
    const mask = this.#index.length - 1;
    let slot = hash & mask;
    for (; this.#index[slot] !== 0; slot = (slot + 1) & mask) {
      if (this.#hashes[slot] === hash && this.#equals(this.#index[slot] - 1, source, start, count))
        return this.#index[slot] - 1;
    }
    const offset = this.allocate(count);
    const { words } = this;
    for (let i = 0; i < count; i++) words[offset + i] = source[start + i];
    this.#index[slot] = offset + 1;
    this.#hashes[slot] = hash;
    if (++this.#count * 2 > mask) this.#rehash();
    return offset;
  }

  /** The same, but a node whose entries are all the same final one is that entry. */
  internEntry(source: Int32Array, start: number, count: number): number {
    const first = source[start];
    if (first < 0) {
      let same = 1;
      while (same < count && source[start + same] === first) same++;
      if (same === count) return first;
    }
    return this.intern(source, start, count);
  }

  #tooSlow(): RulesTooLargeError {
    const problem = 'the rules take too long to compile';
    return new RulesTooLargeError('RULES_TOO_SLOW', `${problem}; ${advice}`);
  }

  #tooLarge(what: string, words: number): RulesTooLargeError {
    const problem = `${what} would need more than ${(words / (1 << 18)).toFixed(1)} MiB`;
    return new RulesTooLargeError('RULES_TOO_LARGE', `${problem}; ${advice}`);
  }

  /** A longer node that begins with the same words serves as well. */
  #equals(offset: number, source: Int32Array, start: number, count: number): boolean {
    if (offset + count > this.length) return false;
    const { words } = this;
    for (let i = 0; i < count; i++) if (words[offset + i] !== source[start + i]) return false;
    return true;
  }

  #rehash(): void {
    const [index, hashes] = [this.#index, this.#hashes];
    const mask = index.length * 2 - 1;
    this.hold(2 * index.length);
    this.#index = new Int32Array(mask + 1);
    this.#hashes = new Int32Array(mask + 1);
    for (let i = 0; i < index.length; i++) {
      if (index[i] === 0) continue;
      let slot = hashes[i] & mask;
      while (this.#index[slot] !== 0) slot = (slot + 1) & mask;
      this.#index[slot] = index[i];
      this.#hashes[slot] = hashes[i];
    }
  }
}
