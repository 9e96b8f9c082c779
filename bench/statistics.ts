/** The arithmetic of the bench. Pure. */

/** Of at least one value. */
export function median(values: readonly number[]): number {
  if (values.length === 0) throw new RangeError('the median of nothing');
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

/** Half the distance between the lowest and the highest value, as a share of the median. */
export function spread(values: readonly number[]): number {
  const middle = median(values);
  if (middle === 0) return 0;
  return (Math.max(...values) - Math.min(...values)) / 2 / Math.abs(middle);
}

/** What repeats of one measurement come to. */
export type Figure = {
  readonly median: number;
  /** Half the range, as a share of the median. */
  readonly spread: number;
  readonly repeats: number;
};

/** Of at least one value. */
export function summarize(values: readonly number[]): Figure {
  return { median: median(values), spread: spread(values), repeats: values.length };
}

export type Search = {
  /** Tried first; a figure of an earlier repeat, or a guess. */
  readonly start: number;
  readonly lowest: number;
  readonly highest: number;
  /** Stop when what passed and what failed are within this factor of each other, such as 1.05. */
  readonly precision: number;
};

/**
 * The highest value that passes, by trial: from `start` up or down by doubling until both sides are
 * known, then by halving the ratio between them. 0 when not even the lowest passes.
 */
export async function highestPassing(
  search: Search,
  passes: (value: number) => Promise<boolean>,
): Promise<number> {
  const { lowest, highest, precision } = search;
  let value = Math.min(Math.max(search.start, lowest), highest);
  let passed = 0;
  let failed = Number.POSITIVE_INFINITY;
  for (;;) {
    if (await passes(value)) passed = value;
    else failed = value;
    if (failed <= lowest) return 0;
    if (passed >= highest || failed / passed <= precision) return passed;
    if (failed === Number.POSITIVE_INFINITY) value = Math.min(passed * 2, highest);
    else if (passed === 0) value = Math.max(failed / 2, lowest);
    else value = Math.sqrt(passed * failed);
  }
}
