/** One line of what `doctor` has to say. */

/** Risk: it works, and something may go wrong or past inspection. Broken: it does not work. */
export type Level = 'fine' | 'risk' | 'broken';

export type Finding = {
  /** What was looked at, in a word or two: the same for the same question. */
  readonly check: string;
  readonly level: Level;
  readonly words: string;
  /** What to do; empty for what is fine. */
  readonly advice: string;
};

export function fine(check: string, words: string): Finding {
  return { check, level: 'fine', words, advice: '' };
}

export function risk(check: string, words: string, advice: string): Finding {
  return { check, level: 'risk', words, advice };
}

export function broken(check: string, words: string, advice: string): Finding {
  return { check, level: 'broken', words, advice };
}

/** An error of our own, with the advice that it carries. */
export function brokenBy(check: string, error: unknown): Finding {
  const words = error instanceof Error ? error.message : String(error);
  const advice = (error as { advice?: unknown } | null)?.advice;
  return broken(check, words, typeof advice === 'string' ? advice : '');
}
