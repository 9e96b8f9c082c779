/**
 * Round trips of a numbered UDP stream while the agent replaces ten thousand rules again and again,
 * and before. Of the hair-pin on a real wire alone: what waits there is the data path.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { parse, stringify } from 'yaml';
import type { Agent } from '../../lab/agent.ts';
import type { Namespace } from '../../lab/namespace.ts';
import { pause, start, until } from '../../lab/program.ts';
import type { StreamReport } from '../load/numbered-stream.ts';
import type { Measurement } from '../measure.ts';
import { median } from '../statistics.ts';

const streamFile = fileURLToPath(new URL('../load/numbered-stream.js', import.meta.url));
const port = 7000;
const ruleCount = 10_000;
const perSecond = 1000;
const everyMs = 500;
const quietMs = 5000;
const startLimitMs = 5000;
const reloadLimitMs = 30_000;

export const reload: Measurement = {
  name: 'reload',
  alone: true,
  run: async ({ address, agent, client, peer, server, wire }, { quick }) => {
    if (agent === undefined || peer.route !== 'hair-pin' || wire !== 'mtu') return {};
    const stream = await Stream.open(client, server, address);
    try {
      const quiet = await stream.during(() => pause(quick ? 300 : quietMs));
      const times: number[] = [];
      const busy = await stream.during(async () => {
        times.push(...(await reloadAgain(agent, quick ? 1 : 8)));
      });
      return {
        'reload-p99-before': quiet.p99,
        'reload-p99': busy.p99,
        'reload-lost': busy.lost,
        'reload-time': median(times),
      };
    } finally {
      await stream.close();
    }
  },
};

/** Ten thousand rules about others, changed each time. @returns how long each reload took, in ms */
export async function reloadAgain(agent: Agent, times: number): Promise<number[]> {
  const before = parse(readFileSync(agent.configPath, 'utf8')) as object;
  const texts = [0, 1].map((version) => stringify({ ...before, rules: manyRules(version) }));
  const took: number[] = [];
  for (let round = 0; round < times; round++) {
    const begun = performance.now();
    const said = agent.program.output.split('reload, asked by').length;
    writeFileSync(agent.configPath, texts[round % 2]!);
    agent.program.signal('SIGHUP');
    await until(
      'it has reloaded',
      reloadLimitMs,
      () => agent.program.output.split('reload, asked by').length > said,
    );
    took.push(performance.now() - begun);
    await pause(Math.max(0, everyMs - took.at(-1)!));
  }
  return took;
}

function manyRules(version: number): object[] {
  return Array.from({ length: ruleCount }, (_, index) => ({
    name: `r${index}`,
    direction: index % 2 === 0 ? 'egress' : 'ingress',
    protocol: index % 3 === 0 ? 'udp' : 'tcp',
    remote: `172.${16 + (index >> 12)}.${(index >> 4) & 255}.${((index & 15) << 4) + version}`,
    remotePort: 1 + ((index * 7 + version) % 60_000),
    action: index % 5 === 0 ? 'drop' : 'pass',
  }));
}

/** The stream and its echo, which run until it is closed. */
export class Stream {
  private readonly reports: StreamReport[] = [];
  private readonly echo: ReturnType<typeof start>;
  private readonly sender: ReturnType<typeof start>;

  private constructor(client: Namespace, server: Namespace, address: string) {
    this.echo = start(server, process.execPath, [streamFile, 'echo', String(port)]);
    const args = [streamFile, 'send', address, String(port), String(perSecond)];
    this.sender = start(client, process.execPath, args, {
      onLine: (line) => line !== 'ready' && this.reports.push(JSON.parse(line)),
    });
  }

  /** Resolves when both run, and what is slow at the beginning is over. */
  static async open(client: Namespace, server: Namespace, address: string): Promise<Stream> {
    const stream = new Stream(client, server, address);
    await until('the echo listens', startLimitMs, () => stream.echo.output.includes('ready'));
    await stream.during(() => pause(1500));
    return stream;
  }

  /** What became of the datagrams that were sent meanwhile. */
  async during(work: () => Promise<unknown>): Promise<StreamReport> {
    await work();
    const before = this.reports.length;
    this.sender.write('report');
    await until('the stream reports', startLimitMs, () => this.reports.length > before);
    return this.reports.at(-1)!;
  }

  async close(): Promise<void> {
    await Promise.all([this.echo.stop(), this.sender.stop()]);
  }
}
