/**
 * Mixed traffic while things fail by a seeded schedule, for SOAK_SECONDS (60 by default): one half
 * of it all by the agent, the other with the kernel carrying what it can. Then the agent holds no
 * more memory, descriptors or BPF objects than before, it has mended what it could, and its books
 * are exact (needs root). SOAK_SEED repeats a run.
 */
import { readdirSync, readFileSync } from 'node:fs';
import t, { type Test } from 'tap';
import type { Agent, AgentStatus } from '../../lab/agent.ts';
import type { Namespace } from '../../lab/namespace.ts';
import { pause } from '../../lab/program.ts';
import { addresses } from '../../lab/topology.ts';
import { type Hairpin, shell, startHairpin } from '../support/hairpin.ts';

const seconds = Number(process.env.SOAK_SECONDS ?? 60) / 2;
const seed = Number(process.env.SOAK_SEED ?? 1);
const { server } = addresses;

/** Mulberry32: the same schedule for the same seed. */
function random(state: number): () => number {
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

type Fault = { readonly name: string; begin(): Promise<unknown>; end(): Promise<unknown> };

function faults(hairpin: Hairpin, agent: Agent): Fault[] {
  const { router, transit, workload } = hairpin.topology;
  const tc = (line: string) => shell(router, `tc qdisc ${line}; true`);
  const netem = (words: string): Fault => ({
    name: words,
    begin: () => tc(`add dev transit root netem ${words}`),
    end: () => tc('del dev transit root'),
  });
  return [
    {
      name: 'telemetry refused',
      begin: () => hairpin.firewall.command('telemetry refuse'),
      end: () => hairpin.firewall.command('telemetry ok'),
    },
    {
      name: 'the firewall is gone',
      begin: () => shell(transit, 'ip link set firewall down'),
      end: () => shell(transit, 'ip link set firewall up'),
    },
    {
      name: 'the firewall is killed and comes back with an empty table',
      begin: () => hairpin.killFirewall(),
      end: () => hairpin.restartFirewall(),
    },
    {
      name: 'no route to the firewall',
      begin: () => shell(workload, 'ip route add unreachable 10.9.0.0/24'),
      end: () => shell(workload, 'ip route del unreachable 10.9.0.0/24'),
    },
    {
      name: 'reload',
      begin: () => shell(workload, `bin/microperimeter reload --socket ${agent.socketPath}`),
      end: async () => {},
    },
    netem('loss 5%'),
    netem('delay 5ms 2ms duplicate 2%'),
  ];
}

/** Traffic of every kind until `stop` is called; failures of single connections are expected. */
function startTraffic({ topology }: Hairpin): () => Promise<void> {
  const { server: outside, workload } = topology;
  const seconds100 = seconds + 60;
  const loop = (host: typeof workload, words: string) =>
    shell(host, `timeout ${seconds100} bash -c 'while :; do ${words}; done' >/dev/null 2>&1; true`);
  const stopFile = `/tmp/microperimeter-soak-${process.pid}`;
  const until = (words: string) => `[ -e ${stopFile} ] && exit; ${words}`;
  const served = shell(
    outside,
    `timeout ${seconds100} socat TCP-LISTEN:8000,reuseaddr,fork SYSTEM:"head -c 200000 /dev/zero" & ` +
      `timeout ${seconds100} socat -u UDP-RECV:8001 /dev/null & ` +
      `while [ ! -e ${stopFile} ]; do sleep 0.2; done; kill %1 %2; true`,
  );
  const talking = [
    loop(workload, until(`timeout 5 socat -u TCP:${server}:8000,connect-timeout=2 -`)),
    loop(
      workload,
      until(`head -c 900 /dev/zero | socat -u - UDP-SENDTO:${server}:8001; sleep 0.01`),
    ),
    loop(workload, until(`ping -n -q -c 20 -i 0.05 -s 3000 -W 1 ${server}`)),
    loop(outside, until(`ping -n -q -c 20 -i 0.05 -W 1 ${addresses.workload}`)),
  ];
  return async () => {
    await shell(outside, `touch ${stopFile}`);
    await Promise.all([...talking, served]);
    await shell(outside, `rm -f ${stopFile}`);
  };
}

/** What the kernel of a host has counted of UDP (proc(5), net/snmp). */
async function udpOf(host: Namespace, name: string): Promise<number> {
  const text = await shell(host, 'cat /proc/self/net/snmp');
  const [names = [], values = []] = text
    .split('\n')
    .filter((line) => line.startsWith('Udp:'))
    .map((line) => line.split(' '));
  return Number(values[names.indexOf(name)]);
}

function held(agent: Agent): { megabytes: number; descriptors: number } {
  const { pid } = agent.program.child;
  const rss = /^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))![1];
  return { megabytes: Number(rss) / 1024, descriptors: readdirSync(`/proc/${pid}/fd`).length };
}

async function soak(t: Test, acceleration: 'kernel' | 'off'): Promise<void> {
  const hairpin = await startHairpin(t, {
    settings: { limits: { flows: 65_536 } },
    top: { acceleration },
    // So that a packet is a packet to everyone who counts.
    topology: { offloads: 'none' },
  });
  const agent = await hairpin.startAgent();
  const next = random(seed);
  const stopTraffic = startTraffic(hairpin);
  await pause(3000);
  const before = held(agent);
  const all = faults(hairpin, agent);
  const end = performance.now() + (seconds - 3) * 1000;
  while (performance.now() < end) {
    const fault = all[Math.floor(next() * all.length)]!;
    const lasts = 500 + next() * 2500;
    t.comment(`${fault.name} for ${Math.round(lasts)} ms`);
    await fault.begin();
    await pause(lasts);
    await fault.end();
    await pause(500 + next() * 1500);
  }
  await agent.reach('redirecting', 15_000);
  await stopTraffic();
  await pause(1500);
  const after = held(agent);
  t.equal(after.descriptors, before.descriptors, 'descriptors, those of BPF objects among them');
  const grown = after.megabytes - before.megabytes;
  t.ok(grown < 60, `${grown.toFixed(0)} MB more than at the start`);

  const status = (await agent.status()) as AgentStatus & { readonly tunDropped: number };
  const { counters, drift, kernel, tunDropped } = status;
  const { topology } = hairpin;
  // Fragments that wait for others are counted when they have waited; all have by now.
  const counted = Object.values(counters).reduce((sum, { packets }) => sum + packets, 0);
  const came = await udpOf(topology.workload, 'InDatagrams');
  const carried = kernel.carriedOut!.packets + kernel.carriedBack!.packets;
  t.equal(
    counted,
    kernel.redirected!.packets - tunDropped + came + carried,
    'every packet that the kernel handed over or carried and every datagram has one fate',
  );
  t.equal(carried > 1000, acceleration === 'kernel', `${carried} carried by the kernel`);
  const answered = await udpOf(topology.firewall, 'OutDatagrams');
  t.ok(came <= answered, `${came} of ${answered} datagrams of the firewall arrived`);
  t.same(drift, []);
  const ended = Object.entries(counters).map(([name, { packets }]) => `${name} ${packets}`);
  t.comment(ended.join(', '));
  t.ok(counters.reinjected!.packets > 1000, 'most of it came back');
  // After all that, the books are still exact.
  const { workload } = hairpin.topology;
  t.match(await shell(workload, `ping -n -q -c 200 -i 0.01 -W 1 ${server}`), '200 received');
  await pause(250);
  const now = (await agent.status())!.counters;
  const moved = Object.entries(now)
    .map(([name, { packets }]) => [name, packets - (counters[name]?.packets ?? 0)] as const)
    .filter(([name, packets]) => packets > 0 && !name.startsWith('probe'));
  t.same(moved, [
    ['redirected', 400],
    ['reinjected', 400],
  ]);
  t.notOk(agent.program.output.includes('died'), 'no thread died');
  t.equal(await agent.program.stop(), 0);
  await hairpin.firewall.stop();
  topology.remove();
}

for (const acceleration of ['off', 'kernel'] as const) {
  const name = `${seconds} s of faults, acceleration ${acceleration}, seed ${seed}`;
  t.test(name, { timeout: (seconds + 120) * 1000 }, (t) => soak(t, acceleration));
}
