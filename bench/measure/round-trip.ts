/** Request and response, one at a time, by sockperf: UDP and TCP, 64 bytes. */
import { start, until } from '../../lab/program.ts';
import { type Measurement, output } from '../measure.ts';
import { parseSockperf } from '../parse.ts';
import type { Path } from '../peer.ts';

const port = 5301;
const size = 64;
const graceMs = 10_000;
const protocols = ['udp', 'tcp'] as const;

export const roundTrip: Measurement = {
  name: 'round-trip',
  run: async (path, effort) => {
    const figures: Record<string, number> = {};
    for (const protocol of protocols) {
      const options = ['-p', String(port), ...(protocol === 'tcp' ? ['--tcp'] : [])];
      const server = start(path.server, 'sockperf', ['server', '-i', '0.0.0.0', ...options]);
      try {
        await listening(path, protocol);
        const check = await path.proof();
        const args = ['ping-pong', '-i', path.address, ...options, '--full-rtt'];
        args.push('-m', String(size), '-t', String(Math.max(1, Math.round(effort.seconds))));
        const limitMs = effort.seconds * 1000 + graceMs;
        const text = await output(path.client, 'sockperf', args, limitMs);
        const { answered, p50, p99 } = parseSockperf(text);
        await check(answered * size);
        figures[`${protocol}-p50`] = p50;
        figures[`${protocol}-p99`] = p99;
      } finally {
        await server.stop('SIGKILL');
      }
    }
    return figures;
  },
};

/** sockperf's own words come late; the kernel knows. */
async function listening(path: Path, protocol: 'udp' | 'tcp'): Promise<void> {
  const wanted = port.toString(16).toUpperCase().padStart(4, '0');
  await until('sockperf listens', graceMs, () =>
    path.server.must('cat', [`/proc/self/net/${protocol}`]).includes(`:${wanted} `),
  );
}
