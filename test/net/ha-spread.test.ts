/**
 * Three firewalls share the flows by hash; one is killed and comes back, under load (needs root):
 *
 *     workload - router - transit -+- firewall   10.9.0.4  fw-a
 *                  |               +- firewall-b 10.9.0.5  fw-b
 *               server             +- firewall-c 10.9.0.6  fw-c
 */
import t from 'tap';
import { activeOf, type FirewallState, firewallsOf, reachFirewalls } from '../../lab/ha-stage.ts';
import { pause, start } from '../../lab/program.ts';
import { addresses } from '../../lab/topology.ts';
import { startHa } from '../support/ha.ts';
import { shell } from '../support/hairpin.ts';

const { server } = addresses;
const spread = { distribution: 'flow-hash', probe: { interval: '100ms' }, holdDown: '1s' } as const;

type Load = { readonly stop: () => Promise<{ sent: number; answered: number }> };

/** Thirty UDP conversations, a datagram each 50 ms, echoed by the server. */
function startLoad(lab: Awaited<ReturnType<typeof startHa>>['lab']): Load {
  const echo = `
    const socket = require('node:dgram').createSocket('udp4');
    socket.on('message', (message, from) => socket.send(message, from.port, from.address));
    socket.bind(7000);`;
  const talk = `
    const dgram = require('node:dgram');
    let sent = 0, answered = 0;
    const sockets = Array.from({ length: 30 }, () => dgram.createSocket('udp4'));
    for (const socket of sockets) socket.on('message', () => answered++);
    const timer = setInterval(() => {
      for (const socket of sockets) socket.send('hello', 7000, '${server}', () => sent++);
    }, 50);
    process.stdin.once('data', () => {
      clearInterval(timer);
      setTimeout(() => { console.log(JSON.stringify({ sent, answered })); process.exit(); }, 500);
    });`;
  const echoing = start(lab.topology.server, process.execPath, ['-e', echo]);
  const talking = start(lab.topology.workload, process.execPath, ['-e', talk]);
  return {
    stop: async () => {
      talking.write('stop');
      await talking.ended;
      await echoing.stop();
      return JSON.parse(talking.output) as { sent: number; answered: number };
    },
  };
}

const returned = (all: readonly FirewallState[]) =>
  all.map(({ traffic }) => traffic.returned.packets);

t.test('one of three is killed and comes back, under load', async (t) => {
  const { agent, lab } = await startHa(t, { count: 3, ha: spread });
  const load = startLoad(lab);
  await pause(2000);
  const before = await firewallsOf(agent);
  t.same(activeOf(before), ['fw-a', 'fw-b', 'fw-c']);
  t.ok(
    returned(before).every((packets) => packets > 20),
    `${returned(before)} packets: each has its part`,
  );
  lab.firewalls[1]!.program.signal('SIGKILL');
  await lab.firewalls[1]!.program.ended;
  const without = await reachFirewalls(agent, 'fw-b is lost', (all) => !all[1]!.usable, 3000);
  await pause(1000);
  const during = await firewallsOf(agent);
  t.equal(returned(during)[1], returned(without)[1], 'nothing comes by it');
  const moved = during[0]!.traffic.flowsTaken + during[2]!.traffic.flowsTaken;
  t.ok(moved > 0 && moved < 25, `${moved} of 30 flows moved`);
  await lab.startFirewall(1);
  await reachFirewalls(agent, 'fw-b takes new flows', (all) => all[1]!.active, 10_000);
  const added = await firewallsOf(agent);
  const { workload } = lab.topology;
  await shell(
    workload,
    `for port in $(seq 8000 8029); do echo x | socat -t0.01 - UDP:${server}:$port; done || true`,
  );
  await pause(300);
  const after = await firewallsOf(agent);
  t.ok(after[1]!.traffic.sent.packets > added[1]!.traffic.sent.packets, 'new flows go to it');
  const { answered, sent } = await load.stop();
  const swallowed = (await firewallsOf(agent)).map(
    ({ traffic }) => traffic.sent.packets - traffic.returned.packets,
  );
  t.same([swallowed[0], swallowed[2]], [0, 0], 'the others lost nothing');
  // A datagram is lost on its way there or back, once; the firewall swallowed it.
  t.equal(sent - answered, swallowed[1], `sent ${sent} = answered ${answered} + swallowed`);
  const { counters } = (await agent.status())!;
  t.equal(
    counters.redirected!.packets - counters.reinjected!.packets,
    swallowed[1],
    'and the agent counts the same',
  );
});

for (const [onLoss, what] of [
  ['reset', 'are reset'],
  ['stick', 'wait for it'],
] as const) {
  t.test(`onLoss: ${onLoss}: the connections of the lost one ${what}`, async (t) => {
    const { agent, lab } = await startHa(t, { ha: { ...spread, onLoss } });
    const { server: serverHost, workload } = lab.topology;
    const ports = Array.from({ length: 12 }, (_, i) => 9001 + i);
    const sinks = ports.map((port) =>
      start(serverHost, 'socat', ['-u', `TCP-LISTEN:${port},reuseaddr`, 'OPEN:/dev/null']),
    );
    await pause(300);
    const script = 'for i in $(seq 50); do echo $i; sleep 0.1; done';
    const ends = ports.map((port) =>
      shell(workload, `(${script}) | socat -u - TCP:${server}:${port}`).then(
        () => 'whole',
        () => 'broken',
      ),
    );
    await pause(1000);
    const [first] = await firewallsOf(agent);
    t.ok(first!.traffic.sent.packets > 0, 'it has some of them');
    lab.firewalls[0]!.program.signal('SIGSTOP');
    await reachFirewalls(agent, 'fw-a is lost', ([a]) => !a!.usable, 3000);
    await pause(1500);
    lab.firewalls[0]!.program.signal('SIGCONT');
    const outcomes = await Promise.all(ends);
    const broken = outcomes.filter((end) => end === 'broken').length;
    const { counters } = (await agent.status())!;
    if (onLoss === 'reset') {
      t.ok(broken > 0, `${broken} of ${ports.length} were reset`);
      t.ok(counters['reset-established']!.packets > 0, 'counted');
    } else {
      t.equal(broken, 0, 'they waited for it');
      t.equal(counters['reset-established'], undefined);
    }
    for (const sink of sinks) await sink.stop();
  });
}
