/** Request and response, one at a time, by sockperf: UDP and TCP, 64 bytes. */
import { start, until } from '../../lab/program.ts';
import { type Effort, type Figures, type Measurement, output } from '../measure.ts';
import { parseSockperf } from '../parse.ts';
import type { Path } from '../peer.ts';

const port = 5301;
const size = 64;
const graceMs = 10_000;
const protocols = ['udp', 'tcp'] as const;
type Protocol = (typeof protocols)[number];

export const roundTrip: Measurement = {
  name: 'round-trip',
  // sockperf sends the next message when the last one was answered, and waits for ever.
  alone: true,
  run: async (path, effort) => {
    const ways = protocols.map((protocol) => () => exchange(path, effort, protocol));
    if (!effort.quick) return { ...(await ways[0]!()), ...(await ways[1]!()) };
    const [udp, tcp] = await Promise.all(ways.map((way) => way()));
    return { ...udp, ...tcp };
  },
};

async function exchange(path: Path, effort: Effort, protocol: Protocol): Promise<Figures> {
  const options = ['-p', String(port), ...(protocol === 'tcp' ? ['--tcp'] : [])];
  const server = start(path.server, 'sockperf', ['server', '-i', '0.0.0.0', ...options]);
  try {
    await listening(path, protocol);
    const check = await path.proof();
    const args = ['ping-pong', '-i', path.address, ...options, '--full-rtt', '-m', String(size)];
    args.push('-t', String(Math.max(1, Math.round(effort.seconds))));
    const text = await output(path.client, 'sockperf', args, effort.seconds * 1000 + graceMs);
    const { answered, p50, p99 } = parseSockperf(text);
    await check(answered * size);
    return { [`${protocol}-p50`]: p50, [`${protocol}-p99`]: p99 };
  } finally {
    await server.stop('SIGKILL');
  }
}

/** sockperf's own words come late; the kernel knows. */
async function listening(path: Path, protocol: Protocol): Promise<void> {
  const args = ['-Hln', protocol === 'tcp' ? '-t' : '-u', `sport = :${port}`];
  await until('sockperf listens', graceMs, () => path.server.must('ss', args) !== '');
}
