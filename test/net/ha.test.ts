/**
 * The active firewall is lost, and another takes its place (needs root):
 *
 *     workload - router - transit -+- firewall   10.9.0.4  fw-a
 *                  |               +- firewall-b 10.9.0.5  fw-b
 *               server
 */
import t, { type Test } from 'tap';
import { activeOf, firewallsOf, Pinging, reachFirewalls } from '../../lab/ha-stage.ts';
import { pause } from '../../lab/program.ts';
import { addresses } from '../../lab/topology.ts';
import { startHa } from '../support/ha.ts';
import { shell } from '../support/hairpin.ts';

const { server } = addresses;

/** Kill or freeze fw-a under a ping; how long it was out. */
async function lose(
  t: Test,
  signal: 'SIGKILL' | 'SIGSTOP',
  interval: string,
  limitMs: number,
): Promise<void> {
  const { agent, lab } = await startHa(t, { ha: { probe: { interval } } });
  t.same(activeOf(await firewallsOf(agent)), ['fw-a']);
  const pinging = new Pinging(lab.topology.workload);
  t.teardown(() => pinging.stop());
  await pause(1500);
  const lostMs = Date.now();
  lab.firewalls[0]!.program.signal(signal);
  const outMs = await pinging.recovery(lostMs, 10_000);
  t.comment(`${signal}, probe every ${interval}: ${outMs} ms to the first packet by fw-b`);
  t.ok(outMs <= limitMs, `${outMs} ms of at most ${limitMs}`);
  const all = await reachFirewalls(agent, 'fw-b is active', (all) => all[1]!.active, 2000);
  t.match(all[0], { usable: false, probe: { state: 'lost' } });
  t.equal(all[1]!.traffic.flowsTaken, 1, 'the ping moved');
  await pinging.stop();
  await nothingUncounted(t, agent, all[0]!.name);
}

/** What went to each firewall came back, but for what the lost one swallowed. */
async function nothingUncounted(t: Test, agent: Parameters<typeof firewallsOf>[0], lost: string) {
  await pause(300);
  const status = (await agent.status())!;
  const all = await firewallsOf(agent);
  const [redirected, reinjected] = ['redirected', 'reinjected'].map(
    (name) => status.counters[name]?.packets ?? 0,
  );
  const sum = (of: (one: (typeof all)[number]) => number) =>
    all.reduce((total, one) => total + of(one), 0);
  t.equal(
    sum(({ traffic }) => traffic.sent.packets),
    redirected,
    'sent: each once',
  );
  t.equal(
    sum(({ traffic }) => traffic.returned.packets),
    reinjected,
    'returned: each once',
  );
  for (const { name, traffic } of all) {
    const swallowed = traffic.sent.packets - traffic.returned.packets;
    if (name === lost) t.ok(swallowed > 0, `${name} swallowed ${swallowed}`);
    else t.equal(swallowed, 0, `${name} swallowed nothing`);
  }
}

t.test('killed: within 3.5 s', (t) => lose(t, 'SIGKILL', '1s', 3500));
t.test('killed, probed every 100 ms: within 0.5 s', (t) => lose(t, 'SIGKILL', '100ms', 500));
t.test('frozen: within 3.5 s', (t) => lose(t, 'SIGSTOP', '1s', 3500));

t.test('it comes back, and is preferred again after the hold-down', async (t) => {
  const { agent, lab } = await startHa(t, {
    ha: { preempt: true, holdDown: '2s', probe: { interval: '100ms' } },
  });
  lab.firewalls[0]!.program.signal('SIGSTOP');
  await reachFirewalls(agent, 'fw-b is active', (all) => all[1]!.active, 3000);
  const pinging = new Pinging(lab.topology.workload);
  t.teardown(() => pinging.stop());
  await pause(500);
  lab.firewalls[0]!.program.signal('SIGCONT');
  const backMs = Date.now();
  await reachFirewalls(agent, 'fw-a is usable', (all) => all[0]!.usable, 5000);
  t.same(activeOf(await firewallsOf(agent)), ['fw-b'], 'held down');
  await reachFirewalls(agent, 'fw-a is active', (all) => all[0]!.active, 5000);
  const tookMs = Date.now() - backMs;
  t.ok(tookMs >= 2000, `after ${tookMs} ms`);
  await pause(500);
  await pinging.stop();
  t.ok(pinging.longestGap(backMs) < 300, `going back cost ${pinging.longestGap(backMs)} ms`);
});

t.test('a firewall that was restarted knows no sessions: sessionSync: false', async (t) => {
  const { agent, lab } = await startHa(t, {
    ha: { sessionSync: false, probe: { interval: '100ms' } },
  });
  const { server: serverHost, workload } = lab.topology;
  const sink = shell(serverHost, 'socat -u TCP-LISTEN:9000,reuseaddr - | wc -l');
  await pause(300);
  const source = shell(
    workload,
    `for i in $(seq 40); do echo $i; sleep 0.1; done | socat -u - TCP:${server}:9000`,
  );
  await pause(1000);
  lab.firewalls[0]!.program.signal('SIGKILL');
  await source;
  t.equal(await sink, '40', 'the connection goes on, past inspection, as established says');
  const { counters } = (await agent.status())!;
  t.ok((counters['passed-established']?.packets ?? 0) > 0);
  t.match(await shell(workload, `ping -n -c 2 -i 0.2 -W 1 ${server}`), '2 received');
  const [, b] = await firewallsOf(agent);
  t.ok(b!.traffic.returned.packets >= 4, 'what is new goes by the other');
});
