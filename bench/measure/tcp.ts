/** Bulk TCP by iperf3, one flow and four, both directions, and what it cost. */
import { startIperfServer } from '../../lab/traffic.ts';
import { type Effort, type Figures, type Measurement, output } from '../measure.ts';
import { startMeter } from '../meters.ts';
import { parseIperf } from '../parse.ts';
import type { Path } from '../peer.ts';

const gigabyte = 1e9;
const giga = 1e9;
const quickBytes = '4M';
const graceMs = 10_000;

export const tcp: Measurement = {
  name: 'tcp',
  run: async (path, effort) => {
    const server = await startIperfServer(path.server);
    try {
      const out = await transfer(path, effort, 1, false);
      const back = await transfer(path, effort, 1, true);
      const figures: Record<string, number> = {
        'tcp-1-out': out.rate,
        'tcp-1-in': back.rate,
        'tcp-4-out': (await transfer(path, effort, 4, false)).rate,
        'tcp-4-in': (await transfer(path, effort, 4, true)).rate,
        'cpu-gb-machine': (out.machine + back.machine) / 2,
      };
      if (path.pid !== undefined) figures['cpu-gb-program'] = (out.program + back.program) / 2;
      return figures satisfies Figures;
    } finally {
      await server.stop('SIGKILL');
    }
  },
};

/** Gbit/s of payload, processor seconds a gigabyte. */
async function transfer(path: Path, effort: Effort, flows: number, towardsUs: boolean) {
  const check = await path.proof();
  const args = ['-c', path.address, '-J', '-P', String(flows)];
  // Whole seconds only. A fixed amount instead would make slow paths slow to measure.
  if (effort.quick) args.push('-n', quickBytes);
  else args.push('-t', String(Math.max(1, Math.round(effort.seconds))));
  if (towardsUs) args.push('-R');
  const stop = startMeter(path.pid);
  const text = await output(path.client, 'iperf3', args, effort.seconds * 1000 + graceMs);
  const cost = stop();
  const { bytes, bitsPerSecond } = parseIperf(text);
  await check(bytes);
  return {
    rate: bitsPerSecond / giga,
    machine: cost.machine / (bytes / gigabyte),
    program: cost.program / (bytes / gigabyte),
  };
}
