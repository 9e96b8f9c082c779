/** The host changes around a running agent (needs root). */
import t, { type Test } from 'tap';
import { type Agent, agentCommand } from '../../lab/agent.ts';
import { compareHostStates, readHostState } from '../../lab/host-state.ts';
import { join } from '../../lab/namespace.ts';
import { pause, start as startProgram, until } from '../../lab/program.ts';
import { addresses } from '../../lab/topology.ts';
import { hasTcx } from '../../linux/bpf/tcx-link.ts';
import { type Hairpin, shell, startHairpin } from '../support/hairpin.ts';

const { server } = addresses;

async function start(
  t: Test,
  policy: Record<string, unknown> = {},
  command: readonly [string, ...string[]] = [agentCommand],
) {
  const hairpin = await startHairpin(t, { settings: { policy }, command });
  const before = readHostState(hairpin.topology.workload);
  const agent = await hairpin.startAgent();
  return { agent, before, hairpin, workload: hairpin.topology.workload };
}

/** Answers to three pings, and whether the firewall had them all. */
async function inspected(hairpin: Hairpin, agent: Agent): Promise<boolean> {
  const count = async () => (await agent.status())!.counters.reinjected?.packets ?? 0;
  const before = await count();
  const { workload } = hairpin.topology;
  const text = await shell(workload, `ping -n -c 3 -i 0.1 -W 1 ${server}; true`);
  await pause(250);
  return text.includes('3 received') && (await count()) >= before + 6;
}

const repaired = (agent: Agent, words: RegExp) =>
  until(`${words}`, 5000, async () => {
    const { latest = [] } = (await agent.status())?.repairs ?? {};
    return latest.some((repair) => words.test(repair.words));
  });
const drifts = (agent: Agent, words: RegExp) =>
  until(`${words}`, 5000, async () =>
    ((await agent.status())?.drift ?? []).some((line) => words.test(line)),
  );
const clean = (agent: Agent) =>
  until('no drift', 5000, async () => (await agent.status())?.drift.length === 0);

for (const onAgentFailure of ['pass', 'drop']) {
  t.test(`an interface that is removed and comes back (${onAgentFailure})`, async (t) => {
    const { agent, hairpin, workload } = await start(t, { onAgentFailure });
    const { router } = hairpin.topology;
    t.ok(await inspected(hairpin, agent));
    workload.ip('link del eth0');
    await drifts(agent, /no route to the firewall/);
    t.match((await agent.status())!.interfaces[0]!.drift.join(), /it is gone/);
    t.match(await shell(workload, `bin/microperimeter reload --socket ${agent.socketPath}`), /./);
    join(workload, 'eth0', router, 'workload');
    router.ip('addr add 10.1.0.1/24 dev workload');
    router.ip('link set workload up');
    router.ip('route add 10.4.0.0/24 via 10.1.0.10');
    workload.ip('addr add 10.1.0.10/24 dev eth0');
    workload.ip('link set eth0 up');
    workload.ip('route add default via 10.1.0.1');
    await repaired(agent, /eth0 is back/);
    await agent.reach('redirecting', 8000);
    t.ok(await inspected(hairpin, agent), 'its traffic is redirected again');
    await clean(agent);
    t.match((await agent.status())!.interfaces[0], { redirected: true, drift: [] });
    t.equal(await agent.program.stop(), 0);
    t.notOk(readHostState(workload).get('tcx')?.length, 'no program is left');
  });
}

t.test('an address that changes (DHCP)', async (t) => {
  const { agent, hairpin, workload } = await start(t);
  workload.ip('addr add 10.1.0.77/24 dev eth0');
  workload.ip('addr del 10.1.0.10/24 dev eth0');
  workload.ip('addr change 10.1.0.77/24 dev eth0');
  if (!workload.ip('route').includes('default')) workload.ip('route add default via 10.1.0.1');
  await repaired(agent, /10\.1\.0\.77/);
  await agent.reach('redirecting', 8000);
  t.ok(await inspected(hairpin, agent), 'by the new address');
  workload.ip('addr add 10.1.1.10/16 brd 10.1.255.255 dev eth0');
  await repaired(agent, /broadcast/);
  t.ok(await inspected(hairpin, agent));
});

t.test('an interface that goes down and up', async (t) => {
  const { agent, hairpin, workload } = await start(t);
  workload.ip('link set eth0 down');
  await until('it says so', 5000, async () =>
    (await agent.status())!.interfaces[0]!.drift.includes('it is down'),
  );
  await drifts(agent, /no route/);
  workload.ip('link set eth0 up');
  workload.ip('route add default via 10.1.0.1');
  await agent.reach('redirecting', 8000);
  t.ok(await inspected(hairpin, agent));
  await clean(agent);
});

t.test('the route to the firewall is withdrawn and comes back', async (t) => {
  const { agent, hairpin, workload } = await start(t);
  workload.ip('route add unreachable 10.9.0.0/24');
  await drifts(agent, /no route to the firewall 10\.9\.0\.4/);
  await shell(workload, `ping -n -c 3 -i 0.1 -W 0.3 ${server}; true`);
  const { counters } = (await agent.status())!;
  await pause(250);
  const later = (await agent.status())!.counters;
  t.ok(later['socket-unreachable'] ?? counters['socket-unreachable'], 'counted');
  workload.ip('route del unreachable 10.9.0.0/24');
  await clean(agent);
  await agent.reach('redirecting', 8000);
  t.ok(await inspected(hairpin, agent));
});

t.test('others on our hooks are counted, and what they take away is put back', async (t) => {
  const { agent, before, hairpin, workload } = await start(t);
  const tc = (line: string) => workload.must('tc', line.split(' '));
  if (!hasTcx()) {
    tc('filter add dev eth0 egress prio 7 matchall action ok');
    await drifts(agent, /egress hook of eth0: 1 after ours/);
    tc('qdisc del dev eth0 clsact');
  } else {
    const file = `${process.cwd()}/dist/test/net/tcx-intruder.js`;
    const other = startProgram(workload, process.execPath, [file, 'attach']);
    await drifts(agent, /egress hook of eth0: 1 before ours/);
    t.ok(await inspected(hairpin, agent), 'it lets go on, and we see the rest');
    await other.stop();
    await clean(agent);
    await shell(workload, `${process.execPath} ${file} detach`);
  }
  await repaired(agent, /the program on the egress hook of eth0 was taken away/);
  t.ok(await inspected(hairpin, agent));
  t.equal(await agent.program.stop(), 0);
  t.same(compareHostStates(before, readHostState(workload)), [], 'the host is as before');
});

t.test('filters of clsact that others take away are put back', async (t) => {
  const without = ['/usr/bin/python3', 'test/net/without-tcx.py', agentCommand] as const;
  const { agent, before, hairpin, workload } = await start(t, {}, without);
  t.equal((await agent.status())!.attachedBy, 'clsact');
  t.ok(await inspected(hairpin, agent));
  const tc = (line: string) => workload.must('tc', line.split(' '));
  tc('filter del dev eth0 ingress');
  await repaired(agent, /the program on the ingress hook of eth0 was taken away/);
  t.ok(await inspected(hairpin, agent), 'without one of its filters');
  tc('qdisc del dev eth0 clsact');
  await repaired(agent, /the program on the egress hook of eth0 was taken away/);
  t.ok(await inspected(hairpin, agent), 'without the clsact');
  t.equal(await agent.program.stop(), 0);
  t.same(compareHostStates(before, readHostState(workload)), [], 'the host is as before');
});
