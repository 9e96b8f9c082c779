/**
 * What 80,000 datagrams of 64 bytes a second cost: the steadiest figure on a shared machine. Memory
 * is looked at here too, after all kinds of traffic.
 */
import type { Measurement } from '../measure.ts';
import { residentBytes } from '../meters.ts';
import { Datagrams } from './datagrams.ts';

const port = 5303;
const rate = 80_000;
const size = 64;
const million = 1e6;
const mebibyte = 2 ** 20;

export const fixedRate: Measurement = {
  name: 'fixed-rate',
  run: async (path, effort) => {
    const datagrams = await Datagrams.open(path, port);
    try {
      const check = await path.proof();
      const trial = await datagrams.trial(size, rate, effort.seconds);
      await check(trial.taken * size);
      const { machine, program, seconds } = trial.cost;
      const packets = trial.taken / million;
      const figures: Record<string, number> = {
        'cores-80k': machine / seconds,
        'cpu-mp-machine': machine / packets,
        'loss-80k': trial.loss * 100,
      };
      if (path.pid === undefined) return figures;
      figures['cores-80k-program'] = program / seconds;
      figures['cpu-mp-program'] = program / packets;
      figures.memory = residentBytes(path.pid) / mebibyte;
      return figures;
    } finally {
      await datagrams.close();
    }
  },
};
