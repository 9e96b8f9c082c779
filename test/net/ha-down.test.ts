/**
 * No firewall is left, one starts again, or another takes over the address (needs root). The
 * topology is that of test/net/ha.test.ts.
 */
import t from 'tap';
import { segmentAddresses } from '../../lab/firewall-segment.ts';
import { firewallsOf, HaStage, Pinging, reachFirewalls } from '../../lab/ha-stage.ts';
import { pause } from '../../lab/program.ts';
import { addresses } from '../../lab/topology.ts';
import { startHa } from '../support/ha.ts';
import { shell } from '../support/hairpin.ts';

const { server } = addresses;
const fast = { probe: { interval: '100ms' } } as const;

for (const onFirewallDown of ['pass', 'drop'] as const) {
  t.test(`both down with onFirewallDown: ${onFirewallDown}, then both back`, async (t) => {
    const { agent, lab } = await startHa(t, { ha: fast, policy: { onFirewallDown } });
    const { workload } = lab.topology;
    for (const { program } of lab.firewalls) program.signal('SIGSTOP');
    const downMs = Date.now();
    const status = await agent.reach('closed', 3000);
    t.comment(`closed after ${Date.now() - downMs} ms`);
    t.equal(status.gate.cause, 'firewall-down');
    t.match(status.cause, /fw-a: .*probe.*fw-b: .*probe/);
    await pause(200);
    const seen = await shell(workload, `ping -n -c 3 -i 0.2 -W 1 ${server}; true`);
    t.match(seen, onFirewallDown === 'pass' ? '3 received' : '0 received');
    for (const { program } of lab.firewalls) program.signal('SIGCONT');
    await agent.reach('redirecting', 3000);
    t.match(await shell(workload, `ping -n -c 3 -i 0.2 -W 1 ${server}`), '3 received');
    const { counters, kernel } = (await agent.status())!;
    const dropped = kernel.droppedMode?.packets ?? 0;
    if (onFirewallDown === 'drop') t.ok(dropped >= 3, 'counted');
    else t.ok((kernel.passedMode?.packets ?? 0) >= 6, 'counted');
    t.ok(counters['probe-answered']!.packets > 0);
  });
}

t.test('a firewall that starts again with nothing remembered takes new flows', async (t) => {
  const { agent, lab } = await startHa(t, { ha: fast });
  lab.firewalls[0]!.program.signal('SIGKILL');
  await lab.firewalls[0]!.program.ended;
  await reachFirewalls(agent, 'fw-a is lost', ([a]) => !a!.usable, 3000);
  await lab.startFirewall(0);
  await reachFirewalls(agent, 'fw-a is back', ([a]) => a!.usable, 15_000);
  lab.firewalls[1]!.program.signal('SIGKILL');
  await reachFirewalls(agent, 'fw-a is active', ([a]) => a!.active, 3000);
  const { workload } = lab.topology;
  t.match(await shell(workload, `ping -n -c 3 -i 0.2 -W 1 ${server}`), '3 received');
});

t.test('a floating address: another host takes it over, with a new MAC', async (t) => {
  const { agent, lab } = await startHa(t, { ha: { probe: { interval: '1s' } }, known: 1 });
  const [a, b] = lab.hosts;
  await lab.firewalls[1]!.stop();
  const settings = ['net.ipv4.ip_nonlocal_bind=1', 'net.ipv4.conf.eth0.arp_notify=1'];
  b!.must('sysctl', ['-qw', ...settings]);
  await lab.startFirewall(1, '10.9.0.4');
  const pinging = new Pinging(lab.topology.workload);
  t.teardown(() => pinging.stop());
  await pause(1000);
  const killedMs = Date.now();
  lab.firewalls[0]!.program.signal('SIGKILL');
  a!.ip('addr del 10.9.0.4/24 dev eth0');
  await pause(500);
  b!.ip('addr add 10.9.0.4/24 dev eth0');
  // Announces it: gratuitous ARP by arp_notify.
  b!.ip('link set eth0 address 02:00:00:00:99:01');
  const outMs = await pinging.recovery(killedMs, 10_000);
  t.comment(`taken over after 500 ms, first packet after ${outMs} ms`);
  t.ok(outMs >= 500 && outMs < 1500, `${outMs} ms`);
  await pause(4000);
  const [only] = await firewallsOf(agent);
  t.match(only, { usable: true, changes: 1 }, 'for the agent nothing was lost');
  const { gate } = (await agent.status())!;
  t.equal(gate.open, true);
});

t.test('one without a route at the start is used when there is one', async (t) => {
  const lab = new HaStage(2);
  t.teardown(() => lab.close());
  await Promise.all(lab.hosts.map((_, i) => lab.startFirewall(i)));
  const { workload } = lab.topology;
  workload.ip(`route add unreachable ${segmentAddresses[1]}/32`);
  const agent = lab.startAgent({ ha: fast });
  t.teardown(() => agent.program.stop());
  await agent.reach('redirecting', 15_000);
  t.match((await agent.status())!.drift.join(), /no route to the firewall/);
  t.match(await shell(workload, `ping -n -c 3 -i 0.2 -W 1 ${server}`), '3 received');
  workload.ip(`route del unreachable ${segmentAddresses[1]}/32`);
  await reachFirewalls(agent, 'fw-b is usable', ([, b]) => b!.usable, 20_000);
  t.match(await shell(workload, `ping -n -c 3 -i 0.2 -W 1 ${server}`), '3 received');
  lab.firewalls[0]!.program.signal('SIGKILL');
  await reachFirewalls(agent, 'fw-b is active', ([, b]) => b!.active, 3000);
  t.match(await shell(workload, `ping -n -c 3 -i 0.2 -W 1 ${server}`), '3 received');
});
