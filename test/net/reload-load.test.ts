/**
 * Ten thousand rules replaced again and again under load (needs root): no packet of a numbered UDP
 * stream is lost by the agent, none is out of order, and a TCP transfer goes on.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { parse, stringify } from 'yaml';
import type { Agent, AgentStatus } from '../../lab/agent.ts';
import { pause, run, start, until } from '../../lab/program.ts';
import { addresses } from '../../lab/topology.ts';
import { startIperfServer } from '../../lab/traffic.ts';
import { shell, startHairpin } from '../support/hairpin.ts';
import type { StreamReport } from './udp-stream.ts';

const { server } = addresses;
const program = fileURLToPath(new URL('./udp-stream.js', import.meta.url));
const ruleCount = 10_000;
const perSecond = 1000;
const quietMs = 5000;
const reloads = 12;
const everyMs = 500;

/** A file of 10,000 rules about others, and those of the two ends; `version` differs in each. */
function policy(base: object, version: number): string {
  const rules = Array.from({ length: ruleCount }, (_, index) => ({
    name: `r${index}`,
    direction: index % 2 === 0 ? 'egress' : 'ingress',
    protocol: index % 3 === 0 ? 'udp' : 'tcp',
    remote: `172.${16 + (index >> 12)}.${(index >> 4) & 255}.${((index & 15) << 4) + version}`,
    remotePort: 1 + ((index * 7 + version) % 60_000),
    action: index % 5 === 0 ? 'drop' : 'pass',
  }));
  return stringify({ ...base, rules, default: 'redirect' });
}

function dropped({ counters, tunDropped }: AgentStatus & { tunDropped: number }): number {
  const all = Object.values(counters) as unknown as { kind: string; packets: number }[];
  const sum = all.filter(({ kind }) => kind === 'dropped').reduce((n, one) => n + one.packets, 0);
  return sum + tunDropped;
}

async function statusOf(agent: Agent): Promise<AgentStatus & { tunDropped: number }> {
  await pause(300);
  return (await agent.status()) as AgentStatus & { tunDropped: number };
}

t.test('10,000 rules every half second under load', async (t) => {
  const hairpin = await startHairpin(t, { top: { default: 'redirect' } });
  const { topology } = hairpin;
  const agent = await hairpin.startAgent();
  const base = parse(readFileSync(agent.configPath, 'utf8'));
  const texts = [0, 1].map((version) => policy(base, version));

  const iperf = await startIperfServer(topology.server);
  const echo = start(topology.server, process.execPath, [program, 'echo', '7000']);
  await until('the echo listens', 5000, () => echo.output.includes('ready'));
  const reports: StreamReport[] = [];
  const stream = start(
    topology.workload,
    process.execPath,
    [program, 'send', server, '7000', String(perSecond)],
    { onLine: (line) => line !== 'ready' && reports.push(JSON.parse(line)) },
  );
  t.teardown(() => Promise.all([iperf.stop(), echo.stop(), stream.stop()]));
  const ask = async (line: string) => {
    const before = reports.length;
    stream.write(line);
    await until('the stream reports', 5000, () => reports.length > before);
    return reports.at(-1)!;
  };

  const transfer = run(topology.workload, 'iperf3', ['-c', server, '-b', '100M', '-t', '30', '-J']);
  await pause(1500);
  await ask('warm');
  await pause(quietMs);
  const quiet = await ask('quiet');
  const took: number[] = [];
  for (let round = 0; round < reloads; round++) {
    const begun = performance.now();
    writeFileSync(agent.configPath, texts[round % 2]!);
    const said = agent.program.output.split('reloaded, asked by').length;
    agent.program.signal('SIGHUP');
    await until(
      'it has reloaded',
      20_000,
      () => agent.program.output.split('reloaded, asked by').length > said,
    );
    took.push(performance.now() - begun);
    await pause(Math.max(0, everyMs - took.at(-1)!));
  }
  const busy = await ask('');
  const { end } = JSON.parse((await transfer).output);
  const status = await statusOf(agent);
  const udpErrors = await shell(topology.workload, 'nstat -asz UdpRcvbufErrors | tail -1');

  const ratio = (busy.p99 / quiet.p99).toFixed(1);
  const longestReload = Math.round(Math.max(...took));
  t.comment(`reloads took ${took.map(Math.round).join(', ')} ms`);
  t.comment(`quiet ${JSON.stringify(quiet)}`);
  t.comment(`busy  ${JSON.stringify(busy)}; p99 ratio ${ratio}; slowest ${longestReload} ms`);
  t.comment(`TCP: ${end.sum_sent.retransmits} segments sent again, ${udpErrors}`);
  t.match(agent.program.output, /"changed":/);
  t.equal(dropped(status), 0, 'the agent dropped nothing');
  t.equal(quiet.lost + busy.lost, 0, 'no datagram is lost');
  t.equal(quiet.reordered + busy.reordered, 0, 'none is out of order');
  t.ok(end.sum_received.bits_per_second > 90e6, 'the transfer went on');
});
