/**
 * The steering programs with real packets; needs root.
 *
 *     peer 10.77.0.2 ---- eth0 10.77.0.1 workload 10.78.0.1 eth1 ---- inner 10.78.0.2
 *                           |                                          (a host behind the workload)
 *                         mptun: steering-agent.ts echoes what it is given
 */
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import t from 'tap';
import { KernelVerdict, SteeringMode } from '../../engine/io.ts';
import { join, Namespace, removeStaleNamespaces } from '../../lab/namespace.ts';
import { releaseLeftovers } from '../../linux/bpf/pins.ts';
import type { SteeringCounters } from '../../linux/steering.ts';
import type { AgentPolicy, Command, Stats } from './steering-agent.ts';

removeStaleNamespaces();
const workload = new Namespace('workload');
const peer = new Namespace('peer');
const inner = new Namespace('inner');
join(workload, 'eth0', peer, 'eth0');
join(workload, 'eth1', inner, 'eth0');
for (const [host, name, address] of [
  [workload, 'eth0', '10.77.0.1/24'],
  [workload, 'eth1', '10.78.0.1/24'],
  [peer, 'eth0', '10.77.0.2/24'],
  [inner, 'eth0', '10.78.0.2/24'],
] as const) {
  host.ip(`addr add ${address} dev ${name}`);
  host.ip(`link set ${name} up`);
}
workload.must('sysctl', ['-qw', 'net.ipv4.ip_forward=1']);
peer.ip('route add 10.78.0.0/24 via 10.77.0.1');
inner.ip('route add default via 10.78.0.1');
// Duplicate address detection would make the first IPv6 packets wait.
workload.ip('-6 addr add fd77::1/64 dev eth0 nodad');
peer.ip('-6 addr add fd77::2/64 dev eth0 nodad');

const address = (text: string) =>
  text.split('.').reduce((sum, byte) => (sum << 8) | Number(byte), 0) | 0;
const local = address('10.77.0.1');
const remote = address('10.77.0.2');
const UDP = 17;

const pinDirectory = `${mkdtempSync(`${tmpdir()}/microperimeter-`)}/pins`;
t.teardown(() => rmSync(`${pinDirectory}/..`, { recursive: true, force: true }));

const basePolicy: AgentPolicy = {
  interfaceNames: ['eth0'],
  firewalls: [],
  tunnelPort: 6081,
  returnFrom: [],
  telemetry: [],
  management: [],
  broadcasts: [address('10.77.0.255')],
  ipv6: 'pass',
  onAgentFailure: 'pass',
  heartbeatTimeoutMs: 300,
  pinDirectory,
};

class Agent {
  readonly child: ChildProcess;
  private constructor(child: ChildProcess) {
    this.child = child;
  }

  static async start(policy: Partial<AgentPolicy>, mode: SteeringMode = SteeringMode.Redirect) {
    const program = `${process.cwd()}/dist/test/net/steering-agent.js`;
    const child = workload.spawn(
      process.execPath,
      [program, JSON.stringify({ ...basePolicy, ...policy })],
      { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] },
    );
    const agent = new Agent(child);
    await Promise.race([once(child, 'message'), once(child, 'exit')]);
    await agent.tell({ do: 'mode', mode });
    return agent;
  }

  async tell(command: Command): Promise<unknown> {
    const answer = once(this.child, 'message');
    this.child.send(command);
    return (await answer)[0];
  }
  async counters() {
    return (await this.tell({ do: 'counters' })) as SteeringCounters;
  }
  async stats() {
    return (await this.tell({ do: 'stats' })) as Stats;
  }
  async end(signal: NodeJS.Signals = 'SIGKILL') {
    if (this.child.exitCode !== null || this.child.signalCode !== null) return;
    const ended = once(this.child, 'exit');
    this.child.kill(signal);
    await ended;
  }
}

/** Runs to the end; resolves with status and output. */
async function run(host: Namespace, command: string, ...args: string[]) {
  const child = host.spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'] });
  let text = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream?.setEncoding('utf8').on('data', (part: string) => {
      text += part;
    });
  }
  const [status] = (await once(child, 'close')) as [number | null];
  return { status: status ?? -1, text };
}
async function pings(host: Namespace, target: string, ...flags: string[]): Promise<boolean> {
  const quick = ['-n', '-c', '2', '-i', '0.05', '-W', '0.4', ...flags];
  return (await run(host, 'ping', ...quick, target)).status === 0;
}
const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

const kinds = { udp: 'SOCK_DGRAM', tcp: 'SOCK_STREAM' } as const;
const echoServer = `
import socket, sys
s = socket.socket(socket.AF_INET, socket.KIND)
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(("", int(sys.argv[1])))
if s.type == socket.SOCK_STREAM: s.listen()
print("ready", flush=True)
if s.type == socket.SOCK_STREAM:
  c, _ = s.accept()
  c.send(c.recv(100))
  c.recv(1)
else:
  data, sender = s.recvfrom(100)
  s.sendto(data, sender)
`;
const udpSend = `
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.sendto(b"x" * int(sys.argv[3]), (sys.argv[1], int(sys.argv[2])))
`;
const echoClient = `
import socket, sys
s = socket.socket(socket.AF_INET, socket.KIND)
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.settimeout(0.5)
s.bind(("", int(sys.argv[3])))
s.connect((sys.argv[1], int(sys.argv[2])))
s.send(b"hello")
sys.exit(0 if s.recv(100) == b"hello" else 1)
`;

/**
 * Whether one message from `client` comes back from `server`; ports are the client's, the server's.
 */
async function echoes(
  kind: keyof typeof kinds,
  client: Namespace,
  server: Namespace,
  target: string,
  [clientPort, serverPort]: readonly [number, number],
): Promise<boolean> {
  const script = (text: string) => text.replaceAll('KIND', kinds[kind]);
  const echo = server.spawn('python3', ['-c', script(echoServer), `${serverPort}`], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  await once(echo.stdout!, 'data');
  const args = ['-c', script(echoClient), target, `${serverPort}`, `${clientPort}`];
  const { status } = await run(client, 'python3', ...args);
  echo.kill('SIGKILL');
  return status === 0;
}

/** How the counters moved during `work`. */
async function moved(agent: Agent, work: () => Promise<unknown>) {
  const before = await agent.counters();
  await work();
  const after = await agent.counters();
  const entries = Object.entries(after).map(([name, { packets }]) => [
    name,
    packets - before[name as keyof SteeringCounters].packets,
  ]);
  return Object.fromEntries(entries) as Record<keyof SteeringCounters, number>;
}

t.test('everything goes through the engine and comes back', async (t) => {
  const agent = await Agent.start({});
  t.teardown(() => agent.end());

  t.ok(await pings(workload, '10.77.0.2'), 'ping from the workload');
  t.match((await agent.stats()).packets, [2, 2], 'requests by queue 0, replies by queue 1');
  t.ok(await pings(peer, '10.77.0.1'), 'ping from the peer');
  t.match((await agent.stats()).packets, [4, 4], 'both ways by their own queue');
  t.ok(await pings(workload, '10.77.0.2', '-s', '4000'), 'fragments');

  const ports = [5000, 6000] as const;
  t.ok(await echoes('udp', workload, peer, '10.77.0.2', ports), 'UDP from the workload');
  t.ok(await echoes('udp', peer, workload, '10.77.0.1', ports), 'UDP from the peer');
  t.ok(await echoes('tcp', workload, peer, '10.77.0.2', ports), 'TCP from the workload');
  t.ok(await echoes('tcp', peer, workload, '10.77.0.1', ports), 'TCP from the peer');

  const before = await agent.stats();
  t.ok(await pings(inner, '10.77.0.2'), 'ping from a host behind the workload');
  t.ok(await pings(peer, '10.78.0.2'), 'ping to a host behind the workload');
  t.ok(await echoes('tcp', inner, peer, '10.77.0.2', ports), 'TCP from behind the workload');
  t.ok(await echoes('tcp', peer, inner, '10.78.0.2', ports), 'TCP to behind the workload');
  const after = await agent.stats();
  t.ok(after.packets[0]! > before.packets[0]! + 8, 'forwarded packets left by the egress queue');
  t.ok(after.packets[1]! > before.packets[1]! + 8, 'and came by the ingress queue');

  const counters = await agent.counters();
  const [egress = 0, ingress = 0] = after.packets;
  t.equal(after.strange, 0, 'nothing but IPv4 reached the engine');
  t.equal(counters.redirected.packets, egress + ingress, 'all that was redirected was read');
  t.equal(counters.reinjected.packets, egress + ingress, 'all that was written went on');
  t.equal(counters.droppedQueue.packets, 0);
});

t.test('super-packets keep their size', async (t) => {
  const agent = await Agent.start({});
  t.teardown(() => agent.end());
  const server = peer.spawn('iperf3', ['-s'], { stdio: 'ignore' });
  t.teardown(() => server.kill('SIGKILL'));
  await pause(200);
  for (const [name, flag, queue] of [
    ['out', '', 0],
    ['in', '-R', 1],
  ] as const) {
    const args = ['-c', '10.77.0.2', '-t', '1', '-J', ...(flag === '' ? [] : [flag])];
    const { text } = await run(workload, 'iperf3', ...args);
    const bits = JSON.parse(text).end?.sum_received?.bits_per_second ?? 0;
    const stats = await agent.stats();
    t.ok(bits > 100e6, `TCP ${name}: ${Math.round(bits / 1e6)} Mbit/s`);
    t.ok(
      stats.large[queue]! > 500,
      `${stats.large[queue]} of ${stats.packets[queue]} above the MTU`,
    );
  }
});

t.test('native packets are on the wire as the workload made them', async (t) => {
  const agent = await Agent.start({});
  t.teardown(() => agent.end());
  const mac = (host: Namespace) => JSON.parse(host.ip('-j link show eth0'))[0].address as string;
  const capture = run(peer, 'tcpdump', '-i', 'eth0', '-e', '-n', '-v', '-c', '1', 'icmp[0] == 8');
  await pause(500);
  const { text } = await run(workload, 'ping', '-n', '-c', '1', '10.77.0.2');
  const seen = (await capture).text;
  t.match(seen, `${mac(workload)} > ${mac(peer)}, ethertype IPv4`, 'Ethernet addresses');
  t.match(seen, /ttl 64, .*DF.*length 84/, 'time to live and length');
  t.notMatch(seen, /bad cksum/);
  t.match(text, 'ttl=64', 'the answer lost no hop either');
  // A mark that was left on a packet that came in would choose this rule when it is forwarded.
  workload.ip('rule add pref 1 iif eth0 fwmark 0x6d700000/0xfffff000 blackhole');
  t.ok(await pings(peer, '10.78.0.2'), 'no mark is left for others to see');
  workload.ip('rule del pref 1');
});

t.test('what is excluded never reaches the TUN', async (t) => {
  const all = { address: remote, port: 7000 };
  const agent = await Agent.start({
    firewalls: [all],
    returnFrom: [{ address: address('10.78.0.0'), length: 24 }],
    telemetry: [{ address: remote, port: 8443 }],
    management: [
      { protocol: 6, remote: { address: address('10.77.0.0'), length: 24 }, port: 22 },
      { protocol: 0, remote: { address: address('10.78.0.2'), length: 32 }, port: 0 },
    ],
  });
  t.teardown(() => agent.end());
  workload.ip('addr add 169.254.7.1/24 dev eth0');
  peer.ip('addr add 169.254.7.2/24 dev eth0');
  const udp =
    (client: Namespace, target: string, ...ports: [number, number]) =>
    () =>
      echoes('udp', client, client === peer ? workload : peer, target, ports);
  const tcp =
    (client: Namespace, target: string, ...ports: [number, number]) =>
    () =>
      echoes('tcp', client, client === peer ? workload : peer, target, ports);
  const excluded: [string, () => Promise<boolean>][] = [
    ['DHCP', udp(workload, '10.77.0.2', 68, 67)],
    ['telemetry', tcp(workload, '10.77.0.2', 5001, 8443)],
    ['management, our port', tcp(peer, '10.77.0.1', 5002, 22)],
    ['management, their port', tcp(workload, '10.77.0.2', 5003, 22)],
    ['link-local', () => pings(workload, '169.254.7.2')],
  ];
  for (const [name, work] of excluded) {
    let ok = false;
    const { redirected, excluded: count } = await moved(agent, async () => {
      ok = await work();
    });
    t.ok(ok, `${name} works`);
    t.equal(redirected, 0, `${name} is not redirected`);
    t.ok(count >= 2, `${name} is counted`);
  }
  const tunnel = await moved(agent, udp(workload, '10.77.0.2', 6081, 7000));
  t.match(tunnel, { redirected: 0, excluded: 2 }, 'the tunnel, both ways');
  const before = (await agent.stats()).packets[1];
  const fragments = () => run(peer, 'python3', '-c', udpSend, '10.77.0.1', '6081', '4000');
  t.match(await moved(agent, fragments), { excluded: 3 }, 'tunnel fragments are counted');
  t.equal((await agent.stats()).packets[1], before, 'and are not redirected');

  const seen: [string, () => Promise<boolean>][] = [
    ['one DHCP port only', udp(workload, '10.77.0.2', 68, 6000)],
    ['the tunnel port, from an ordinary one', udp(workload, '10.77.0.2', 5004, 6081)],
    ['the telemetry port as a client port', tcp(workload, '10.77.0.2', 8443, 6000)],
    ['management by another protocol', udp(workload, '10.77.0.2', 5005, 22)],
  ];
  for (const [name, work] of seen) {
    const { redirected, excluded: count } = await moved(agent, work);
    t.ok(redirected >= 2 && count === 0, `${name} is redirected`);
  }
  const multicast = () => run(workload, 'ping', '-c', '1', '-W', '0.1', '-I', 'eth0', '224.0.0.1');
  t.equal((await moved(agent, multicast)).redirected, 0, 'multicast is not redirected');
  const broadcast = () => run(workload, 'ping', '-b', '-c', '1', '-W', '0.1', '10.77.0.255');
  t.match(await moved(agent, broadcast), { redirected: 0, excluded: 1 }, 'nor directed broadcast');

  workload.ip('link set eth0 promisc on');
  peer.ip('neigh replace 10.77.0.1 lladdr 02:00:00:00:00:99 dev eth0');
  let answered = true;
  const { redirected } = await moved(agent, async () => {
    answered = await pings(peer, '10.77.0.1');
  });
  t.match(
    [redirected, answered],
    [0, false],
    "nor another host's frames on a promiscuous interface",
  );
  workload.ip('link set eth0 promisc off');
  peer.ip('neigh del 10.77.0.1 dev eth0');
});

t.test('the engine rules by mode, heartbeat and verdicts', async (t) => {
  const agent = await Agent.start({}, SteeringMode.Pass);
  t.teardown(() => agent.end());
  const ping = () => pings(workload, '10.77.0.2');
  const ports = [5000, 6000] as const;
  const talk = () => echoes('udp', workload, peer, '10.77.0.2', ports);
  const flow: [number, number, number, number, number] = [local, remote, ...ports, UDP];

  t.match(await moved(agent, ping), { redirected: 0, passedMode: 4 }, 'mode pass');
  await agent.tell({ do: 'mode', mode: SteeringMode.Drop });
  t.notOk(await ping(), 'mode drop');
  t.ok((await agent.counters()).droppedMode.packets >= 2, 'is counted');
  await agent.tell({ do: 'mode', mode: SteeringMode.Redirect });

  await agent.tell({ do: 'remember', flow, verdict: KernelVerdict.Pass });
  t.match(await moved(agent, talk), { redirected: 0, passedVerdict: 2 }, 'remembered, both ways');
  await agent.tell({ do: 'forgetAll' });
  t.match(await moved(agent, talk), { redirected: 2, passedVerdict: 0 }, 'forgotten at once');
  await agent.tell({ do: 'remember', flow, verdict: KernelVerdict.Drop });
  t.match(await moved(agent, talk), { redirected: 0, droppedVerdict: 1 }, 'remembered to drop');

  await agent.tell({ do: 'remember', flow: [local, remote, ...ports, 6], verdict: 1 });
  const connect = () => echoes('tcp', workload, peer, '10.77.0.2', ports);
  t.match(
    await moved(agent, connect),
    { redirected: 1 },
    'a new connection is shown to the engine',
  );

  await agent.tell({ do: 'heartbeat', on: false });
  await pause(350);
  t.match(await moved(agent, ping), { redirected: 0, passedAgentDead: 4 }, 'a hung engine');
  await agent.tell({ do: 'heartbeat', on: true });
  await pause(20);
  t.match(await moved(agent, ping), { redirected: 4 }, 'and one that woke up');

  await agent.tell({ do: 'replace', policy: { ...basePolicy, onAgentFailure: 'drop' } });
  t.match(await moved(agent, ping), { redirected: 4 }, 'other programs, same mode');
  await agent.tell({ do: 'heartbeat', on: false });
  await pause(350);
  t.notOk(await ping(), 'a hung engine that must not let pass');
  t.ok((await agent.counters()).droppedAgentDead.packets >= 2);
  await agent.tell({ do: 'replace', policy: basePolicy });
  t.notOk(existsSync(pinDirectory), 'nothing is pinned any more');
  t.ok(await ping());

  await agent.tell({ do: 'heartbeat', on: true });
  await pause(20);
  await agent.tell({ do: 'closeTun' });
  t.notOk(await ping(), 'without the TUN device packets are lost, no more');
});

t.test('the bound of a failure', async (t) => {
  const agent = await Agent.start({ heartbeatTimeoutMs: 200 });
  t.teardown(() => agent.end());
  agent.child.kill('SIGSTOP');
  const stopped = performance.now();
  const { text } = await run(workload, 'ping', '-n', '-i', '0.01', '-c', '60', '10.77.0.2');
  agent.child.kill('SIGCONT');
  const first = Number(/icmp_seq=(\d+)/.exec(text)?.[1]);
  t.ok(first > 1 && first < 30, `the first answer is to ping ${first}, one every 10 ms`);
  t.ok(performance.now() - stopped < 3000);
});

t.test('IPv6 may be dropped', async (t) => {
  const agent = await Agent.start({ ipv6: 'pass' });
  t.teardown(() => agent.end());
  t.ok(await pings(workload, 'fd77::2'), 'passes');
  await agent.tell({ do: 'replace', policy: { ...basePolicy, ipv6: 'drop' } });
  t.notOk(await pings(workload, 'fd77::2'), 'is dropped on its way out');
  const { droppedIpv6 } = await moved(agent, () => pings(peer, 'fd77::1'));
  t.equal(droppedIpv6, 2, 'and on its way in');
  workload.ip('-6 neigh flush dev eth0');
  const linkLocal = /inet6 (fe80[^/]+)/.exec(peer.ip('-6 addr show dev eth0'))?.[1];
  t.ok(await pings(workload, `${linkLocal}%eth0`), 'link-local and its discovery go on');
  t.ok(await pings(workload, '10.77.0.2'), 'IPv4 is as before');
});

t.test('pinned links outlive a killed agent until the next takes over', async (t) => {
  const drop = { onAgentFailure: 'drop', management: [] } as const;
  const first = await Agent.start(drop);
  t.ok(await pings(workload, '10.77.0.2'));
  await first.end('SIGKILL');
  t.notOk(await pings(workload, '10.77.0.2'), 'traffic is dropped at once');
  await pause(350);
  t.notOk(await pings(workload, '10.77.0.2'), 'and later');

  const second = await Agent.start(drop);
  t.ok(await pings(workload, '10.77.0.2'), 'the next agent takes over');
  t.match(await second.tell({ do: 'hooks' }), [1, 1, 1], 'the old programs are gone');
  await second.end('SIGKILL');
  t.notOk(await pings(workload, '10.77.0.2'));

  const third = await Agent.start({});
  t.ok(await pings(workload, '10.77.0.2'), 'one that fails open takes over, too');
  t.match(await third.tell({ do: 'hooks' }), [1, 1, 1]);
  t.notOk(existsSync(pinDirectory), 'and leaves nothing pinned');
  await third.end('SIGKILL');
  t.ok(await pings(workload, '10.77.0.2'), 'traffic flows directly');

  await (await Agent.start(drop)).end('SIGKILL');
  t.notOk(await pings(workload, '10.77.0.2'));
  t.equal(releaseLeftovers(pinDirectory).length, 2, 'an operator removes them by hand');
  t.ok(await pings(workload, '10.77.0.2'));
  t.notOk(existsSync(pinDirectory));
});

t.test('nothing is left', async (t) => {
  for (const onAgentFailure of ['pass', 'drop'] as const) {
    const agent = await Agent.start({ onAgentFailure });
    t.match(await agent.tell({ do: 'hooks' }), [1, 1, 1], 'one program on each hook');
    t.ok(await pings(workload, '10.77.0.2'));
    await agent.tell({ do: 'detach' });
    t.match(await agent.tell({ do: 'hooks' }), [0, 0, 0], `none after detach (${onAgentFailure})`);
    t.notOk(existsSync(pinDirectory));
    t.notMatch(readFileSync('/proc/self/mountinfo', 'utf8'), pinDirectory, 'no mount');
    t.ok(await pings(workload, '10.77.0.2'), 'traffic flows directly');
    await agent.end();
  }
  const names = JSON.parse(workload.ip('-j link')).map((link: { ifname: string }) => link.ifname);
  t.match(names, ['lo', 'eth0', 'eth1'], 'interfaces');
});
