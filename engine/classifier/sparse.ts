/**
 * A trie over small numbers, of which most lead to the same entry: only nodes that hold something
 * else are written, so its cost is that of what differs, not of how many numbers there are.
 */
import type { Nodes } from './nodes.ts';
import { digitBits } from './tables.ts';

const digitSize = 1 << digitBits;

type Level = {
  /** Entries, node by node; of nodes without the present stamp nothing is valid. */
  readonly entries: Int32Array;
  readonly stamps: Int32Array;
  /** Nodes written, in order of their first write. */
  readonly written: Int32Array;
  count: number;
};

export class SparseTrie {
  readonly #nodes: Nodes;
  readonly #levels: readonly Level[];
  #stamp = 0;
  #otherwise = 0;

  /** @param count the numbers go from 0 to `count - 1` */
  constructor(nodes: Nodes, count: number) {
    const levels: Level[] = [];
    for (let width = count; ; ) {
      const size = Math.ceil(width / digitSize);
      levels.push({
        entries: new Int32Array(size * digitSize),
        stamps: new Int32Array(size),
        written: new Int32Array(size),
        count: 0,
      });
      if (size === 1) break;
      width = size;
    }
    this.#nodes = nodes;
    this.#levels = levels;
  }

  /** @param otherwise the final entry of all numbers that are not set */
  begin(otherwise: number): void {
    this.#stamp++;
    this.#otherwise = otherwise;
    for (const level of this.#levels) level.count = 0;
  }

  set(number: number, entry: number): void {
    this.#set(this.#levels[0], number, entry);
  }

  /** @returns the entry that leads to what was set */
  finish(): number {
    let found = this.#otherwise;
    this.#levels.forEach((level, depth) => {
      const above = this.#levels[depth + 1];
      for (let i = 0; i < level.count; i++) {
        const node = level.written[i];
        found = this.#nodes.internEntry(level.entries, node << digitBits, digitSize);
        if (above !== undefined) this.#set(above, node, found);
      }
    });
    return found;
  }

  #set(level: Level, number: number, entry: number): void {
    const node = number >>> digitBits;
    const { entries, stamps } = level;
    if (stamps[node] !== this.#stamp) {
      stamps[node] = this.#stamp;
      level.written[level.count++] = node;
      const start = node << digitBits;
      for (let i = start; i < start + digitSize; i++) entries[i] = this.#otherwise;
    }
    entries[number] = entry;
  }
}
