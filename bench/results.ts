/** bench/results.ndjson: what was measured, one JSON object a line. Run from the root. */
import { existsSync, readFileSync } from 'node:fs';

export const resultsFile = 'bench/results.ndjson';

export type Parameters = Readonly<Record<string, string | number | boolean>>;

export type Result<P = Parameters> = {
  /** The bench, by its file: `classify`. */
  readonly bench: string;
  /** What was measured: `lookups`, `compile`, `memory`. */
  readonly name: string;
  readonly value: number;
  readonly unit: string;
  readonly parameters: P;
};

/** With everything that a figure means nothing without. */
export type RecordedResult<P> = Result<P> & {
  readonly commit: string;
  readonly node: string;
  readonly kernel: string;
  readonly cpu: string;
  readonly date: string;
};

/** The whole file; '' when it does not exist. */
export function readResults(): string {
  return existsSync(resultsFile) ? readFileSync(resultsFile, 'utf8') : '';
}

/** What `results`, the text of the file, has of a bench, the oldest first. Pure. */
export function resultsOf<P>(results: string, bench: string): RecordedResult<P>[] {
  return results
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as RecordedResult<P>)
    .filter((result) => result.bench === bench);
}
