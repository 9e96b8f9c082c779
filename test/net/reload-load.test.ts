/**
 * Ten thousand rules replaced again and again under load (needs root): no packet of a numbered UDP
 * stream is lost by the agent, none is out of order, and a TCP transfer goes on.
 */
import t from 'tap';
import { reloadAgain, Stream } from '../../bench/measure/reload.ts';
import type { Agent, AgentStatus } from '../../lab/agent.ts';
import { pause, run } from '../../lab/program.ts';
import { addresses } from '../../lab/topology.ts';
import { startIperfServer } from '../../lab/traffic.ts';
import { shell, startHairpin } from '../support/hairpin.ts';

const { server } = addresses;
const quietMs = 5000;
const reloads = 12;

/** By name, with what waited in the device's queue in vain. */
function dropped({ counters, tunDropped }: AgentStatus & { tunDropped: number }): object {
  const all = Object.entries(counters) as unknown as [string, { kind: string; packets: number }][];
  const found = all.filter(([, { kind }]) => kind === 'dropped');
  const byName = Object.fromEntries(found.map(([name, { packets }]) => [name, packets]));
  return tunDropped === 0 ? byName : { ...byName, tunDropped };
}

async function statusOf(agent: Agent): Promise<AgentStatus & { tunDropped: number }> {
  await pause(300);
  return (await agent.status()) as AgentStatus & { tunDropped: number };
}

t.test('10,000 rules every half second under load', async (t) => {
  const hairpin = await startHairpin(t, { top: { default: 'redirect' } });
  const { topology } = hairpin;
  const agent = await hairpin.startAgent();
  const iperf = await startIperfServer(topology.server);
  const stream = await Stream.open(topology.workload, topology.server, server);
  t.teardown(() => Promise.all([iperf.stop(), stream.close()]));

  const transfer = run(topology.workload, 'iperf3', ['-c', server, '-b', '100M', '-t', '30', '-J']);
  const quiet = await stream.during(() => pause(quietMs));
  const took: number[] = [];
  const busy = await stream.during(async () => {
    took.push(...(await reloadAgain(agent, reloads)));
  });
  const { end } = JSON.parse((await transfer).output);
  const status = await statusOf(agent);
  const udpErrors = await shell(topology.workload, 'nstat -asz UdpRcvbufErrors | tail -1');

  t.comment(`reloads took ${took.map(Math.round).join(', ')} ms`);
  t.comment(`quiet ${JSON.stringify(quiet)}`);
  t.comment(`busy  ${JSON.stringify(busy)}; p99 ratio ${(busy.p99 / quiet.p99).toFixed(1)}`);
  t.comment(`TCP: ${end.sum_sent.retransmits} segments sent again, ${udpErrors}`);
  t.match(agent.program.output, /"changed":/);
  t.same(dropped(status), {}, 'the agent dropped nothing');
  t.equal(quiet.lost + busy.lost, 0, 'no datagram is lost');
  t.equal(quiet.reordered + busy.reordered, 0, 'none is out of order');
  t.ok(end.sum_received.bits_per_second > 90e6, 'the transfer went on');
});
