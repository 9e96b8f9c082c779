/**
 * Established flows carried by the kernel, through two kinds of firewall (needs root): what is on
 * the wire, what is counted, who is busy, and what it does not carry.
 */
import { readFileSync } from 'node:fs';
import t, { type Test } from 'tap';
import type { Agent, AgentStatus } from '../../lab/agent.ts';
import { pause, run, until } from '../../lab/program.ts';
import { addresses } from '../../lab/topology.ts';
import { requestWeb, startIperfServer, startWebServer } from '../../lab/traffic.ts';
import { type Hairpin, type HairpinOptions, shell, startHairpin } from '../support/hairpin.ts';

const { server, workload } = addresses;
/** Of a size and at a rate that tcpdump keeps up with. */
const transferBytes = 8_000_000;
const gently = ['-b', '100M', '-n', String(transferBytes)];

/** Carries when the firewall's link has wire-sized packets: see lab/topology.ts. */
const carried = {
  topology: { offloads: 'firewall-off' },
  top: { acceleration: 'kernel' },
} as const satisfies HairpinOptions;

/** Seconds of processor that the agent has used (proc_pid_stat(5); ticks of 10 ms). */
function processorSeconds(agent: Agent): number {
  const fields = readFileSync(`/proc/${agent.program.pid}/stat`, 'utf8').split(') ')[1]!.split(' ');
  return (Number(fields[11]) + Number(fields[12])) / 100;
}

/** A few of the agent's ticks later, when everything carried has been collected. */
async function settled(agent: Agent): Promise<AgentStatus> {
  await pause(400);
  return (await agent.status())!;
}

function dropped({ counters }: AgentStatus): string[] {
  const rows = Object.entries(counters) as unknown as [string, { kind: string }][];
  return rows.filter(([, { kind }]) => kind === 'dropped').map(([name]) => name);
}

/** Bytes that arrived. */
async function transfer({ topology }: Hairpin, ...args: string[]): Promise<number> {
  const result = await run(topology.workload, 'iperf3', ['-c', server, '-J', ...args]);
  return JSON.parse(result.output).end.sum_received.bytes;
}

async function carries(t: Test, options: HairpinOptions): Promise<void> {
  const hairpin = await startHairpin(t, { ...carried, ...options });
  const { topology } = hairpin;
  const iperf = await startIperfServer(topology.server);
  t.teardown(() => iperf.stop());
  const agent = await hairpin.startAgent();
  t.match(await agent.status(), { acceleration: { by: 'kernel', reason: '' } });

  const atFirewall = await hairpin.capture(topology.firewall, 'firewall', {
    filter: 'udp',
    interface: 'eth0',
  });
  const sizes = [await transfer(hairpin, ...gently), await transfer(hairpin, ...gently, '-R')];
  await atFirewall.stop();
  // A sender's last packets may not count at its receiver.
  for (const bytes of sizes) t.ok(bytes > 0.9 * transferBytes, `${bytes} bytes`);
  const tunnel = '(geneve || vxlan)';
  const seen = await atFirewall.count(tunnel);
  t.ok(seen > 10_000, `${seen} packets in the tunnel, or more`);
  const faults = [
    'frame.len > 1514',
    'ip.flags.mf == 1 || ip.frag_offset > 0',
    '_ws.malformed',
    'ip.checksum.status == 0 || tcp.checksum.status == 0',
  ];
  const wrong = await atFirewall.read(`(${faults.join(') || (')})`, [
    'frame.number',
    'frame.len',
    'ip.src',
    'ip.len',
    'ip.checksum.status',
    'tcp.checksum.status',
    '_ws.expert.message',
  ]);
  // A sum of 0 is written as 0xffff by the kernel (CSUM_MANGLED_0), which is as right.
  const really = wrong.filter((row) => !row.at(-1)!.includes('0xffff instead of 0x0000'));
  t.same(really.slice(0, 5), [], 'and nothing wrong with them');

  const status = await settled(agent);
  const { redirected, reinjected } = status.counters;
  t.same(dropped(status), [], 'the agent dropped nothing');
  t.ok(redirected!.bytes > 1.9 * transferBytes, 'what was carried counts as redirected');
  t.ok(redirected!.packets >= reinjected!.packets);
  t.ok(status.kernel.carriedOut!.bytes > 1.9 * transferBytes, 'nearly all by the kernel');
  t.ok(status.kernel.carriedBack!.bytes > 1.9 * transferBytes);

  const before = processorSeconds(agent);
  await transfer(hairpin, '-t', '3');
  const share = (processorSeconds(agent) - before) / 3;
  t.ok(share < 0.1, `the agent uses ${share.toFixed(3)} of a processor meanwhile`);
}

t.test('geneve and the built-in firewall', (t) => carries(t, {}));

t.test("vxlan and the kernel's own device", (t) => carries(t, { firewall: 'vxlan' }));

t.test('geneve with an inner Ethernet header', (t) =>
  carries(t, {
    settings: { tunnel: { encapsulation: 'geneve', geneve: { inner: 'ethernet' } } },
  }),
);

t.test('each profile, both ways, and connections that end', async (t) => {
  for (const encapsulation of ['geneve', 'gwlb', 'gcp'] as const) {
    const hairpin = await startHairpin(t, { ...carried, encapsulation });
    const { topology } = hairpin;
    const web = [
      await startWebServer(topology.server, 'server', server, [80]),
      await startWebServer(topology.workload, 'workload', workload, [80]),
    ];
    const agent = await hairpin.startAgent();
    for (const [from, address] of [
      [topology.workload, server],
      [topology.server, workload],
    ] as const) {
      for (let i = 0; i < 5; i++) t.ok((await requestWeb(from, `http://${address}/`)).ok);
    }
    const status = await settled(agent);
    const { redirected, reinjected } = status.counters;
    t.same(dropped(status), [], encapsulation);
    t.equal(redirected!.packets, reinjected!.packets, 'sent is delivered');
    t.equal(redirected!.bytes, reinjected!.bytes);
    t.ok(status.kernel.carriedOut!.packets > 0 && status.kernel.carriedBack!.packets > 0);
    const list = ['flows', '--json', '--socket', agent.socketPath];
    const { output } = await run(topology.workload, 'bin/microperimeter', list);
    const flows = JSON.parse(output).flows as { remotePort: number; state: string; by: string }[];
    const ended = flows.filter(({ state }) => state === 'closed');
    t.equal(ended.length, 10, 'the engine has seen every connection end');
    t.ok(ended.some(({ by }) => by === 'kernel'));
    await Promise.all(web.map((one) => one.stop()));
    await agent.program.stop();
    await hairpin.firewall.stop();
    topology.remove();
  }
});

t.test('what the tunnel does not carry whole', async (t) => {
  const hairpin = await startHairpin(t, carried);
  const { topology } = hairpin;
  const agent = await hairpin.startAgent();
  const echo = topology.server.spawn('socat', ['-T1', 'UDP-LISTEN:7000,fork', 'EXEC:cat']);
  t.teardown(() => void echo.kill());
  await pause(300);
  const script = `
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(socket.IPPROTO_IP, 10, 0)
s.settimeout(1)
s.connect(("${server}", 7000))
def exchange(size):
  s.send(bytes(size))
  try: return len(s.recv(4000))
  except TimeoutError: return 0
for size in [10] * 20 + [1424, 1425, 1472, 3000, 10, 1424]:
  # The server has to learn first that the tunnel is narrower than its own path.
  assert exchange(size) == size or exchange(size) == size, size
print("fine")
`;
  t.equal(await shell(topology.workload, `python3 -c '${script}'`), 'fine');
  const status = await settled(agent);
  t.ok(status.kernel.carriedOut!.packets > 20, 'small ones by the kernel');
  t.same(dropped(status), ['too-big'], 'but that');
});

/** A connection that is carried, a second after its beginning. */
async function startSending(t: Test, seconds: number) {
  const hairpin = await startHairpin(t, carried);
  const iperf = await startIperfServer(hairpin.topology.server);
  t.teardown(() => iperf.stop());
  const agent = await hairpin.startAgent();
  const sending = transfer(hairpin, '-b', '20M', '-t', String(seconds));
  await pause(1000);
  return { agent, hairpin, sending };
}

t.test(
  'when our address towards the firewall changes, flows are carried from the new one',
  async (t) => {
    const { agent, hairpin, sending } = await startSending(t, 8);
    const { topology } = hairpin;
    t.ok((await settled(agent)).kernel.carriedOut!.packets > 200);
    topology.workload.ip('addr add 10.1.0.77/24 dev eth0');
    topology.workload.ip('route change default via 10.1.0.1 src 10.1.0.77');
    await until('it says so', 5000, () => agent.program.output.includes('flows again'));
    const before = await settled(agent);
    t.match(before, { acceleration: { by: 'kernel', reason: '' } });
    const from = (address: string) =>
      hairpin.capture(topology.firewall, address, { filter: `udp and src host ${address}` });
    const [former, latter] = [await from(workload), await from('10.1.0.77')];
    await pause(1000);
    await Promise.all([former.stop(), latter.stop()]);
    const after = await settled(agent);
    t.ok(after.kernel.carriedOut!.packets > before.kernel.carriedOut!.packets + 500);
    t.ok((await latter.count('geneve')) > 500);
    t.equal(await former.count('geneve'), 0);
    t.ok((await sending) > 15_000_000, 'the connection lives on');
    t.same(dropped(await settled(agent)), []);
  },
);

t.test('a capture sees what the kernel would carry', async (t) => {
  const { agent, hairpin, sending } = await startSending(t, 6);
  const { topology } = hairpin;
  const file = `${hairpin.directory}/seen.pcapng`;
  const words = ['--socket', agent.socketPath, '-w', file, '--duration', '2s'];
  const filter = ['--filter', 'tcp port 5201'];
  await run(topology.workload, 'bin/microperimeter', ['capture', ...words, ...filter]);
  const rows = await shell(topology.workload, `tshark -r ${file} 2>/dev/null | wc -l`);
  t.ok(Number(rows) > 200, `${rows} packets`);
  const before = (await settled(agent)).kernel.carriedOut!.packets;
  await pause(500);
  t.ok((await settled(agent)).kernel.carriedOut!.packets > before, 'carried again afterwards');
  t.ok((await sending) > 10_000_000);
  t.same(dropped(await settled(agent)), []);
});

t.test('on veth it has to be asked for; off is off', async (t) => {
  const hairpin = await startHairpin(t, { topology: carried.topology });
  const auto = await hairpin.startAgent();
  t.match(await auto.status(), { acceleration: { by: 'agent', reason: /is a veth/ } });
  await auto.program.stop();
  const agent = hairpin.launchAgent({}, { acceleration: 'off' });
  await agent.reach('redirecting', 10_000);
  t.match(await agent.status(), { acceleration: { by: 'agent', reason: '' } });
  const iperf = await startIperfServer(hairpin.topology.server);
  t.teardown(() => iperf.stop());
  await transfer(hairpin, '-n', '1M');
  t.match((await settled(agent)).kernel, { carriedOut: { packets: 0 } });
});
