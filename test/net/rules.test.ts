/**
 * Rules obeyed by real traffic (needs root). What is redirected is seen at the firewall, what
 * passes is not, what is dropped does not arrive.
 */
import t from 'tap';
import type { Agent } from '../../lab/agent.ts';
import { pause } from '../../lab/program.ts';
import { addresses } from '../../lab/topology.ts';
import { ping, requestWeb, startWebServer } from '../../lab/traffic.ts';
import { type Hairpin, shell, startHairpin } from '../support/hairpin.ts';

const { server, workload } = addresses;

/** Which counters of the engine and the kernel moved while something was done, by at least one. */
async function moved(agent: Agent, work: () => Promise<unknown>): Promise<Set<string>> {
  const totals = async () => {
    const { counters, kernel } = (await agent.status())!;
    return new Map(
      [...Object.entries(counters), ...prefixed(kernel)].map(([name, { packets }]) => [
        name,
        packets,
      ]),
    );
  };
  await pause(200);
  const before = await totals();
  await work();
  await pause(200);
  const after = await totals();
  return new Set(
    [...after].filter(([name, n]) => n > (before.get(name) ?? 0)).map(([name]) => name),
  );
}

function prefixed<T>(kernel: Readonly<Record<string, T>>): [string, T][] {
  return Object.entries(kernel).map(([name, amount]) => [`kernel ${name}`, amount]);
}

async function udpEcho({ topology }: Hairpin, port: number, bytes: number): Promise<string> {
  const script = `timeout 2 socat -b8192 -T1 UDP-LISTEN:${port} EXEC:cat; true`;
  const echo = shell(topology.server, script);
  await pause(300);
  const send = `head -c ${bytes} /dev/zero | tr "\\0" y | socat -b8192 -t1 - UDP:${server}:${port}`;
  const answer = await shell(topology.workload, `${send} | wc -c`);
  await echo;
  return answer;
}

const rules = [
  { name: 'udp-direct', direction: 'egress', protocol: 'udp', remotePort: 7000, action: 'pass' },
  { name: 'no-telnet', protocol: 'tcp', localPort: 23, action: 'drop' },
  { name: 'no-ping-out', direction: 'egress', protocol: 'icmp', action: 'drop' },
  { name: 'web-out', direction: 'egress', protocol: 'tcp', remotePort: '$web', action: 'redirect' },
  { name: 'web-in', direction: 'ingress', protocol: 'tcp', localPort: '$web', action: 'pass' },
];
const sets = { web: [80, '8000-8099'] };

t.test('rules decide TCP, UDP, ICMP and fragments, in both directions', async (t) => {
  const hairpin = await startHairpin(t, { top: { sets, rules, default: 'redirect' } });
  const { topology } = hairpin;
  const web = [
    await startWebServer(topology.server, 'server', server, [80, 9000]),
    await startWebServer(topology.workload, 'workload', workload, [80, 23]),
  ];
  t.teardown(() => Promise.all(web.map((one) => one.stop())));
  const agent = await hairpin.startAgent();

  const out = await moved(agent, async () => {
    t.ok((await requestWeb(topology.workload, `http://${server}/`)).ok);
  });
  t.ok(out.has('redirected') && out.has('reinjected'), 'web-out is redirected');
  const into = await moved(agent, async () => {
    t.ok((await requestWeb(topology.server, `http://${workload}/`)).ok);
  });
  t.notOk(into.has('reinjected'), 'web-in passes');
  t.ok(into.has('kernel passedVerdict'), 'and the kernel carries it');
  const telnet = await moved(agent, async () => {
    const url = `http://${workload}:23/`;
    t.notOk((await requestWeb(topology.server, url, { limitMs: 800 })).ok);
  });
  t.ok(telnet.has('dropped-by-rule'), 'no-telnet is dropped');
  t.equal(await ping(topology.workload, server, 2), 0, 'no-ping-out');
  t.equal(await ping(topology.server, workload, 2), 2, 'a ping from outside is another connection');
  const small = await moved(agent, async () => t.equal(await udpEcho(hairpin, 7000, 100), '100'));
  t.notOk(small.has('reinjected'), 'udp-direct passes');
  const big = await moved(agent, async () => t.equal(await udpEcho(hairpin, 7000, 4000), '4000'));
  t.notOk(big.has('reinjected'), 'and so do its fragments');
  const other = await moved(agent, async () => t.equal(await udpEcho(hairpin, 7001, 4000), '4000'));
  t.ok(other.has('reinjected'), 'fragments of what is redirected are too');

  const { rules: hits } = (await agent.status()) as unknown as {
    rules: { name: string; hits: number }[];
  };
  const byName = Object.fromEntries(hits.map(({ name, hits }) => [name, hits]));
  t.match(byName, { 'web-out': 1, 'web-in': 1, 'no-telnet': 1, 'no-ping-out': 1 });
});

t.test('a network that passes never wakes the agent', async (t) => {
  const hairpin = await startHairpin(t, {
    top: { rules: [{ name: 'servers', remote: '10.2.0.0/24', action: 'pass' }] },
  });
  const agent = await hairpin.startAgent();
  const { topology } = hairpin;
  const counters = await moved(agent, async () => {
    t.equal(await ping(topology.workload, server, 3), 3);
    t.equal(await ping(topology.server, workload, 3), 3);
    t.equal(await udpEcho(hairpin, 7000, 4000), '4000', 'fragments');
  });
  t.ok(counters.has('kernel passedNetwork'));
  t.notOk(
    counters.has('kernel redirected') ||
      counters.has('redirected') ||
      counters.has('passed-by-rule'),
  );
  t.match(await shell(topology.workload, 'ping -n -c 1 -W 1 10.8.0.1'), '1 received');
  await pause(200);
  t.ok((await agent.status())!.counters.reinjected!.packets >= 2, 'the rest is redirected');
});

t.test('observe redirects nothing and counts what it would', async (t) => {
  const hairpin = await startHairpin(t, { settings: { policy: { mode: 'observe' } } });
  const agent = await hairpin.startAgent();
  const atFirewall = await hairpin.capture(hairpin.topology.firewall, 'firewall');
  t.equal(await ping(hairpin.topology.workload, server, 3), 3);
  await atFirewall.stop();
  t.equal(await atFirewall.count('geneve'), 0);
  t.equal((await agent.status())!.counters['passed-observed']!.packets, 6);
});

t.test('established: reset ends what was open', async (t) => {
  const hairpin = await startHairpin(t, { settings: { policy: { established: 'reset' } } });
  const { topology } = hairpin;
  const sink = shell(topology.server, 'socat -u TCP-LISTEN:9000,reuseaddr -');
  sink.catch(() => {});
  await pause(300);
  const source = shell(
    topology.workload,
    `for i in $(seq 60); do echo $i; sleep 0.1; done | socat -u - TCP:${server}:9000`,
  );
  source.catch(() => {});
  await pause(300);
  const agent = await hairpin.startAgent();
  await t.rejects(source, /reset|Broken pipe/i, 'the sender is told');
  const ended = sink.then(
    () => true,
    () => true,
  );
  t.ok(await Promise.race([ended, pause(5000).then(() => false)]), 'and so is the receiver');
  t.ok((await agent.status())!.counters['reset-established']!.packets > 0);
});
