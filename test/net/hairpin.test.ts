/**
 * Traffic of every kind through the hair-pin, both ways, seen by tcpdump and tshark (needs root):
 *
 *     workload 10.1.0.10 - router - transit - firewall 10.9.0.4
 *                            |
 *                       server 10.2.0.20
 */
import t, { type Test } from 'tap';
import { addresses } from '../../lab/topology.ts';
import { ping, requestWeb, startWebServer } from '../../lab/traffic.ts';
import { type Hairpin, type HairpinOptions, shell, startHairpin } from '../support/hairpin.ts';

const { server, workload } = addresses;
const innerFields = ['ip.src', 'ip.dst', 'ip.proto'];

/** One exchange of each kind, opened from each side. */
async function talk({ topology }: Hairpin): Promise<Record<string, unknown>> {
  const hosts = [
    [topology.workload, topology.server, server],
    [topology.server, topology.workload, workload],
  ] as const;
  const heard: Record<string, unknown> = {};
  for (const [from, to, address] of hosts) {
    const way = from === topology.workload ? 'egress' : 'ingress';
    heard[`${way} ping`] = await ping(from, address, 3);
    heard[`${way} web`] = (await requestWeb(from, `http://${address}/`)).ok;
    const echo = to.spawn('timeout', ['5', 'socat', '-T2', 'UDP-LISTEN:7000', 'EXEC:cat']);
    const ended = new Promise((resolve) => echo.once('exit', resolve));
    await new Promise((resolve) => setTimeout(resolve, 300));
    heard[`${way} udp`] = await shell(from, `echo hello | socat -t1 - UDP:${address}:7000`);
    await ended;
  }
  return heard;
}

const everything = {
  'egress ping': 3,
  'egress web': true,
  'egress udp': 'hello',
  'ingress ping': 3,
  'ingress web': true,
  'ingress udp': 'hello',
};

async function passesThrough(t: Test, options: HairpinOptions): Promise<void> {
  const hairpin = await startHairpin(t, options);
  const { topology } = hairpin;
  const web = [
    await startWebServer(topology.server, 'server', server, [80]),
    await startWebServer(topology.workload, 'workload', workload, [80]),
  ];
  t.teardown(() => Promise.all(web.map((one) => one.stop())));
  const agent = await hairpin.startAgent();
  const atFirewall = await hairpin.capture(topology.firewall, 'firewall');
  const atServer = await hairpin.capture(topology.server, 'server');
  t.same(await talk(hairpin), everything);
  await atFirewall.stop();
  await atServer.stop();

  const tunnel = options.firewall === 'vxlan' ? 'vxlan' : 'geneve';
  const rows = await atFirewall.read(tunnel, innerFields);
  t.ok(rows.length > 40, `${rows.length} tunnel packets at the firewall`);
  const seen = new Set(rows.map((row) => row.map((field) => field.split(',').at(-1)).join(' ')));
  for (const protocol of [1, 6, 17]) {
    t.ok(seen.has(`${workload} ${server} ${protocol}`), `protocol ${protocol} out, seen`);
    t.ok(seen.has(`${server} ${workload} ${protocol}`), `protocol ${protocol} in, seen`);
  }
  const outer = new Set(
    rows.map(([source, target]) => `${source!.split(',')[0]} ${target!.split(',')[0]}`),
  );
  t.same([...outer].sort(), [
    `${workload} ${addresses.firewall}`,
    `${addresses.firewall} ${workload}`,
  ]);
  t.equal(await atFirewall.count('_ws.malformed'), 0, 'nothing malformed');
  const badSums =
    'ip.checksum.status == 0 || tcp.checksum.status == 0 || icmp.checksum.status == 0';
  t.same(await atFirewall.read(`${tunnel} && (${badSums})`, innerFields), [], 'inner checksums');
  t.equal(
    await atServer.count(`${tunnel} || ip.addr == ${addresses.firewall}`),
    0,
    'the server sees no tunnel',
  );

  const status = await agent.status();
  const lost = Object.entries(status!.counters).filter(
    ([name]) => !['redirected', 'reinjected', 'probe-answered'].includes(name),
  );
  t.same(lost, [], 'every packet was redirected or reinjected');
  t.equal(status!.counters.redirected!.packets, status!.counters.reinjected!.packets);
}

t.test('geneve and the built-in firewall', (t) => passesThrough(t, {}));

t.test('geneve with an inner Ethernet header', (t) =>
  passesThrough(t, {
    settings: {
      tunnel: {
        encapsulation: 'geneve',
        geneve: { inner: 'ethernet', optionClass: 0xfff1, optionType: 0x20 },
      },
    },
  }),
);

t.test("vxlan and the kernel's own device", (t) =>
  passesThrough(t, { firewall: 'vxlan', topology: { offloads: 'firewall-off' } }),
);

t.test('the firewall decides, in both directions', async (t) => {
  const hairpin = await startHairpin(t, {
    policy: 'deny:\n  - { host: evil.example }\n  - { path: /secret }\n',
  });
  const { topology } = hairpin;
  const web = [
    await startWebServer(topology.server, 'server', server, [80]),
    await startWebServer(topology.workload, 'workload', workload, [80]),
  ];
  t.teardown(() => Promise.all(web.map((one) => one.stop())));
  await hairpin.startAgent();
  const ask = async (way: 'egress' | 'ingress', path: string, hostHeader: string) => {
    const [from, address] =
      way === 'egress' ? [topology.workload, server] : [topology.server, workload];
    const { ok } = await requestWeb(from, `http://${address}${path}`, {
      hostHeader,
      limitMs: 1500,
    });
    return ok;
  };
  for (const way of ['egress', 'ingress'] as const) {
    t.equal(await ask(way, '/', 'good.example'), true, `${way}: allowed`);
    t.equal(await ask(way, '/', 'evil.example'), false, `${way}: blocked by host`);
    t.equal(await ask(way, '/secret', 'good.example'), false, `${way}: blocked by path`);
  }
});
