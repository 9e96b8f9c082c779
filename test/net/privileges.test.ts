/** The agent with nothing but the capabilities that its unit leaves it (needs root). */
import { readdirSync, readFileSync, statSync } from 'node:fs';
import t from 'tap';
import { agentCommand } from '../../lab/agent.ts';
import { addresses } from '../../lab/topology.ts';
import { shell, startHairpin } from '../support/hairpin.ts';

const { server } = addresses;
const unitFile = 'packaging/systemd/microperimeter.service';
const unit = readFileSync(unitFile, 'utf8');
const capabilities = /^CapabilityBoundingSet=(.*)$/m.exec(unit)![1]!;
const names = capabilities.split(' ').map((name) => name.replace('CAP_', '').toLowerCase());
/** By linux/capability.h. */
const bits: Readonly<Record<string, number>> = {
  net_admin: 12,
  net_raw: 13,
  sys_admin: 21,
  bpf: 39,
};
const maskOf = (some: readonly string[]) =>
  some.reduce((sum, name) => sum | (1n << BigInt(bits[name]!)), 0n);

t.test('redirects with three capabilities, and gains none', async (t) => {
  const set = names.map((name) => `+${name}`).join(',');
  const limits = [`--bounding-set=-all,${set}`, '--no-new-privs'];
  const hairpin = await startHairpin(t, { command: ['setpriv', ...limits, agentCommand] });
  const { workload } = hairpin.topology;
  const agent = await hairpin.startAgent();
  t.match(await shell(workload, `ping -n -c 3 -i 0.1 -W 1 ${server}`), '3 received');
  const has = readFileSync(`/proc/${agent.program.child.pid}/status`, 'utf8');
  const mask = maskOf(names);
  for (const kind of ['CapPrm', 'CapEff', 'CapBnd']) {
    const value = BigInt(`0x${new RegExp(`^${kind}:\\s*(\\w+)$`, 'm').exec(has)![1]}`);
    t.equal(value, mask, kind);
  }
  t.equal(statSync(agent.socketPath).mode & 0o777, 0o600, 'the control socket is its own');
  t.equal(await agent.program.stop(), 0);
});

t.test('as root it gives up all others by itself, in every thread', async (t) => {
  const hairpin = await startHairpin(t);
  const { workload } = hairpin.topology;
  const agent = await hairpin.startAgent();
  const { pid } = agent.program.child;
  t.match(await shell(workload, `ping -n -c 3 -i 0.1 -W 1 ${server}`), '3 received');
  const threads = readdirSync(`/proc/${pid}/task`);
  t.ok(threads.length > 5, `${threads.length} threads`);
  const held = new Set(
    threads.flatMap((thread) => {
      const text = readFileSync(`/proc/${pid}/task/${thread}/status`, 'utf8');
      return [...text.matchAll(/^Cap(?:Eff|Prm|Bnd):\s*(\w+)$/gm)].map(([, set]) =>
        BigInt(`0x${set}`),
      );
    }),
  );
  t.same([...held], [maskOf(names)]);
  t.match(readFileSync(`/proc/${pid}/status`, 'utf8'), /^NoNewPrivs:\t1$/m);
  const kept = hairpin.launchAgent;
  t.equal(await agent.program.stop(), 0);
  const pinning = kept({ policy: { onAgentFailure: 'drop' } });
  await pinning.reach('redirecting', 10_000);
  const status = readFileSync(`/proc/${pinning.program.child.pid}/status`, 'utf8');
  const effective = BigInt(`0x${/^CapEff:\s*(\w+)$/m.exec(status)![1]}`);
  t.equal(effective, maskOf([...names, 'sys_admin']), 'it mounts the place of its pins');
  t.equal(await pinning.program.stop(), 0);
});

t.test('three capabilities carry flows in the kernel, too', async (t) => {
  const hairpin = await startHairpin(t, { top: { acceleration: 'kernel' } });
  const agent = await hairpin.startAgent();
  t.match(await agent.status(), { acceleration: { by: 'kernel', reason: '' } });
  t.equal(await agent.program.stop(), 0);
});

t.test('it needs no system call that its unit forbids', async (t) => {
  const set = names.map((name) => `+${name}`).join(',');
  const limits = [`--bounding-set=-all,${set}`, '--no-new-privs'];
  const filter = ['/usr/bin/python3', 'test/net/under-seccomp.py', unitFile];
  const command = ['setpriv', ...limits, ...filter, agentCommand] as const;
  const hairpin = await startHairpin(t, { command: command as unknown as [string, ...string[]] });
  const { workload } = hairpin.topology;
  const agent = await hairpin.startAgent();
  t.match(await shell(workload, `ping -n -c 3 -i 0.1 -W 1 ${server}`), '3 received');
  const status = readFileSync(`/proc/${agent.program.child.pid}/status`, 'utf8');
  t.match(status, /^Seccomp:\t2$/m, 'a filter is in force');
  await shell(workload, `${agentCommand} reload --socket ${agent.socketPath}`);
  await shell(workload, `${agentCommand} flows --socket ${agent.socketPath}`);
  agent.program.signal('SIGHUP');
  t.match(await shell(workload, `ping -n -c 3 -i 0.1 -W 1 ${server}`), '3 received');
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
