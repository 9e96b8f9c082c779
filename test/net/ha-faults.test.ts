/**
 * A firewall that is lost in part, or comes and goes (needs root). The topology is that of
 * test/net/ha.test.ts.
 */
import t from 'tap';
import { activeOf, firewallsOf, Pinging, reachFirewalls } from '../../lab/ha-stage.ts';
import { pause, start } from '../../lab/program.ts';
import { startHa } from '../support/ha.ts';
import { shell } from '../support/hairpin.ts';

const fast = { probe: { interval: '100ms' } } as const;
const isActive = (name: string) => (all: Awaited<ReturnType<typeof firewallsOf>>) =>
  activeOf(all).join() === name;

for (const [what, match] of [
  ['to the firewall', 'ip daddr 10.9.0.4 udp dport 6081'],
  ['from the firewall', 'ip saddr 10.9.0.4 udp dport 6081'],
] as const) {
  t.test(`the tunnel is cut ${what}, telemetry is not`, async (t) => {
    const { agent, lab } = await startHa(t, { ha: fast });
    const pinging = new Pinging(lab.topology.workload);
    t.teardown(() => pinging.stop());
    await pause(1000);
    lab.cut(match);
    const cutMs = Date.now();
    const outMs = await pinging.recovery(cutMs, 5000);
    t.comment(`cut ${what}: ${outMs} ms`);
    t.ok(outMs <= 500, `${outMs} ms`);
    const all = await reachFirewalls(agent, 'fw-b is active', isActive('fw-b'), 1000);
    t.match(all[0]!.why, /does not return the probe/);
    lab.heal();
    await reachFirewalls(agent, 'fw-a is usable again', ([a]) => a!.usable, 3000);
    t.same(activeOf(await firewallsOf(agent)), ['fw-b'], 'without preemption it stays');
  });
}

t.test('it answers the tunnel and not telemetry', async (t) => {
  const { agent, lab } = await startHa(t, {
    ha: fast,
    telemetry: { interval: '500ms', timeout: '300ms', retries: 2 },
  });
  const pinging = new Pinging(lab.topology.workload);
  t.teardown(() => pinging.stop());
  await pause(500);
  await lab.firewalls[0]!.command('telemetry refuse');
  const refusedMs = Date.now();
  const all = await reachFirewalls(agent, 'fw-b is active', isActive('fw-b'), 3000);
  t.ok(Date.now() - refusedMs <= 1100 + 500, 'within interval + timeout x retries');
  t.match(all[0], { usable: false, probe: { state: 'answered' } });
  t.match(all[0]!.why, /telemetry endpoint/);
  await pause(500);
  const gap = pinging.longestGap(refusedMs);
  t.ok(gap < 200, `no packet was lost: the longest silence was ${gap} ms`);
});

t.test('probed by HTTP: the appliance that says it is not well is left', async (t) => {
  const probe = { kind: 'http', port: 8080, path: '/health', interval: '100ms' };
  const { agent, lab } = await startHa(t, {
    ha: { probe },
    before: (lab) => lab.hosts.map((host) => start(host, process.execPath, ['-e', healthServer])),
  });
  const all = await firewallsOf(agent);
  t.same(activeOf(all), ['fw-a']);
  t.match(all[0], { probe: { kind: 'http', state: 'answered' } });
  const pinging = new Pinging(lab.topology.workload);
  t.teardown(() => pinging.stop());
  await pause(300);
  await shell(lab.hosts[0]!, 'curl -s http://10.9.0.4:8080/ail');
  const sickMs = Date.now();
  const now = await reachFirewalls(agent, 'fw-b is active', isActive('fw-b'), 2000);
  t.ok(Date.now() - sickMs < 800, `after ${Date.now() - sickMs} ms`);
  t.match(now[0]!.why, /does not answer the http probe on port 8080/);
  const { counters } = (await agent.status())!;
  t.equal(counters['probe-answered'], undefined, 'nothing by the tunnel');
  await pause(300);
  t.ok(pinging.longestGap(sickMs) < 200, 'and no packet was lost');
});

/** Well until it is asked for /ail. */
const healthServer = `
  let status = 200;
  require('node:http').createServer((request, response) => {
    if (request.url === '/ail') status = 503;
    response.writeHead(status).end();
  }).listen(8080);`;

t.test('30 % of packets lost: nothing flaps', async (t) => {
  const { agent, lab } = await startHa(t, { ha: fast });
  await lab.firewalls[0]!.command('tunnel seed 11');
  await lab.firewalls[0]!.command('tunnel loss 30');
  // Idle first: probes alone; then with traffic, which is lost as well.
  await pause(6000);
  const pinging = new Pinging(lab.topology.workload);
  t.teardown(() => pinging.stop());
  await pause(6000);
  await pinging.stop();
  const all = await firewallsOf(agent);
  t.same(activeOf(all), ['fw-a']);
  t.equal(all[0]!.changes, 1, 'it became usable once, and stayed so');
  const { answered, sent } = all[0]!.probe;
  t.ok(answered < 0.9 * sent && answered > 0.4 * sent, `${answered} of ${sent} probes answered`);
});

t.test('one that comes and goes is left alone for the hold-down', async (t) => {
  const { agent, lab } = await startHa(t, { ha: { ...fast, preempt: true, holdDown: '3s' } });
  const pinging = new Pinging(lab.topology.workload);
  t.teardown(() => pinging.stop());
  let switches = 0;
  let last = 'fw-a';
  for (let round = 0; round < 5; round++) {
    lab.firewalls[0]!.program.signal(round % 2 === 0 ? 'SIGSTOP' : 'SIGCONT');
    for (let i = 0; i < 12; i++) {
      await pause(100);
      const now = activeOf(await firewallsOf(agent)).join();
      if (now !== last) switches++;
      last = now;
    }
  }
  t.equal(switches, 1, 'traffic moved once');
  t.equal(last, 'fw-b');
});
