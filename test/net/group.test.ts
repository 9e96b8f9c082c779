// Untimed: another test may run beside this one.
/** Two protected hosts and one firewall between them: inspected once (needs root). */
import t, { type Test } from 'tap';
import { type Agent, agentCommand, startAgent } from '../../lab/agent.ts';
import { createRunDirectory } from '../../lab/certificates.ts';
import { pause } from '../../lab/program.ts';
import { addresses } from '../../lab/topology.ts';
import { shell, startHairpin } from '../support/hairpin.ts';

const { server, workload: client } = addresses;
const members = ['10.1.0.0/24', `${server}/32`];

async function startBoth(t: Test, intraGroup: string) {
  const workload = { interfaces: ['eth0'], group: { members, intraGroup } };
  const hairpin = await startHairpin(t, { settings: { workload } });
  const near = await hairpin.startAgent();
  const far = startAgent(hairpin.topology.server, {
    directory: createRunDirectory(),
    ca: hairpin.certificates.ca,
    firewall: addresses.firewall,
    encapsulation: 'geneve',
    settings: { workload },
  });
  t.teardown(() => far.program.stop());
  await far.reach('redirecting', 10_000);
  return { hairpin, near, far };
}

async function count(agent: Agent, reason: string): Promise<number> {
  await pause(250);
  return (await agent.status())!.counters[reason]?.packets ?? 0;
}

for (const intraGroup of ['source', 'destination']) {
  t.test(`intraGroup: ${intraGroup}`, async (t) => {
    const { far, hairpin, near } = await startBoth(t, intraGroup);
    const [redirects, passes] = intraGroup === 'source' ? [near, far] : [far, near];
    const { server: outside, workload } = hairpin.topology;
    t.match(await shell(workload, `ping -n -c 5 -i 0.1 -W 1 ${server}`), '5 received');
    t.equal(await count(redirects, 'reinjected'), 10, 'by one agent, both ways');
    t.equal(await count(passes, 'reinjected'), 0);
    t.ok((await count(passes, 'passed-group')) > 0, 'the other says why');

    const listening = shell(outside, 'timeout 5 socat -u TCP-LISTEN:9000,reuseaddr - | wc -c');
    await pause(300);
    await shell(workload, `head -c 500000 /dev/zero | socat -u - TCP:${server}:9000`);
    t.equal(await listening, '500000');
    t.equal(await count(passes, 'reinjected'), 0, 'TCP as well');

    // Opened by the other end, the other agent redirects.
    const before = await count(redirects, 'reinjected');
    t.match(await shell(outside, `ping -n -c 5 -i 0.1 -W 1 ${client}`), '5 received');
    t.equal(await count(passes, 'reinjected'), 10);
    t.equal(await count(redirects, 'reinjected'), before);
  });
}

t.test('a firewall that forwards by its own routes is named', async (t) => {
  const hairpin = await startHairpin(t, {
    firewall: 'vxlan',
    topology: { offloads: 'firewall-off' },
  });
  const { firewall, server: outside } = hairpin.topology;
  const agent = await hairpin.startAgent();
  t.match(await shell(outside, `ping -n -c 2 -i 0.1 -W 1 ${client}`), '2 received');
  t.equal(await count(agent, 'packet-looped'), 0);
  // What comes out of the tunnel is routed like anything else, and so meets the agent again.
  firewall.ip('rule del iif vx0 lookup 100');
  await shell(outside, `ping -n -c 4 -i 0.2 -W 0.3 ${client}; true`);
  t.ok((await count(agent, 'packet-looped')) >= 4);
  const screen = await shell(
    hairpin.topology.workload,
    `${agentCommand} status --socket ${agent.socketPath} || true`,
  );
  const words = 'the firewall forwards by its own routes what it should return by the tunnel';
  t.match(screen.replace(/\s+/g, ' '), words);
  firewall.ip('rule add iif vx0 lookup 100');
  t.match(await shell(outside, `ping -n -c 2 -i 0.1 -W 1 ${client}`), '2 received');
});
