// Untimed: another test may run beside this one.
/**
 * What an operator meets on the first try: one clear sentence, a documented exit code, nothing left
 * behind (needs root).
 */
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { type Agent, agentCommand } from '../../lab/agent.ts';
import { compareHostStates, readHostState } from '../../lab/host-state.ts';
import { pause, run } from '../../lab/program.ts';
import { type Hairpin, startHairpin } from '../support/hairpin.ts';

const unprivileged = 'setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps=-all';

async function refusal(agent: Agent): Promise<{ code: number; words: string }> {
  const code = await agent.program.ended;
  return { code, words: agent.program.errors.trim() };
}

async function refuses(
  t: Test,
  hairpin: Hairpin,
  settings: Parameters<Hairpin['launchAgent']>[0],
  code: number,
  words: RegExp,
): Promise<void> {
  const before = readHostState(hairpin.topology.workload);
  const answer = await refusal(hairpin.launchAgent(settings));
  t.equal(answer.code, code, 'exit code');
  t.match(answer.words, words);
  t.ok(answer.words.split('\n').length <= 2, 'a sentence and what to do');
  t.same(compareHostStates(before, readHostState(hairpin.topology.workload)), [], 'no trace');
}

t.test('refusals of the system', async (t) => {
  const hairpin = await startHairpin(t);
  const { topology } = hairpin;

  await t.test('an interface that does not exist', (t) =>
    refuses(t, hairpin, { workload: { interfaces: ['eth9'] } }, 5, /eth9.*eth0/s),
  );
  await t.test('an interface that is not Ethernet', async (t) => {
    topology.workload.ip('tuntap add dev ppp9 mode tun');
    await refuses(t, hairpin, { workload: { interfaces: ['ppp9'] } }, 5, /ppp9/);
    topology.workload.ip('link del ppp9');
  });
  await t.test('the tunnel port is taken', async (t) => {
    const other = topology.workload.spawn('socat', ['-u', 'UDP-LISTEN:6081', '-']);
    await pause(300);
    await refuses(t, hairpin, {}, 5, /6081/);
    other.kill();
  });
  await t.test('no route to the firewall', async (t) => {
    topology.workload.ip('route del default');
    await refuses(t, hairpin, {}, 5, /10\.9\.0\.4/);
    topology.workload.ip('route add default via 10.1.0.1');
  });
  await t.test('no /dev/net/tun', async (t) => {
    const agent = hairpin.launchAgent({});
    await agent.program.stop('SIGKILL');
    const start = `exec ${agentCommand} run --config ${agent.configPath}`;
    const script = `mount -t tmpfs none /dev/net && ${start}`;
    const answer = await run(topology.workload, 'unshare', ['-m', 'sh', '-c', script]);
    t.equal(answer.code, 4);
    t.match(answer.errors, /\/dev\/net\/tun/);
    t.match(answer.errors, /modprobe tun/);
  });
  await t.test('an unprivileged user', async (t) => {
    const agent = hairpin.launchAgent({ control: { socket: '/tmp/microperimeter-refusal.sock' } });
    await agent.program.stop('SIGKILL');
    const start = `${unprivileged} ${agentCommand} run --config ${agent.configPath}`;
    const script = `chmod -R a+rX ${hairpin.directory} && exec ${start}`;
    const answer = await run(topology.workload, 'sh', ['-c', script]);
    t.equal(answer.code, 3, answer.errors);
    t.match(answer.errors, /root|CAP_NET_ADMIN/);
  });
  await t.test('a second agent', async (t) => {
    const first = await hairpin.startAgent();
    const before = readHostState(topology.workload);
    const socket = join(hairpin.directory, 'second.sock');
    const second = await refusal(hairpin.launchAgent({ control: { socket } }));
    t.equal(second.code, 5);
    t.match(second.words, /another/);
    t.same(
      compareHostStates(before, readHostState(topology.workload)),
      [],
      'the first is untouched',
    );
    t.ok((await first.status())?.gate.open);
    t.equal(await first.program.stop(), 0);
  });
});
