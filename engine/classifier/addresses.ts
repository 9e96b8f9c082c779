/**
 * From an address to what each plane needs of it, its row or its column, in one record: so that
 * the rules of all planes cost a single walk for each end.
 */
import type { Nodes } from './nodes.ts';
import { addressLast } from './plane.ts';
import { addressShifts, recordWords } from './tables.ts';

/** What one plane says about addresses: a value for each piece. */
export type Column = { readonly starts: Float64Array; readonly values: Int32Array };

export class AddressTrie {
  readonly #nodes: Nodes;
  readonly #starts: Float64Array;
  readonly #records: Int32Array;

  /** Writes the records of this end; `root` then writes the trie. */
  constructor(nodes: Nodes, columns: readonly (Column | undefined)[]) {
    this.#nodes = nodes;
    const starts = Float64Array.from(columns.flatMap((column) => [...(column?.starts ?? [0])]));
    starts.sort();
    let count = 1;
    for (let i = 1; i < starts.length; i++) {
      if (starts[i] !== starts[i - 1]) starts[count++] = starts[i];
    }
    this.#starts = starts.slice(0, count);
    this.#records = new Int32Array(count);
    const record = new Int32Array(recordWords);
    const places = columns.map(() => 0);
    for (let piece = 0; piece < count; piece++) {
      columns.forEach((column, plane) => {
        if (column === undefined) return;
        while (column.starts[places[plane] + 1] <= this.#starts[piece]) places[plane]++;
        record[plane] = column.values[places[plane]];
      });
      this.#records[piece] = nodes.intern(record, 0, recordWords);
    }
  }

  root(): number {
    const size = 2 ** (32 - addressShifts[0]);
    const entries = new Int32Array(size);
    this.#fill(entries, 0, 0, 0);
    return this.#nodes.intern(entries, 0, size);
  }

  /** @returns the piece at the end of what the node covers */
  #fill(entries: Int32Array, level: number, base: number, piece: number): number {
    const step = 2 ** addressShifts[level];
    const starts = this.#starts;
    for (let i = 0; i < entries.length; i++) {
      const end = base + (i + 1) * step;
      if ((starts[piece + 1] ?? addressLast + 1) >= end) {
        entries[i] = ~this.#records[piece];
      } else {
        const below = new Int32Array(2 ** (addressShifts[level] - addressShifts[level + 1]));
        piece = this.#fill(below, level + 1, base + i * step, piece);
        entries[i] = this.#nodes.internEntry(below, 0, below.length);
      }
      if (starts[piece + 1] === end) piece++;
    }
    return piece;
  }
}
