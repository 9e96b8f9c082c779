/**
 * The agent dies, hangs or stops, and the host is as it should be (needs root).
 */
import { readdirSync } from 'node:fs';
import t from 'tap';
import type { Agent } from '../../lab/agent.ts';
import { compareHostStates, readHostState } from '../../lab/host-state.ts';
import type { Namespace } from '../../lab/namespace.ts';
import { pause } from '../../lab/program.ts';
import { addresses } from '../../lab/topology.ts';
import { shell, startHairpin } from '../support/hairpin.ts';

const { server } = addresses;

/** Ping every 20 ms; `longestGap` answers the longest silence in ms. */
async function startPinging(host: Namespace, seconds: number) {
  const done = shell(host, `ping -n -D -i 0.02 -w ${seconds} ${server}; true`);
  await pause(500);
  return async () => {
    const times = [...(await done).matchAll(/^\[([\d.]+)\] .* icmp_seq/gm)].map((m) =>
      Number(m[1]),
    );
    const gaps = times.slice(1).map((time, i) => Math.round((time - times[i]!) * 1000));
    return { answers: times.length, longestGap: Math.max(...gaps) };
  };
}

async function alive(agent: Agent): Promise<boolean> {
  return (await agent.status()) !== undefined;
}

for (const [signal, what] of [
  ['SIGKILL', 'killed'],
  ['SIGSTOP', 'hung'],
] as const) {
  t.test(`${what}: traffic flows directly within a second`, async (t) => {
    const hairpin = await startHairpin(t);
    const { workload } = hairpin.topology;
    const before = readHostState(workload);
    const agent = await hairpin.startAgent();
    const pinging = await startPinging(workload, 4);
    agent.program.signal(signal);
    const { answers, longestGap } = await pinging();
    t.ok(longestGap <= 1000, `the longest silence was ${longestGap} ms`);
    t.ok(answers > 100, `${answers} answers`);
    agent.program.signal('SIGKILL');
    await agent.program.ended;
    t.same(compareHostStates(before, readHostState(workload)), [], 'the host is as before');
    const next = await hairpin.startAgent();
    t.ok(await alive(next), 'and the next start works');
  });
}

t.test('onAgentFailure: drop holds after a kill, and the next start takes over', async (t) => {
  const hairpin = await startHairpin(t, { settings: { policy: { onAgentFailure: 'drop' } } });
  const { workload } = hairpin.topology;
  const before = readHostState(workload);
  const agent = await hairpin.startAgent();
  agent.program.signal('SIGKILL');
  await agent.program.ended;
  await pause(1000);
  t.match(
    await shell(workload, `ping -n -c 3 -i 0.2 -W 1 ${server}; true`),
    '0 received',
    'dropped',
  );
  t.match(await shell(workload, 'ping -n -c 1 -W 1 10.9.0.4; true'), '0 received');
  const next = await hairpin.startAgent();
  t.match(await shell(workload, `ping -n -c 3 -i 0.2 -W 1 ${server}`), '3 received', 'inspected');
  t.equal(await next.program.stop(), 0);
  t.match(await shell(workload, `ping -n -c 3 -i 0.2 -W 1 ${server}`), '3 received', 'direct');
  t.same(compareHostStates(before, readHostState(workload)), [], 'the host is as before');
});

t.test('onAgentFailure: drop while it hangs, and it goes on when it wakes', async (t) => {
  const hairpin = await startHairpin(t, { settings: { policy: { onAgentFailure: 'drop' } } });
  const { workload } = hairpin.topology;
  const agent = await hairpin.startAgent();
  agent.program.signal('SIGSTOP');
  await pause(1000);
  t.match(
    await shell(workload, `ping -n -c 3 -i 0.2 -W 1 ${server}; true`),
    '0 received',
    'dropped',
  );
  agent.program.signal('SIGCONT');
  await agent.reach('redirecting', 5000);
  t.match(await shell(workload, `ping -n -c 3 -i 0.2 -W 1 ${server}`), '3 received');
});

t.test('what a killed agent holds can be released by hand', async (t) => {
  const hairpin = await startHairpin(t, { settings: { policy: { onAgentFailure: 'drop' } } });
  const { workload } = hairpin.topology;
  const agent = await hairpin.startAgent();
  agent.program.signal('SIGKILL');
  await agent.program.ended;
  await pause(1000);
  t.match(await shell(workload, `ping -n -c 1 -W 1 ${server}; true`), '0 received');
  t.match(await shell(workload, 'bin/microperimeter release'), /released/);
  t.match(await shell(workload, `ping -n -c 1 -W 1 ${server}`), '1 received');
});

t.test('a clean stop loses no packet and leaves no trace', async (t) => {
  const hairpin = await startHairpin(t);
  const { workload } = hairpin.topology;
  const before = readHostState(workload);
  const agent = await hairpin.startAgent();
  const pinging = await startPinging(workload, 3);
  await pause(500);
  t.equal(await agent.program.stop(), 0);
  const { longestGap } = await pinging();
  t.ok(longestGap < 200, `the longest silence was ${longestGap} ms`);
  t.same(compareHostStates(before, readHostState(workload)), []);
  t.notOk(readdirSync(hairpin.directory).includes('control.sock'), 'the socket is gone');
});

t.test('a TUN device that is deleted by hand ends the agent, and traffic flows', async (t) => {
  const hairpin = await startHairpin(t);
  const { workload } = hairpin.topology;
  const agent = await hairpin.startAgent();
  const pinging = await startPinging(workload, 4);
  workload.ip('link del microperimeter');
  t.equal(await agent.program.ended, 1);
  t.match(agent.program.output, /TUN device cannot be read any more/, 'it says why');
  const { longestGap } = await pinging();
  t.ok(longestGap <= 1000, `the longest silence was ${longestGap} ms`);
});

t.test('starting does not cut a connection that is open', async (t) => {
  const hairpin = await startHairpin(t);
  const { topology } = hairpin;
  const sink = shell(topology.server, 'socat -u TCP-LISTEN:9000,reuseaddr - | wc -l');
  await pause(300);
  const source = shell(
    topology.workload,
    `for i in $(seq 30); do echo $i; sleep 0.1; done | socat -u - TCP:${server}:9000`,
  );
  await pause(300);
  const agent = await hairpin.startAgent();
  await source;
  t.equal(await sink, '30');
  const { counters, kernel } = (await agent.status())!;
  t.ok(counters['passed-established']!.packets > 0, 'it passes, as established');
  t.ok(kernel.passedVerdict!.packets > 5, 'and the kernel carries it');
});
