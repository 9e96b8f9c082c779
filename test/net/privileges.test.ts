// Untimed: another test may run beside this one.
/** The agent with nothing but the capabilities that its unit leaves it (needs root). */
import { readFileSync, statSync } from 'node:fs';
import t from 'tap';
import { agentCommand } from '../../lab/agent.ts';
import { addresses } from '../../lab/topology.ts';
import { shell, startHairpin } from '../support/hairpin.ts';

const { server } = addresses;
const unit = readFileSync('packaging/systemd/microperimeter.service', 'utf8');
const capabilities = /^CapabilityBoundingSet=(.*)$/m.exec(unit)![1]!;
const names = capabilities.split(' ').map((name) => name.replace('CAP_', '').toLowerCase());
/** By linux/capability.h. */
const bits: Readonly<Record<string, number>> = { net_admin: 12, net_raw: 13, bpf: 39 };

t.test('redirects with three capabilities, and gains none', async (t) => {
  const set = names.map((name) => `+${name}`).join(',');
  const limits = [`--bounding-set=-all,${set}`, '--no-new-privs'];
  const hairpin = await startHairpin(t, { command: ['setpriv', ...limits, agentCommand] });
  const { workload } = hairpin.topology;
  const agent = await hairpin.startAgent();
  t.match(await shell(workload, `ping -n -c 3 -i 0.1 -W 1 ${server}`), '3 received');
  const has = readFileSync(`/proc/${agent.program.child.pid}/status`, 'utf8');
  const mask = names.reduce((sum, name) => sum | (1n << BigInt(bits[name]!)), 0n);
  for (const kind of ['CapPrm', 'CapEff', 'CapBnd']) {
    const value = BigInt(`0x${new RegExp(`^${kind}:\\s*(\\w+)$`, 'm').exec(has)![1]}`);
    t.equal(value, mask, kind);
  }
  t.equal(statSync(agent.socketPath).mode & 0o777, 0o600, 'the control socket is its own');
  t.equal(await agent.program.stop(), 0);
});

t.test('keys are in no answer and no line of the log', async (t) => {
  const hairpin = await startHairpin(t, {
    settings: { log: { format: 'json', level: 'debug' } },
  });
  const agent = await hairpin.startAgent();
  const key = readFileSync(`${hairpin.directory}/firewall.key`, 'utf8').split('\n')[1]!;
  const said = `${JSON.stringify(await agent.status())}${agent.program.output}`;
  t.ok(key.length > 20);
  t.notOk(said.includes(key));
  t.notMatch(said, /PRIVATE KEY/);
});
