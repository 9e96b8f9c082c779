/** Which of established flows goes when the table is full of them. */
import type { RandomWords } from './flow-hash.ts';
import { FlowState } from './flow-progress.ts';
import { ticksPerSecond } from './flow-timeouts.ts';
import type { Flows } from './flows.ts';

/** How many records are looked at. */
const sampleSize = 64;

/**
 * Of a random sample the longest-idle half-closed flow, else the longest-idle one; -1 when none was
 * silent for a second.
 */
export function idlestOfSample(flows: Flows, random: RandomWords, nowTick: number): number {
  const { capacity, carried } = flows;
  const { lastSeen, state, used } = flows.columns;
  let victim = -1;
  let victimScore: number = ticksPerSecond;
  for (let step = 0; step < sampleSize; step++) {
    const flow = (random.next() >>> 0) % capacity;
    if (used[flow] === 0) continue;
    carried.collect(flow, nowTick);
    const idle = nowTick - lastSeen[flow];
    const preferred = idle > ticksPerSecond && state[flow] === FlowState.HalfClosed;
    const score = preferred ? idle + 1_000_000_000 : idle;
    if (score > victimScore) {
      victim = flow;
      victimScore = score;
    }
  }
  return victim;
}
