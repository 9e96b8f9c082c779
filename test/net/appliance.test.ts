// Untimed: another test may run beside this one.
/**
 * An appliance that is made for a gateway load balancer and knows nothing of us
 * (gateway-appliance.py), behind the agent as a black box (needs root): headers come back as such
 * appliances return them, its health is asked as load balancers do, and nothing on the wire is
 * larger than its MTU although every packet has 68 or 72 bytes more.
 *
 *     workload - router - transit (load balancer) - appliance
 */
import { resolve } from 'node:path';
import t, { type Test } from 'tap';
import { startAgent } from '../../lab/agent.ts';
import { startCapture } from '../../lab/capture.ts';
import { createCertificates, createRunDirectory } from '../../lab/certificates.ts';
import { startProgram } from '../../lab/firewalls.ts';
import { pause, start, until } from '../../lab/program.ts';
import { addresses, createTopology } from '../../lab/topology.ts';
import { ping } from '../../lab/traffic.ts';
import { shell } from '../support/hairpin.ts';

const { firewall, server, workload } = addresses;
const appliance = resolve('test', 'net', 'gateway-appliance.py');

type Profile = {
  readonly encapsulation: 'gwlb' | 'gcp';
  readonly settings: object;
  readonly style: 'identical' | 'reversed';
  /** Bytes that the tunnel adds. */
  readonly overhead: number;
};

const profiles: readonly Profile[] = [
  {
    encapsulation: 'gwlb',
    settings: { gwlb: { endpointId: '0x0123456789abcdef', attachmentId: '0xfedcba9876543210' } },
    style: 'identical',
    overhead: 68,
  },
  {
    encapsulation: 'gcp',
    settings: { gcp: { endpointId: '00112233445566778899aabb', profileId: 7 } },
    style: 'reversed',
    overhead: 72,
  },
];

async function carries(t: Test, profile: Profile): Promise<void> {
  const { encapsulation, overhead, settings, style } = profile;
  const directory = createRunDirectory();
  const certificates = createCertificates(directory, 'firewall', firewall);
  const topology = createTopology({ offloads: 'none' });
  t.teardown(() => topology.remove());
  topology.transit.must('nft', [
    'add table ip lab; ' +
      'add chain ip lab arrived { type filter hook prerouting priority -300; }; ' +
      'add rule ip lab arrived udp dport 6081 ip ttl 2 ip ttl set 64',
  ]);
  // Takes telemetry and has no part in the tunnel.
  const options = { encapsulation, certificates, directory };
  const telemetry = await startProgram('builtin', topology.firewall, options, ['--no-data-path']);
  t.teardown(() => telemetry.stop());
  const box = start(topology.firewall, 'python3', [appliance, firewall, style]);
  t.teardown(() => box.stop());
  await until('the appliance is ready', 5_000, async () => box.output.includes('ready'));
  const agent = startAgent(topology.workload, {
    directory,
    ca: certificates.ca,
    firewall,
    encapsulation,
    settings: {
      tunnel: { encapsulation, ...settings },
      ha: { probe: { kind: 'http', port: 8080, path: '/health', interval: '500ms', failures: 6 } },
    },
    top: {},
    environment: {},
  });
  t.teardown(() => agent.program.stop());
  await agent.reach('redirecting', 10_000);
  const capture = await startCapture(topology.firewall, directory, 'appliance');
  t.equal(await ping(topology.workload, server, 3), 3);
  const random = `openssl enc -aes-128-ctr -nosalt -K ${'5'.repeat(32)} -iv ${'0'.repeat(32)}`;
  for (const [way, from, to, address] of [
    ['out', topology.workload, topology.server, server],
    ['in', topology.server, topology.workload, workload],
  ] as const) {
    const received = shell(to, 'timeout 30 socat -u TCP-LISTEN:9000,reuseaddr - | sha256sum');
    const source = `head -c 3M /dev/zero | ${random}`;
    const target = `TCP:${address}:9000,retry=50,interval=0.1`;
    await shell(from, `${source} | timeout 30 socat -u - ${target}`);
    const expected = await shell(from, `${source} | sha256sum`);
    t.equal(await received, expected, `3 MB ${way}`);
  }
  await pause(300);
  await capture.stop();
  // Outer and inner, separated by a comma.
  const rows = (await capture.read('geneve', ['ip.len'])).map(([lengths = '']) =>
    lengths.split(',').map(Number),
  );
  const outer = Math.max(...rows.map(([length = 0]) => length));
  const inner = Math.max(...rows.map(([, length = 0]) => length));
  t.equal(outer, 1500, 'the largest packet on the wire fills it');
  t.equal(inner, 1500 - overhead, 'and has as much less in it');
  t.equal(await capture.count('_ws.malformed'), 0);
  const status = (await agent.status())!;
  t.match(status, { innerMtu: 1500 - overhead, state: 'redirecting' });
  const { redirected, reinjected, ...others } = status.counters;
  t.same(others, {}, 'every packet came back and was good');
  t.equal(reinjected!.packets, redirected!.packets);

  await box.stop();
  await until('an appliance without an answer is not used', 10_000, async () => {
    const { firewalls } = (await agent.status()) as unknown as { firewalls: { why: string }[] };
    return firewalls[0]!.why === 'it does not answer the http probe on port 8080';
  });
  t.equal(await ping(topology.workload, server, 2), 2, 'policy.onFirewallDown: pass');
}

for (const profile of profiles) t.test(profile.encapsulation, (t) => carries(t, profile));
