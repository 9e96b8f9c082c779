/** The highest rate of UDP datagrams at which fewer than one in a thousand is lost. */
import type { Effort, Measurement } from '../measure.ts';
import type { Path } from '../peer.ts';
import { highestPassing } from '../statistics.ts';
import { Datagrams } from './datagrams.ts';

const port = 5300;
const lossLimit = 0.001;
/** A generator that sends less than this share of what it was asked for is the limit itself. */
const offeredShare = 0.97;
/** By figure: payload in bytes, and how many the sender lets cross the stack as one. */
const kinds = {
  'udp-64': { size: 64, joined: 1 },
  'udp-64-joined': { size: 64, joined: 32 },
  'udp-1400': { size: 1400, joined: 1 },
} as const;
const firstGuess = 100_000;
const lowest = 2_000;
const highest = 4_000_000;

export const packetRate: Measurement = {
  name: 'packet-rate',
  run: async (path, effort, hints) => {
    const datagrams = await Datagrams.open(path, port);
    try {
      const figures: Record<string, number> = {};
      for (const [name, kind] of Object.entries(kinds)) {
        const hint = hints[name] === undefined ? firstGuess : hints[name] * 1000;
        figures[name] = (await search(path, datagrams, effort, kind, hint)) / 1000;
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
  kind: { readonly size: number; readonly joined: number },
  guess: number,
): Promise<number> {
  const check = await path.proof();
  let best = 0;
  let bytes = 0;
  const { precision } = effort;
  await highestPassing({ start: guess, lowest, highest, precision }, async (rate) => {
    // Twice: a machine that does something else for a moment is not the path's limit.
    for (let attempt = 0; attempt < (effort.quick ? 1 : 2); attempt++) {
      const trial = await datagrams.trial(kind.size, rate, effort.seconds / 2, kind.joined);
      bytes += trial.taken * kind.size;
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
