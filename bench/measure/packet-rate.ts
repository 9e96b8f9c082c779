/** The highest rate of UDP datagrams at which fewer than one in a thousand is lost. */
import type { Effort, Measurement } from '../measure.ts';
import type { Path } from '../peer.ts';
import { highestPassing } from '../statistics.ts';
import { Datagrams } from './datagrams.ts';

const lossLimit = 0.001;
/** A generator that sends less than this share of what it was asked for is the limit itself. */
const offeredShare = 0.97;
const sizes = [64, 1400] as const;
const firstGuess = 100_000;
const lowest = 2_000;
const highest = 2_000_000;

export const packetRate: Measurement = {
  name: 'packet-rate',
  run: async (path, effort, hints) => {
    const datagrams = await Datagrams.open(path);
    try {
      const figures: Record<string, number> = {};
      for (const size of sizes) {
        const name = `udp-${size}`;
        // Above what was found before: it may be met from below in one step less.
        const hint = hints[name] === undefined ? firstGuess : hints[name] * 1000;
        figures[name] = (await search(path, datagrams, effort, size, hint)) / 1000;
      }
      return figures;
    } finally {
      await datagrams.close();
    }
  },
};

/** Datagrams a second that arrived in the best trial. */
async function search(
  path: Path,
  datagrams: Datagrams,
  effort: Effort,
  size: number,
  guess: number,
): Promise<number> {
  const check = await path.proof();
  let best = 0;
  let bytes = 0;
  const { precision } = effort;
  await highestPassing({ start: guess, lowest, highest, precision }, async (rate) => {
    // Twice: a machine that does something else for a moment is not the path's limit.
    for (let attempt = 0; attempt < 2; attempt++) {
      const trial = await datagrams.trial(size, rate, effort.seconds / 2);
      bytes += trial.taken * size;
      if (trial.loss < lossLimit) {
        best = Math.max(best, trial.arrived);
        return trial.offered >= rate * offeredShare;
      }
    }
    return false;
  });
  await check(bytes);
  return best;
}
