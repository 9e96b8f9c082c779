/**
 * A million SYNs of distinct 5-tuples against a table of 65,536 flows, from outside and from the
 * workload itself (needs root): memory stays bounded, what is established goes on, and every packet
 * that the kernel handed over is counted, to the last one.
 */
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';
import { residentBytes, startMeter } from '../../bench/meters.ts';
import type { Agent, AgentStatus } from '../../lab/agent.ts';
import { pause, start } from '../../lab/program.ts';
import { addresses } from '../../lab/topology.ts';
import { measureThroughput, startIperfServer } from '../../lab/traffic.ts';
import { type Hairpin, startHairpin } from '../support/hairpin.ts';

const { server, workload } = addresses;
const flood = fileURLToPath(new URL('./syn-flood.js', import.meta.url));
const syns = 1_000_000;
const perSecond = 50_000;
const baselineMs = 4000;
/** Addresses for benchmarks (RFC 2544); the router forgets what is sent to them. */
const strangers = '198.18.0.0';

const resident = (agent: Agent) => Math.round(residentBytes(agent.program.pid) / 2 ** 20);

/** Of the machine, in cores, beyond which half a throughput says nothing about the agent. */
const othersLimit = 0.5;

async function coresOfOthers(): Promise<number> {
  const stop = startMeter(undefined);
  await pause(1000);
  const { machine, seconds } = stop();
  return machine / seconds;
}

type Status = AgentStatus & { tunDropped: number; flows: { evicted: number } };

/** When nothing moves any more. */
async function settled(agent: Agent): Promise<Status> {
  let before = '';
  for (;;) {
    const status = (await agent.status()) as Status;
    const now = JSON.stringify([status.counters, status.tunDropped]);
    if (now === before) return status;
    before = now;
    await pause(500);
  }
}

/** Fates of packets that came from the tunnel, not from the kernel. */
const fromTunnel = /^(reinjected|probe-|tunnel-|flow-unknown|flow-not)/;

/** What the engine says it read from the device, by its fates. */
function readByEngine({ counters }: Status): number {
  return Object.entries(counters)
    .filter(([name]) => !fromTunnel.test(name))
    .reduce((sum, [, { packets }]) => sum + packets, 0);
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[values.length >> 1] ?? 0;
}

/** A line every 50 ms over one connection; answers how many of them came. */
async function startSession({ topology }: Hairpin) {
  const sink = start(topology.server, 'socat', ['-u', 'TCP-LISTEN:9000,reuseaddr', '-']);
  await pause(300);
  const source = start(topology.workload, 'socat', ['-u', '-', `TCP:${server}:9000`]);
  let lines = 0;
  const timer = setInterval(() => source.write(String(++lines)), 50);
  return async () => {
    clearInterval(timer);
    source.child.stdin?.end();
    await source.ended;
    await sink.ended;
    return { sent: lines, received: sink.output.trim().split('\n').length };
  };
}

async function survives(t: Test, from: 'server' | 'workload') {
  const othersBefore = await coresOfOthers();
  const hairpin = await startHairpin(t, {
    firewall: 'vxlan',
    // So that a packet is a packet to everyone who counts, as long as it is not the workload's
    // own TCP: that meets the egress hook before it is cut.
    topology: { offloads: 'none' },
    settings: { limits: { flows: 65_536 } },
  });
  const { topology } = hairpin;
  topology.router.ip('route add blackhole 198.18.0.0/15');
  const agent = await hairpin.startAgent();
  const iperf = await startIperfServer(topology.server);
  t.teardown(() => iperf.stop());
  const finishSession = await startSession(hairpin);
  const rates: { atMs: number; value: number }[] = [];
  const onSecond = (value: number) => rates.push({ atMs: performance.now(), value });
  const seconds = 2 + baselineMs / 1000 + (2 * syns) / perSecond;
  const transfer = measureThroughput(topology.workload, server, {
    seconds,
    onSecond,
    reverse: true,
  });
  await pause(baselineMs);
  const before = resident(agent);
  const from0 = performance.now();
  const args =
    from === 'server'
      ? ['source', strangers, workload, '5201', String(syns), String(perSecond)]
      : ['target', workload, strangers, '80', String(syns), String(perSecond)];
  const attack = start(topology[from], process.execPath, [flood, ...args]);
  t.equal(await attack.ended, 0, attack.errors);
  const until0 = performance.now();
  const after = resident(agent);
  const session = await finishSession();
  await transfer;
  const status = await settled(agent);

  const quiet = median(rates.filter(({ atMs }) => atMs < from0).map(({ value }) => value));
  const under = median(
    rates.filter(({ atMs }) => atMs > from0 + 500 && atMs < until0).map(({ value }) => value),
  );
  t.comment(
    `${Math.round(syns / (until0 - from0))} SYNs/ms; ${Math.round(quiet / 1e6)} Mbit/s before, ` +
      `${Math.round(under / 1e6)} during; resident ${before} MiB before, ${after} after; ` +
      `flows ${status.flows.count}, evicted ${status.flows.evicted}; ` +
      `dropped at the TUN ${status.tunDropped}`,
  );
  t.comment(JSON.stringify(status.counters));
  t.comment(JSON.stringify(status.kernel));
  const others = Math.max(othersBefore, await coresOfOthers());
  if (others < othersLimit) t.ok(under >= quiet / 2, 'the transfer keeps half of its throughput');
  else t.comment(`others use ${others.toFixed(1)} cores: the throughput is not judged`);
  t.ok(after - before < 64, `memory grew by ${after - before} MiB`);
  t.ok(status.flows.count <= 65_536);
  t.same(session.received, session.sent, 'the session lost nothing');
  t.equal(
    status.kernel.redirected!.packets,
    readByEngine(status) + status.tunDropped,
    'every packet is counted',
  );
}

t.test('from outside', (t) => survives(t, 'server'));
t.test('from the workload', (t) => survives(t, 'workload'));
