/**
 * A numbered stream of datagrams while who carries it changes (needs root): from the engine to the
 * kernel, over a reload, over a gate that closes and opens again, over a firewall that is away, and
 * over the agent's death. None is out of order; those that the firewall did not take are lost, and
 * no others. Forged datagrams of a carried flow get nowhere.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';
import type { StreamReport } from '../../bench/load/numbered-stream.ts';
import { type Agent, gateBoundMs } from '../../lab/agent.ts';
import { pause, run, start, until } from '../../lab/program.ts';
import { addresses } from '../../lab/topology.ts';
import { startIperfServer } from '../../lab/traffic.ts';
import { type Hairpin, shell, startHairpin } from '../support/hairpin.ts';
import { udp } from '../support/packets.ts';

const { firewall, server, workload } = addresses;
const program = (name: string) => fileURLToPath(new URL(`./${name}.js`, import.meta.url));
const perSecond = 1000;

async function startAll(t: Test): Promise<{ hairpin: Hairpin; agent: Agent }> {
  const hairpin = await startHairpin(t, {
    topology: { offloads: 'firewall-off' },
    top: { acceleration: 'kernel' },
  });
  return { hairpin, agent: await hairpin.startAgent() };
}

/** Asked, it tells of the time since it was asked last. */
async function startStream(t: Test, { topology }: Hairpin): Promise<() => Promise<StreamReport>> {
  const stream = program('../../bench/load/numbered-stream');
  const echo = start(topology.server, process.execPath, [stream, 'echo', '7000']);
  await until('the echo listens', 5000, () => echo.output.includes('ready'));
  const reports: StreamReport[] = [];
  const args = [stream, 'send', server, '7000', String(perSecond)];
  const sender = start(topology.workload, process.execPath, args, {
    onLine: (line) => line !== 'ready' && reports.push(JSON.parse(line)),
  });
  t.teardown(() => Promise.all([echo.stop(), sender.stop()]));
  return async () => {
    const before = reports.length;
    sender.write('next');
    await until('the stream reports', 5000, () => reports.length > before);
    return reports.at(-1)!;
  };
}

async function kernelCount(agent: Agent, name: string): Promise<number> {
  return (await agent.status())!.kernel[name]!.packets;
}

async function isCarried(agent: Agent): Promise<boolean> {
  const before = await kernelCount(agent, 'carriedOut');
  await pause(300);
  return (await kernelCount(agent, 'carriedOut')) > before + perSecond * 0.2;
}

t.test('nothing is out of order, whoever carries it', async (t) => {
  const { agent, hairpin } = await startAll(t);
  const ask = await startStream(t, hairpin);
  await pause(1000);
  const same = async (words: string, lost = 0) => {
    const report = await ask();
    t.equal(report.reordered, 0, `${words}: none out of order`);
    t.ok(report.lost <= lost, `${words}: ${report.lost} of ${report.sent} lost`);
  };
  await same('from the engine to the kernel');
  t.ok(await isCarried(agent), 'carried');

  const text = readFileSync(agent.configPath, 'utf8');
  writeFileSync(agent.configPath, text.replace('acceleration', 'default: redirect\nacceleration'));
  agent.program.signal('SIGHUP');
  await until('it has reloaded', 5000, () => agent.program.output.includes('reload, asked by'));
  t.ok(await isCarried(agent), 'carried after a reload');
  await same('over a reload');

  await hairpin.firewall.command('telemetry refuse');
  await agent.reach('closed', gateBoundMs + 1000);
  await pause(200);
  t.notOk(await isCarried(agent), 'a closed gate carries nothing');
  await hairpin.firewall.command('telemetry ok');
  await agent.reach('redirecting', 5000);
  await pause(300);
  t.ok(await isCarried(agent), 'carried again');
  // Going directly is faster than by the firewall: those on the way are overtaken.
  const report = await ask();
  t.ok(report.lost === 0 && report.reordered < 20, JSON.stringify(report));

  agent.program.signal('SIGSTOP');
  await pause(1000);
  await ask();
  await pause(700);
  await same('while the agent hangs');
  agent.program.signal('SIGCONT');
  await pause(500);
  t.ok(await isCarried(agent), 'carried when it lives again');
  t.match((await agent.status())!.counters, {});
});

t.test('TCP finds nothing out of order while it is handed over', async (t) => {
  const { hairpin } = await startAll(t);
  const { topology } = hairpin;
  const iperf = await startIperfServer(topology.server);
  t.teardown(() => iperf.stop());
  for (const way of [[], ['-R']]) {
    for (let i = 0; i < 5; i++) {
      const args = ['-c', server, '-J', '-b', '100M', '-t', '1', ...way];
      const { code } = await run(topology.workload, 'iperf3', args);
      t.equal(code, 0);
    }
  }
  // A busy machine makes TCP probe for a lost tail; that says nothing about order.
  const names = ['FastRetrans', 'SlowStartRetrans', 'SACKReorder', 'RenoReorder', 'TSReorder'];
  for (const host of [topology.workload, topology.server]) {
    const words = await shell(host, `nstat -asz ${names.map((n) => `TcpExtTCP${n}`).join(' ')}`);
    const counts = [...words.matchAll(/^(\S+)\s+(\d+)/gm)].map((match) => Number(match[2]));
    t.same(counts, [0, 0, 0, 0, 0], words);
  }
});

t.test('forged datagrams of a carried flow get nowhere', async (t) => {
  const { agent, hairpin } = await startAll(t);
  const { topology } = hairpin;
  const capture = await hairpin.capture(topology.firewall, 'cookie', { filter: 'udp port 6081' });
  const ask = await startStream(t, hairpin);
  await pause(1000);
  await ask();
  t.ok(await isCarried(agent));
  await capture.stop();
  const rows = await capture.read('geneve && udp.dstport == 7000', [
    'geneve.option.unknown.data',
    'udp.srcport',
  ]);
  const [option = '', ports = ''] = rows.at(-1) ?? [];
  const cookie = Buffer.from(option.split(',')[0]!.slice(8), 'hex');
  const port = Number(ports.split(',')[1]);
  t.equal(cookie.length, 4);
  const header = (right: boolean, vni = 48813) => {
    const bytes = Buffer.from('0300080000000000fff1200200010000', 'hex');
    bytes.writeUIntBE(vni, 4, 3);
    return Buffer.concat([bytes, right ? cookie : cookie.map((byte) => byte ^ 1)]);
  };
  const inner = udp({ source: workload, target: server }, port, 7000, Buffer.from('forged'));
  const outer = (source: string, head: Buffer) =>
    udp({ source, target: workload, id: 0 }, 6081, 6081, Buffer.concat([head, inner]));
  const before = (await agent.status())!;
  const sender = start(topology.transit, process.execPath, [program('raw-sender')]);
  for (const packet of [
    outer('10.9.0.66', header(true)),
    outer(firewall, header(false)),
    outer(firewall, header(true, 1)),
  ]) {
    sender.write(packet.toString('hex'));
  }
  sender.child.stdin?.end();
  t.equal(await sender.ended, 0);
  await pause(400);
  const { counters } = (await agent.status())!;
  const more = (name: string) =>
    (counters[name]?.packets ?? 0) - (before.counters[name]?.packets ?? 0);
  t.equal(more('tunnel-cookie-wrong'), 1);
  t.equal(more('tunnel-vni'), 1);
  t.equal(more('tunnel-sender'), 1);
});
