/**
 * Rules over pairs of addresses. One end chooses a row, the other a column, and the cell says
 * which rules hold. Rows are found in order of address: from one to the next only the columns of
 * the rules that begin or end there change, so a row is built by copying the path to what changed
 * and shares the rest with the row before (and with any other equal one).
 */
import { classesOf, cut, joined, pieceAfter, pieceOf } from './axis.ts';
import { firstShift, type Lists, noRuleEntry } from './lists.ts';
import type { Nodes } from './nodes.ts';
import type { Range, Rule } from './rules.ts';
import { countOf, text } from './services.ts';
import { digitBits } from './tables.ts';

const digitSize = 1 << digitBits;
/** What an element of a JavaScript array takes. */
const wordsOfNumber = 2;
export const addressLast = 0xffff_ffff;

export type Plane = {
  /** First address of each piece of the rows' axis, and the node of its row (or a final entry). */
  readonly rowStarts: Float64Array;
  readonly rows: Int32Array;
  readonly columnStarts: Float64Array;
  /** The column of each piece of the columns' axis. */
  readonly columns: Int32Array;
  readonly shift: number;
  /** The first rule in it, in their order. */
  readonly first: number;
};

export type PlaneRule = {
  /** Its place in the order. */
  readonly index: number;
  readonly row: readonly Range[];
  readonly column: readonly Range[];
};

export function planeRule(rule: Rule, index: number, rowsAreLocal: boolean): PlaneRule {
  const local = joined(rule.local);
  const remote = joined(rule.remote);
  return rowsAreLocal
    ? { index, row: local, column: remote }
    : { index, row: remote, column: local };
}

export function compilePlane(nodes: Nodes, lists: Lists, rules: readonly PlaneRule[]): Plane {
  const rowStarts = cut(
    rules.map((rule) => rule.row),
    addressLast,
  );
  const columnLists = new Map(rules.map(({ column }) => [text(column), column]));
  const columnStarts = cut(columnLists.values(), addressLast);
  const columns = classesOf(columnStarts, columnLists.values(), (writes) => nodes.spend(writes));
  const count = countOf(columns);
  const row = new Row(nodes, lists, count);
  const columnsOf = columnFinder(nodes, columnStarts, columns, count);
  const begins = events(rowStarts, rules, (range) => pieceOf(rowStarts, range.first));
  const ends = events(rowStarts, rules, (range) => pieceAfter(rowStarts, range.last));
  const rows = new Int32Array(rowStarts.length);
  for (let piece = 0; piece < rows.length; piece++) {
    for (const rule of ends[piece] ?? []) row.remove(rule.index, columnsOf(rule.column));
    for (const rule of begins[piece] ?? []) row.add(rule.index, columnsOf(rule.column));
    rows[piece] = row.finish();
  }
  const first = rules.reduce((least, rule) => Math.min(least, rule.index), Infinity);
  return { rowStarts, rows, columnStarts, columns, shift: firstShift(count), first };
}

/** The rules by the piece at which each of their ranges begins, or after which it ends. */
function events(
  starts: Float64Array,
  rules: readonly PlaneRule[],
  pieceFor: (range: Range) => number,
): PlaneRule[][] {
  const found: PlaneRule[][] = [];
  const whole = [{ first: 0, last: addressLast }];
  for (const rule of rules) {
    for (const range of rule.row.length === 0 ? whole : rule.row) {
      const piece = pieceFor(range);
      if (piece >= starts.length) continue;
      found[piece] ??= [];
      found[piece].push(rule);
    }
  }
  return found;
}

function columnFinder(nodes: Nodes, starts: Float64Array, columns: Int32Array, count: number) {
  const known = new Map<string, Int32Array>();
  return (ranges: readonly Range[]): Int32Array => {
    const key = text(ranges);
    let found = known.get(key);
    if (found !== undefined) return found;
    const numbers = new Set<number>();
    for (const range of ranges) {
      const end = pieceAfter(starts, range.last);
      for (let i = pieceOf(starts, range.first); i < end; i++) numbers.add(columns[i]);
    }
    found =
      ranges.length === 0
        ? Int32Array.from({ length: count }, (_, index) => index)
        : Int32Array.from(numbers);
    nodes.hold(found.length);
    known.set(key, found);
    return found;
  };
}

/** The row that the sweep stands at, level by level of its trie. */
class Row {
  readonly #nodes: Nodes;
  readonly #lists: Lists;
  /** By column: the rules that hold there, in order. */
  readonly #active: number[][];
  /** Entries of each level, from the cells up to the root alone; padded to whole nodes. */
  readonly #levels: Int32Array[] = [];
  readonly #stamps: Int32Array[] = [];
  #stamp = 0;
  #changed: number[] = [];

  constructor(nodes: Nodes, lists: Lists, columnCount: number) {
    this.#nodes = nodes;
    this.#lists = lists;
    this.#active = Array.from({ length: columnCount }, () => []);
    for (let width = columnCount, level = 0; ; level++) {
      const padded = Math.ceil(width / digitSize) * digitSize;
      this.#levels.push(new Int32Array(padded).fill(noRuleEntry));
      this.#stamps.push(new Int32Array(padded));
      if (level > 0 && width === 1) break;
      width = padded / digitSize;
    }
  }

  add(rule: number, columns: Int32Array): void {
    this.#nodes.spend(columns.length);
    this.#nodes.hold(columns.length * wordsOfNumber);
    for (const column of columns) {
      const rules = this.#active[column];
      rules.splice(placeOf(rules, rule), 0, rule);
      this.#touch(0, column, this.#changed);
    }
  }

  remove(rule: number, columns: Int32Array): void {
    this.#nodes.hold(-columns.length * wordsOfNumber);
    for (const column of columns) {
      const rules = this.#active[column];
      rules.splice(placeOf(rules, rule), 1);
      this.#touch(0, column, this.#changed);
    }
  }

  /** @returns the root of the row as it now stands */
  finish(): number {
    let changed = this.#changed;
    const [cells] = this.#levels;
    for (const column of changed) cells[column] = this.#lists.entryOf(this.#active[column]);
    for (let level = 1; level < this.#levels.length; level++) {
      const parents: number[] = [];
      for (const place of changed) this.#touch(level, place >>> digitBits, parents);
      for (const parent of parents) {
        this.#levels[level][parent] = this.#nodes.internEntry(
          this.#levels[level - 1],
          parent << digitBits,
          digitSize,
        );
      }
      changed = parents;
    }
    this.#changed = [];
    this.#stamp++;
    return this.#levels[this.#levels.length - 1][0];
  }

  #touch(level: number, place: number, places: number[]): void {
    const stamps = this.#stamps[level];
    if (stamps[place] === this.#stamp + 1) return;
    stamps[place] = this.#stamp + 1;
    places.push(place);
  }
}

/** Where `rule` stands in the ascending list, or would. */
function placeOf(rules: readonly number[], rule: number): number {
  let low = 0;
  let high = rules.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (rules[middle] < rule) low = middle + 1;
    else high = middle;
  }
  return low;
}
