/**
 * One field of the rules, cut wherever a range begins or ends, and the pieces that no rule tells
 * apart joined to classes. What is a range on the axis is a set of classes afterwards.
 */
import type { Range, Rule } from './rules.ts';

/** Whether a packet can match: a list of ranges that all end before they begin holds nothing. */
export function isPossible(rule: Rule): boolean {
  return [rule.local, rule.remote, rule.localPort, rule.remotePort].every(
    (ranges) => ranges.length === 0 || ranges.some(({ first, last }) => first <= last),
  );
}

/** Of a possible rule: sorted, and joined where they touch or overlap. Empty (any) stays empty. */
export function joined(ranges: readonly Range[]): readonly Range[] {
  if (ranges.length === 0) return ranges;
  const sorted = ranges.filter(({ first, last }) => first <= last);
  if (sorted.length < 2) return sorted;
  sorted.sort((a, b) => a.first - b.first);
  const result: Range[] = [];
  let { first, last } = sorted[0];
  for (const range of sorted) {
    if (range.first > last + 1) {
      result.push({ first, last });
      ({ first, last } = range);
    } else if (range.last > last) last = range.last;
  }
  result.push({ first, last });
  return result;
}

/**
 * @param lists each `joined`; empty ones (any) cut nothing
 * @param last the greatest value of the field
 * @returns the first value of each piece, ascending, from 0
 */
export function cut(lists: Iterable<readonly Range[]>, last: number): Float64Array {
  const cuts: number[] = [0];
  for (const ranges of lists) {
    for (const range of ranges) {
      cuts.push(range.first);
      if (range.last < last) cuts.push(range.last + 1);
    }
  }
  const starts = Float64Array.from(cuts).sort();
  let count = 1;
  for (let i = 1; i < starts.length; i++) {
    if (starts[i] !== starts[i - 1]) starts[count++] = starts[i];
  }
  return starts.slice(0, count);
}

/**
 * @param spend told of the work done, so that it can refuse more
 * @returns the class of each piece, numbered from 0 in the order of first appearance
 */
export function classesOf(
  starts: Float64Array,
  lists: Iterable<readonly Range[]>,
  spend: (writes: number) => void,
): Int32Array {
  const classes = new Int32Array(starts.length);
  const partition = new Partition(classes);
  for (const ranges of lists) {
    partition.begin();
    for (const range of ranges) {
      const begin = pieceOf(starts, range.first);
      const end = pieceAfter(starts, range.last);
      for (let i = begin; i < end; i++) partition.put(i);
      spend(end - begin);
    }
  }
  renumber(classes);
  return classes;
}

/** @returns the piece that begins at or before `value` */
export function pieceOf(starts: Float64Array, value: number): number {
  let low = 0;
  let high = starts.length;
  while (high - low > 1) {
    const middle = (low + high) >>> 1;
    if (starts[middle] <= value) low = middle;
    else high = middle;
  }
  return low;
}

/** @returns the first piece that begins after `value`, which is the last of its piece */
export function pieceAfter(starts: Float64Array, value: number): number {
  return pieceOf(starts, value) + 1;
}

/**
 * Splits cells into classes, set by set: the cells of a class that are put into a set leave it
 * together. Exact, and as long as the sets are.
 */
export class Partition {
  readonly #classes: Int32Array;
  /** By class: the set that last split it, and the class that its members went to. */
  readonly #splitBy: number[] = [0];
  readonly #splitTo: number[] = [0];
  /** Classes made by the current set: whoever is in one has been put. */
  #firstNew = 1;
  #set = 0;

  constructor(classes: Int32Array) {
    this.#classes = classes;
  }

  begin(): void {
    // Numbers of classes that have lost all their members pile up.
    if (this.#splitBy.length > 4 * this.#classes.length + 64) {
      const count = renumber(this.#classes);
      this.#splitBy.length = 0;
      for (let i = 0; i < count; i++) this.#splitBy.push(0);
      this.#splitTo.length = count;
    }
    this.#set++;
    this.#firstNew = this.#splitBy.length;
  }

  put(cell: number): void {
    const old = this.#classes[cell];
    if (old >= this.#firstNew) return;
    if (this.#splitBy[old] !== this.#set) {
      this.#splitBy[old] = this.#set;
      this.#splitTo[old] = this.#splitBy.length;
      this.#splitBy.push(0);
      this.#splitTo.push(0);
    }
    this.#classes[cell] = this.#splitTo[old];
  }
}

/** Numbers the classes by first appearance. @returns how many there are */
export function renumber(classes: Int32Array): number {
  const numbers = new Map<number, number>();
  for (let i = 0; i < classes.length; i++) {
    let number = numbers.get(classes[i]);
    if (number === undefined) {
      number = numbers.size;
      numbers.set(classes[i], number);
    }
    classes[i] = number;
  }
  return numbers.size;
}
