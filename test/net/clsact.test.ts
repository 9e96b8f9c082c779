// Untimed: another test may run beside this one.
/** Filters on clsact among those of others, and what stays of them. */
import t from 'tap';
import { BPF_PROG_TYPE_SCHED_CLS } from '../../linux/abi/bpf.ts';
import { exit, mov, R0 } from '../../linux/bpf/asm.ts';
import { clsact } from '../../linux/bpf/clsact.ts';
import { loadProgram } from '../../linux/bpf/load.ts';
import { releaseLeftovers } from '../../linux/bpf/methods.ts';
import type { SystemError } from '../../linux/errors.ts';
import { insideNamespace } from '../../linux/namespace.ts';
import { close } from '../../linux/syscall.ts';
import {
  Agent,
  basePolicy,
  echoes,
  filters,
  moved,
  onHook,
  pause,
  peer,
  pinDirectory,
  pings,
  workload,
} from './steering-lab.ts';

const tc = (command: string) => workload.must('tc', command.split(' '));
const talk = () => echoes('udp', workload, peer, '10.77.0.2', [5000, 6000]);
const ping = () => pings(workload, '10.77.0.2');
const release = () => insideNamespace(workload.path, () => releaseLeftovers(pinDirectory, 'agent'));

/** Classic programs: ICMP is dropped and the rest goes on; everything is accepted. */
const dropPing = 'bpf da bytecode 4,48 0 0 23,21 0 1 1,6 0 0 2,6 0 0 4294967295,';
const acceptAll = 'bpf da bytecode 1,6 0 0 0,';
function addFilter(hook: string, priority: number, program: string): void {
  const [kind, action, word, ...code] = program.split(' ');
  const place = ['filter', 'add', 'dev', 'eth0', hook, 'protocol', 'all', 'prio', `${priority}`];
  workload.must('tc', [...place, kind!, action!, word!, code.join(' ')]);
}

/** What `tc` shows of the workload. */
const shown = () => [
  workload.must('tc', ['qdisc', 'show']),
  ...['eth0', 'eth1'].flatMap((name) => [...filters(name, 'egress'), ...filters(name, 'ingress')]),
];
const untouched = shown();

t.test("others' filters stay and see what comes back", async (t) => {
  tc('qdisc add dev eth0 clsact');
  addFilter('egress', 10, dropPing);
  const before = shown();
  const agent = await Agent.start('clsact', {});
  t.match(await moved(agent, talk), { redirected: 2, reinjected: 2 }, 'UDP is steered');
  let answered = true;
  const { redirected } = await moved(agent, async () => {
    answered = await ping();
  });
  t.match([redirected, answered], [2, false], 'a ping is steered, then dropped by the other');
  await agent.tell({ do: 'detach' });
  await agent.end();
  t.same(shown(), before, 'the clsact was not ours');
  tc('qdisc del dev eth0 clsact');
});

t.test('ours is the first, also of the first priority', async (t) => {
  tc('qdisc add dev eth0 clsact');
  for (const hook of ['egress', 'ingress']) addFilter(hook, 1, acceptAll);
  const agent = await Agent.start('clsact', {});
  t.match(await moved(agent, talk), { redirected: 2, reinjected: 2 });
  await agent.tell({ do: 'replace', policy: { ...basePolicy, ipv6: 'drop' } });
  t.match(await moved(agent, talk), { redirected: 2, reinjected: 2 }, 'after a change, too');
  await agent.tell({ do: 'detach' });
  await agent.end();
  t.equal(filters('eth0', 'egress').length, 1, 'the other one stays');
  tc('qdisc del dev eth0 clsact');
});

t.test('a clsact of ours goes with us', async (t) => {
  const agent = await Agent.start('clsact', {});
  t.ok(await ping());
  tc('filter del dev eth0 egress');
  t.equal(onHook('eth0', 'egress'), 0, 'somebody took ours away');
  await agent.tell({ do: 'replace', policy: basePolicy });
  t.match(await moved(agent, ping), { redirected: 4 }, 'it comes back with the next change');
  await agent.tell({ do: 'detach' });
  await agent.end();
  t.same(shown(), untouched);

  const other = await Agent.start('clsact', {});
  addFilter('ingress', 10, acceptAll);
  await other.tell({ do: 'detach' });
  await other.end();
  t.match(filters('eth0', 'ingress'), [/pref 10 bpf/], 'unless somebody else came to use it');
  tc('qdisc del dev eth0 clsact');

  const third = await Agent.start('clsact', {});
  tc('qdisc del dev eth0 clsact');
  t.equal(await third.tell({ do: 'detach' }), null, 'nor does it matter when it went before');
  await third.end();
  t.same(shown(), untouched);
});

t.test('filters of a killed agent let pass, and are found by their names', async (t) => {
  const first = await Agent.start('clsact', {});
  await first.end('SIGKILL');
  await pause(350);
  t.ok(await ping(), 'traffic flows directly once the heartbeat is old');
  t.match([onHook('eth0', 'egress'), onHook('eth0', 'ingress')], [1, 1], 'they are still there');

  const second = await Agent.start('clsact', {});
  t.match(await moved(second, ping), { redirected: 4 }, 'the next agent takes over');
  t.match([onHook('eth0', 'egress'), onHook('eth0', 'ingress')], [1, 1], 'from the first');
  await second.tell({ do: 'detach' });
  await second.end();
  t.same(shown(), untouched, 'and knows that the clsact is ours');

  const other = await Agent.start('clsact', { interfaceNames: ['eth0', 'eth1'] });
  await other.end('SIGKILL');
  t.equal(releaseLeftovers(pinDirectory, 'agent'), 0, 'another network namespace is let alone');
  t.equal(release(), 4, 'an operator removes them by hand');
  t.equal(release(), 0);
  t.same(shown(), untouched);
});

t.test('what cannot be first is refused in words', async (t) => {
  const attach = (hook: 'egress' | 'ingress') => {
    const items = [mov.imm(R0, 0), exit()];
    const program = loadProgram({ name: 'mp_test', type: BPF_PROG_TYPE_SCHED_CLS, items }, {});
    const [link] = JSON.parse(workload.ip('-j link show eth0'));
    try {
      insideNamespace(workload.path, () => clsact.attach(program, link.ifindex, hook, 'agent'));
    } finally {
      close(program);
    }
  };
  tc('qdisc add dev eth0 ingress');
  const ingress = t.throws(() => attach('egress')) as SystemError;
  t.match(ingress, { code: 'ERR_SYSTEM_CALL', message: /has no egress hook/, advice: /clsact/ });
  tc('qdisc del dev eth0 ingress');

  tc('qdisc add dev eth0 clsact');
  tc('filter add dev eth0 ingress protocol ip prio 1 u32 match u32 0 0');
  const taken = t.throws(() => attach('ingress')) as SystemError;
  t.match(taken, { code: 'ERR_SYSTEM_CALL', message: /priority 1 on the ingress hook/ });
  tc('qdisc del dev eth0 clsact');

  const program = loadProgram(
    { name: 'mp_test', type: BPF_PROG_TYPE_SCHED_CLS, items: [mov.imm(R0, 0), exit()] },
    {},
  );
  const nowhere = t.throws(() =>
    clsact.attach(program, 0x7fff_ffff, 'ingress', 'agent'),
  ) as SystemError;
  t.match(nowhere, { code: 'ERR_SYSTEM_CALL', message: /ENODEV/ }, 'no interface');
  close(program);
  t.same(shown(), untouched);
});
