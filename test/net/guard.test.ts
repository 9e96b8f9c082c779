/** The boot guard: what it drops, what passes it, how an agent takes over (needs root). */
import t, { type Test } from 'tap';
import { pinDirectory } from '../../cli/host-policy.ts';
import { compareHostStates, readHostState } from '../../lab/host-state.ts';
import type { Namespace } from '../../lab/namespace.ts';
import { pause, until } from '../../lab/program.ts';
import { addresses } from '../../lab/topology.ts';
import { clsact } from '../../linux/bpf/clsact.ts';
import { armGuard } from '../../linux/bpf/guard.ts';
import { hasTcx } from '../../linux/bpf/tcx-link.ts';
import { insideNamespace } from '../../linux/namespace.ts';
import { interfaceByName } from '../../linux/netlink.ts';
import { parseAddress } from '../../parsers/text.ts';
import { type Hairpin, type HairpinOptions, shell, startHairpin } from '../support/hairpin.ts';

const { firewall, router: gateway, server } = addresses;
const policy = { onBoot: 'drop', onTelemetryLoss: 'pass', onAgentFailure: 'pass' };
const workloadSection = {
  interfaces: ['eth0'],
  management: ['10.8.0.1/32', 'tcp:10.1.0.1/32:22'],
  ipv6: 'drop',
};
const settings = { policy, workload: workloadSection };
const command = `${process.cwd()}/bin/microperimeter`;

/** A lab whose workload has a configuration file, and no agent. */
async function start(t: Test, options: HairpinOptions = {}) {
  const hairpin = await startHairpin(t, { settings, ...options });
  // Writes the file; what it starts is none of ours yet.
  const agent = hairpin.launchAgent();
  agent.program.signal('SIGKILL');
  await agent.program.ended;
  const { workload } = hairpin.topology;
  const guard = (words: string) => shell(workload, `${command} guard ${words}`);
  t.teardown(() => shell(workload, `${command} guard disarm; ${command} release; true`));
  return { hairpin, workload, guard, config: agent.configPath };
}

const pings = async (host: Namespace, target: string): Promise<boolean> =>
  / [1-9]\d* received/.test(await shell(host, `ping -n -c 2 -i 0.1 -W 0.5 ${target}; true`));

/** A datagram of `from` to `target`; whether it is seen on the router's side of the link. */
async function crosses(hairpin: Hairpin, filter: string, send: string): Promise<boolean> {
  const { router, workload } = hairpin.topology;
  const seen = shell(router, `timeout 2 tcpdump -n -c 1 -i workload '${filter}' 2>/dev/null; true`);
  await pause(700);
  await shell(workload, `${send}; true`);
  return (await seen) !== '';
}

async function judge(t: Test, hairpin: Hairpin): Promise<void> {
  const { router, server: outside, workload } = hairpin.topology;
  t.notOk(await pings(workload, server), 'nothing out');
  t.notOk(await pings(outside, addresses.workload), 'nothing in');
  t.match(await shell(workload, `ip neigh show ${gateway}`), 'lladdr', 'ARP');
  t.ok(await pings(workload, '10.8.0.1'), 'a management exception');
  const udp = (port: number, from = '') =>
    `echo x | timeout 1 socat -u - UDP-SENDTO:${gateway}:${port}${from}`;
  t.ok(await crosses(hairpin, 'udp port 67', udp(67, ',sourceport=68')), 'DHCP');
  t.notOk(await crosses(hairpin, 'udp port 67', udp(67)), 'from a port that is not its own');
  const tunnel = `echo x | timeout 1 socat -u - UDP-SENDTO:${firewall}:6081`;
  t.ok(await crosses(hairpin, 'udp port 6081', tunnel), 'the tunnel');
  await shell(workload, `timeout 2 socat -u OPEN:/dev/null TCP:${firewall}:443`);
  t.pass('telemetry');
  const listener = shell(workload, 'timeout 3 socat -u TCP-LISTEN:22,reuseaddr -');
  await pause(300);
  await shell(router, `echo let me in | socat -u - TCP:${addresses.workload}:22`);
  t.equal(await listener, 'let me in', 'the administrator');
  t.match(await shell(workload, 'ping -n -c 1 -W 1 127.0.0.1'), '1 received', 'loopback');
}

t.test('armed it drops all but what a host needs, disarmed nothing is left', async (t) => {
  const { config, guard, hairpin, workload } = await start(t);
  const before = readHostState(workload);
  t.match(await guard('status'), 'not armed');
  t.match(await guard(`arm --config ${config}`), 'armed: eth0');
  t.match(await guard(`arm --config ${config}`), 'armed: eth0', 'again');
  t.equal(await guard('status'), 'armed: eth0 egress, eth0 ingress', 'once on each hook');
  await judge(t, hairpin);
  t.match(await shell(workload, `${command} release`), /nothing was held\n.*guard disarm/);
  t.match(await guard('disarm'), /^disarmed/);
  t.same(compareHostStates(before, readHostState(workload)), [], 'the host is as before');
  t.ok(await pings(workload, server));
});

t.test('IPv6 as workload.ipv6 has it', async (t) => {
  const { config, guard, hairpin, workload } = await start(t);
  const { router } = hairpin.topology;
  workload.ip('-6 addr add fd01::10/64 dev eth0 nodad');
  router.ip('-6 addr add fd01::1/64 dev workload nodad');
  t.ok(await pings(workload, 'fd01::1'));
  await guard(`arm --config ${config}`);
  t.notOk(await pings(workload, 'fd01::1'), 'dropped');
  const local = /inet6 (fe80::\S+)\//.exec(router.ip('-6 addr show dev workload'))?.[1];
  t.ok(await pings(workload, `${local}%eth0`), 'link-local');
});

t.test('by clsact', { skip: !hasTcx() && 'the others are by clsact here' }, async (t) => {
  const { guard, hairpin, workload } = await start(t);
  const before = readHostState(workload);
  insideNamespace(workload.path, () =>
    armGuard(
      {
        interfaces: [interfaceByName('eth0')],
        firewalls: [{ address: parseAddress(firewall)!, port: 6081 }],
        tunnelPort: 6081,
        returnFrom: [],
        telemetry: [{ address: parseAddress(firewall)!, port: 443 }],
        management: [],
        broadcasts: [],
        ipv6: 'pass',
        pinDirectory,
      },
      clsact,
    ),
  );
  t.equal(await guard('status'), 'armed: eth0 egress, eth0 ingress');
  t.notOk(await pings(workload, server));
  const agent = await hairpin.startAgent();
  t.equal(await guard('status'), 'not armed', 'an agent releases it, too');
  t.ok(await pings(workload, server));
  t.equal(await agent.program.stop(), 0);
  t.same(compareHostStates(before, readHostState(workload)), [], 'and the qdisc is gone');
});

t.test('interfaces that are not there yet', async (t) => {
  const { config, guard, workload } = await start(t);
  workload.ip('link set eth0 name later');
  t.match(await guard(`arm --config ${config} 2>&1; echo $?`), /not there: eth0\n.*\n5$/s);
  const armed = guard(`arm --config ${config} --wait 10s`);
  await pause(1500);
  workload.ip('link set later name eth0');
  t.match(await armed, 'armed: eth0');
});

t.test('an agent takes over: nothing passes but what it redirects', async (t) => {
  const { config, guard, hairpin, workload } = await start(t);
  await guard(`arm --config ${config}`);
  await hairpin.firewall.command('telemetry refuse');
  const log = shell(workload, `ping -n -D -i 0.01 -w 14 ${server}; true`);
  const agent = hairpin.launchAgent({
    telemetry: { interval: '500ms', timeout: '300ms', retries: 2, startupGrace: '1s' },
  });
  await agent.reach('closed', 8000);
  await pause(1000);
  t.match(await guard('status'), 'armed:', 'telemetry is refused: it holds, past the grace');
  t.match(await guard(`arm --config ${config} 2>&1; true`), /an agent is running/);
  agent.program.signal('SIGKILL');
  await agent.program.ended;
  await pause(500);
  t.match(await guard('status'), 'armed:', 'and outlives the agent');
  await hairpin.firewall.command('telemetry ok');
  const next = await hairpin.startAgent();
  await until('the guard is gone', 2000, async () => (await guard('status')) === 'not armed');
  const status = (await next.status())!;
  t.ok(await pings(workload, server), 'redirected');
  const answers = [...(await log).matchAll(/icmp_seq/g)].length;
  // Counters are published ten times a second.
  await pause(250);
  const after = (await next.status())!;
  t.ok(answers > 50, `${answers} answers`);
  t.same(status.kernel.passedMode!.packets, 0, 'none by mode pass');
  t.same(status.kernel.passedAgentDead!.packets, 0, 'none without the engine');
  t.notOk(after.counters['passed-gate-closed'], 'none by the engine');
  const inspected = after.counters.reinjected!.packets;
  t.ok(inspected >= 2 * answers, `${inspected} packets came back inspected, of ${answers} answers`);
  next.program.signal('SIGKILL');
  await next.program.ended;
  await pause(1000);
  t.ok(await pings(workload, server), 'once it was open, onAgentFailure rules');
});

t.test('without the guard an agent holds it from its first program on', async (t) => {
  const { hairpin, workload } = await start(t);
  await hairpin.firewall.command('telemetry refuse');
  const agent = hairpin.launchAgent({
    telemetry: { interval: '500ms', timeout: '300ms', retries: 2, startupGrace: '1s' },
  });
  await agent.reach('closed', 8000);
  t.notOk(await pings(workload, server), 'its grace is over, and it drops');
  const { kernel } = (await agent.status())!;
  t.equal(kernel.passedMode!.packets + kernel.passedAgentDead!.packets, 0);
  await hairpin.firewall.command('telemetry ok');
  await agent.reach('redirecting', 5000);
  t.ok(await pings(workload, server));
});

t.test('a person who stops the agent gets the host back, a service manager does not', async (t) => {
  const { config, guard, hairpin, workload } = await start(t);
  await hairpin.firewall.command('telemetry refuse');
  await guard(`arm --config ${config}`);
  const first = hairpin.launchAgent();
  await first.reach('starting', 8000);
  t.equal(await first.program.stop(), 0);
  t.match(await guard('status'), 'armed:', 'SIGTERM may be a restart');
  const second = hairpin.launchAgent();
  await second.reach('starting', 8000);
  await shell(workload, `${command} stop --socket ${second.socketPath}`);
  t.equal(await guard('status'), 'not armed');
  t.ok(await pings(workload, server));
});
