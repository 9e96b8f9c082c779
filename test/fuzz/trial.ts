/** What every fuzzer is, and the case that it is given. */
import type { Random } from './random.ts';
import type { Sample } from './samples.ts';

/** One case: its chance, and what has been fed so far, to be saved when it fails. */
export type Trial = {
  readonly random: Random;
  /** In the order in which they were fed. */
  readonly inputs: Sample[];
  /** What was fed beside `inputs`. */
  checked: number;
};

export type Fuzzer = {
  readonly name: string;
  /** What must hold, in a sentence. */
  readonly promise: string;
  /** Cases of a smoke run: a fraction of a second. */
  readonly smoke: number;
  /** It must fail within so many cases: something is broken on purpose. */
  readonly canary?: boolean;
  /** A function that runs one case and throws when the promise is broken. */
  create(): (trial: Trial) => void;
};

/** A promise is broken. Anything else that is thrown breaks one too. */
export class Broken extends Error {}

export function must(condition: boolean, message: () => string): asserts condition {
  if (!condition) throw new Broken(message());
}
