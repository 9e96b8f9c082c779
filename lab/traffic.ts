/** Traffic between the hosts: web requests both ways, pings, bulk TCP by iperf3. */
import { fileURLToPath } from 'node:url';
import type { Namespace } from './namespace.ts';
import { type Program, run, start, until } from './program.ts';

const webFile = fileURLToPath(new URL('./web.js', import.meta.url));
const startLimitMs = 5000;

/** A web server; it listens when this returns. */
export async function startWebServer(
  host: Namespace,
  name: string,
  address: string,
  ports: readonly number[],
): Promise<Program> {
  const program = start(host, process.execPath, [
    webFile,
    'serve',
    name,
    address,
    ...ports.map(String),
  ]);
  await until(`the web server on ${name}`, startLimitMs, () => {
    if (program.exitCode !== undefined) throw new Error(`web server: ${program.errors.trim()}`);
    return program.output.split('listening').length > ports.length;
  });
  return program;
}

/** Answered within the limit, with 200; or why not, in curl's words. */
export type WebResult = { readonly ok: boolean; readonly ms: number; readonly words: string };

/** One request on a connection of its own. `hostHeader`: the name asked for. */
export async function requestWeb(
  host: Namespace,
  url: string,
  options: { hostHeader?: string; limitMs?: number } = {},
): Promise<WebResult> {
  const limit = String((options.limitMs ?? 3000) / 1000);
  const args = ['-sS', '-m', limit, '-o', '/dev/null', '-w', '%{http_code} %{time_total}'];
  if (options.hostHeader !== undefined) args.push('-H', `Host: ${options.hostHeader}`);
  const { code, output, errors } = await run(host, 'curl', [...args, url]);
  const [status = '', seconds = '0'] = output.trim().split(' ');
  const ok = code === 0 && status === '200';
  const words = ok
    ? 'answered'
    : errors.trim().replace(/^curl: \(\d+\) /, '') || `status ${status}`;
  return { ok, ms: Math.round(Number(seconds) * 1000), words };
}

/** How many of `count` pings were answered. */
export async function ping(host: Namespace, target: string, count: number): Promise<number> {
  const { output } = await run(host, 'ping', [
    '-n',
    '-c',
    String(count),
    '-i',
    '0.1',
    '-W',
    '1',
    target,
  ]);
  return Number(/(\d+) received/.exec(output)?.[1] ?? 0);
}

export type Pulse = { number: number; sentAt: number; ms: number; ok: boolean };

/** Requests that go on all the time, so that whatever happens happens under traffic. */
export class Pulses {
  readonly all: Pulse[] = [];
  private readonly program: Program;

  constructor(host: Namespace, url: string, everyMs: number) {
    this.program = start(host, process.execPath, [webFile, 'pulse', url, String(everyMs)], {
      onLine: (line) => this.all.push(JSON.parse(line) as Pulse),
    });
  }

  /** Those sent from `from` on (ms since 1970) that have ended, in the order of sending. */
  since(from: number): Pulse[] {
    return this.all.filter((pulse) => pulse.sentAt >= from).sort((a, b) => a.sentAt - b.sentAt);
  }

  async stop(): Promise<void> {
    await this.program.stop();
  }
}

/** iperf3 waiting for connections; it listens when this returns. */
export async function startIperfServer(host: Namespace): Promise<Program> {
  const program = start(host, 'iperf3', ['-s', '--forceflush']);
  await until('iperf3 -s', startLimitMs, () => {
    if (program.exitCode !== undefined) throw new Error(`iperf3: ${program.errors.trim()}`);
    return program.output.includes('listening');
  });
  return program;
}

/** Bits per second that arrived over one TCP connection; `reverse`: from the server to us. */
export async function measureThroughput(
  host: Namespace,
  target: string,
  options: { seconds: number; reverse?: boolean; onSecond?: (bitsPerSecond: number) => void },
): Promise<number> {
  const args = [
    '-c',
    target,
    '-t',
    String(options.seconds),
    '-i',
    '0.5',
    '-f',
    'm',
    '--forceflush',
  ];
  if (options.reverse === true) args.push('-R');
  let received = 0;
  const take = (line: string) => {
    const megabits = Number(/([\d.]+) Mbits\/sec/.exec(line)?.[1]);
    if (Number.isNaN(megabits)) return;
    if (line.trimEnd().endsWith('receiver')) received = megabits * 1e6;
    else if (!line.trimEnd().endsWith('sender')) options.onSecond?.(megabits * 1e6);
  };
  const program = start(host, 'iperf3', args, { onLine: take });
  const code = await program.ended;
  if (code !== 0) throw new Error(`iperf3: ${program.errors.trim() || `exit ${code}`}`);
  return received;
}
