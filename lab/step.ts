/** One step of a story: what was expected and what was seen, and whether it held. */

export type Check = { readonly expected: string; readonly seen: string; readonly holds: boolean };

export type StepResult = {
  readonly name: string;
  readonly title: string;
  readonly verdict: 'held' | 'failed' | 'skipped';
  readonly checks: readonly Check[];
  readonly durationMs: number;
};

/** Who shows a story while it is played. */
export type StepListener = {
  readonly onStep: (title: string) => void;
  readonly onResult: (result: StepResult) => void;
};

/** The one check of a step whose play threw. */
const playable = 'the step can be played';

/** Whether the step came to its end. */
export function wasPlayed({ checks }: StepResult): boolean {
  return checks.every(({ expected }) => expected !== playable);
}

/** Times a step; what it throws is a check that failed. Held when all of its checks did. */
export async function playStep(
  { name, title }: { readonly name: string; readonly title: string },
  listener: StepListener,
  play: () => Promise<readonly Check[]>,
): Promise<StepResult> {
  listener.onStep(title);
  const begun = performance.now();
  const checks = await play().catch((error: Error) => [
    { expected: playable, seen: error.message, holds: false },
  ]);
  const verdict = checks.every(({ holds }) => holds) ? 'held' : 'failed';
  const durationMs = Math.round(performance.now() - begun);
  const result: StepResult = { name, title, verdict, checks, durationMs };
  listener.onResult(result);
  return result;
}
