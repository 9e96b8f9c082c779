// Untimed: another test may run beside this one.
/**
 * The profiles of gateway load balancers through the built-in firewall, which returns their headers
 * as they came; with `gateway` it also answers as such an appliance does (needs root): ports kept,
 * TTL 2, no checksum, so that the kernel joins nothing on receipt. TTL 2 is meant for a neighbour:
 * the transit router plays the load balancer, which sends on with a TTL of its own.
 *
 *     workload - router - transit (load balancer) - firewall
 */
import t, { type Test } from 'tap';
import type { Agent } from '../../lab/agent.ts';
import type { Encapsulation } from '../../lab/firewalls.ts';
import type { Namespace } from '../../lab/namespace.ts';
import { until } from '../../lab/program.ts';
import { addresses } from '../../lab/topology.ts';
import { ping } from '../../lab/traffic.ts';
import { type Hairpin, shell, startHairpin } from '../support/hairpin.ts';

const { firewall, server, workload } = addresses;
const megabytes = 64;

const settings = {
  gwlb: { gwlb: { endpointId: '0x0123456789abcdef', attachmentId: '0xfedcba9876543210' } },
  gcp: { gcp: { endpointId: '00112233445566778899aabb', profileId: 7 } },
};
/** On a path of 1500 bytes: 20 + 8 + 8 and 32 or 36 of options. */
const innerMtus = { gwlb: 1432, gcp: 1428 };

function becomeLoadBalancer(host: Namespace): void {
  host.must('nft', [
    'add table ip lab; ' +
      'add chain ip lab arrived { type filter hook prerouting priority -300; }; ' +
      'add rule ip lab arrived udp dport 6081 ip ttl 2 ip ttl set 64',
  ]);
}

async function transfers(t: Test, { topology }: Hairpin): Promise<void> {
  const source =
    `head -c ${megabytes}M /dev/zero | ` +
    `openssl enc -aes-128-ctr -nosalt -K ${'5'.repeat(32)} -iv ${'0'.repeat(32)}`;
  const expected = await shell(topology.server, `${source} | sha256sum`);
  const ways = [
    ['out', topology.workload, topology.server, server],
    ['in', topology.server, topology.workload, workload],
  ] as const;
  for (const [way, from, to, address] of ways) {
    const received = shell(to, 'socat -u TCP-LISTEN:9000,reuseaddr - | sha256sum');
    await shell(from, `${source} | socat -u - TCP:${address}:9000,retry=50,interval=0.1`);
    t.equal(await received, expected, `${megabytes} MB ${way}`);
  }
}

/** The counters are published a few times a second: they are asked until they agree. */
async function nothingLost(t: Test, agent: Agent): Promise<void> {
  let others: object = {};
  await until('as many packets came back as went', 3000, async () => {
    const { redirected, reinjected, ...rest } = (await agent.status())!.counters;
    others = rest;
    return redirected!.packets === reinjected!.packets && reinjected!.bytes > 2 * megabytes * 1e6;
  });
  t.same(others, {}, 'every packet was redirected or reinjected');
}

type Answer = 'plain' | 'gateway';

async function carries(t: Test, encapsulation: 'gwlb' | 'gcp', answer: Answer): Promise<void> {
  const tunnel = {
    encapsulation: encapsulation satisfies Encapsulation,
    ...settings[encapsulation],
  };
  const hairpin = await startHairpin(t, { encapsulation, answer, settings: { tunnel } });
  const { topology } = hairpin;
  if (answer === 'gateway') becomeLoadBalancer(topology.transit);
  const agent = await hairpin.startAgent();
  t.equal((await agent.status())!.innerMtu, innerMtus[encapsulation]);

  const capture = await hairpin.capture(topology.firewall, 'profile');
  t.equal(await ping(topology.workload, server, 2), 2);
  await capture.stop();
  const fields = ['udp.srcport', 'udp.checksum', 'ip.ttl', 'ip.flags.df', 'geneve.options'];
  const first = (rows: string[][]) => rows.map((row) => row.map((field) => field.split(',')[0]!));
  const sent = first(await capture.read(`geneve && ip.dst == ${firewall}`, fields));
  const came = first(await capture.read(`geneve && ip.src == ${firewall}`, fields));
  const options = (rows: string[][]) => rows.map((row) => row[4]).sort();
  t.ok(sent.length >= 4, `${sent.length} sent`);
  t.same(options(came), options(sent), 'the options came back as they went');
  t.equal(await capture.count('_ws.malformed'), 0, 'nothing malformed');
  if (answer === 'gateway') {
    const ports = (rows: string[][]) => rows.map(([port]) => port).sort();
    t.same(ports(came), ports(sent), "from the agent's own ports");
    t.notOk(ports(sent).includes('6081'));
    t.same(new Set(came.map((row) => row.slice(1, 4).join(' '))), new Set(['0x0000 2 0']));
  }

  await transfers(t, hairpin);
  await nothingLost(t, agent);
}

for (const encapsulation of ['gwlb', 'gcp'] as const) {
  t.test(encapsulation, (t) => carries(t, encapsulation, 'plain'));
  t.test(`${encapsulation}, answered as by an appliance`, (t) =>
    carries(t, encapsulation, 'gateway'),
  );
}
