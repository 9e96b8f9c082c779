/**
 * On the kernel that it runs on (test/vm/machine.ts): traffic through the hair-pin, both ways, by
 * the kernel and by the agent alone; what was on the wire, and what is left on the host. Prints
 * TAP.
 */
import t, { type Test } from 'tap';
import { compareHostStates, readHostState } from '../../lab/host-state.ts';
import { run } from '../../lab/program.ts';
import { addresses } from '../../lab/topology.ts';
import { requestWeb, startIperfServer, startWebServer } from '../../lab/traffic.ts';
import { type Hairpin, startHairpin } from '../support/hairpin.ts';

const { server, workload } = addresses;
const transferBytes = 2_000_000;
/** iperf3 leaves out what was on its way when the sender ended. */
const enough = 0.6 * transferBytes;
/** An emulated processor takes its time. */
const startLimitMs = 90_000;
const webLimitMs = 20_000;

/** Bytes that arrived, out of the workload and into it. */
async function transfer({ topology }: Hairpin): Promise<number[]> {
  const arrived: number[] = [];
  for (const way of [[], ['-R']]) {
    const args = ['-c', server, '-J', '-b', '20M', '-n', String(transferBytes), ...way];
    const { output } = await run(topology.workload, 'iperf3', args);
    arrived.push(JSON.parse(output).end.sum_received.bytes);
  }
  return arrived;
}

async function requests(t: Test, { topology }: Hairpin): Promise<void> {
  for (const [from, address] of [
    [topology.workload, server],
    [topology.server, workload],
  ] as const) {
    const ask = (path: string, limitMs: number) =>
      requestWeb(from, `http://${address}${path}`, { limitMs });
    t.ok((await ask('/', webLimitMs)).ok, `to ${address}`);
    t.notOk((await ask('/secret', 3000)).ok, `to ${address}: blocked by the firewall`);
  }
}

t.test('through the hair-pin and back', async (t) => {
  const hairpin = await startHairpin(t, {
    startLimitMs,
    topology: { offloads: 'firewall-off' },
    top: { acceleration: 'kernel' },
    policy: 'deny:\n  - { path: /secret }\n',
  });
  const { topology } = hairpin;
  const servers = [
    await startWebServer(topology.server, 'server', server, [80]),
    await startWebServer(topology.workload, 'workload', workload, [80]),
    await startIperfServer(topology.server),
  ];
  t.teardown(() => Promise.all(servers.map((one) => one.stop())));
  const before = readHostState(topology.workload);
  const agent = await hairpin.startAgent();
  const atFirewall = await hairpin.capture(topology.firewall, 'firewall', {
    filter: 'udp port 6081',
    interface: 'eth0',
  });
  await requests(t, hairpin);
  for (const bytes of await transfer(hairpin)) t.ok(bytes > enough, `${bytes} bytes`);
  await atFirewall.stop();
  t.ok((await atFirewall.count('geneve')) > 1000, 'through the tunnel');
  const wrong = 'frame.len > 1514 || _ws.malformed || ip.checksum.status == 0';
  t.equal(await atFirewall.count(wrong), 0, 'with nothing wrong on the wire');
  const status = (await agent.status())!;
  const { kernel } = status;
  t.match(status, { acceleration: { by: 'kernel', reason: '' } });
  t.ok(kernel.carriedOut!.bytes > 2 * enough, 'nearly all by the kernel');
  t.ok(kernel.carriedBack!.bytes > 2 * enough);
  t.equal(await agent.program.stop(), 0);
  t.same(compareHostStates(before, readHostState(topology.workload)), [], 'the host is as before');

  const alone = hairpin.launchAgent({}, { acceleration: 'off' });
  await alone.reach('redirecting', startLimitMs);
  for (const bytes of await transfer(hairpin)) t.ok(bytes > enough, `${bytes} bytes`);
  const { counters, kernel: of } = (await alone.status())!;
  t.ok(counters.redirected!.bytes > 2 * enough, 'all by the agent');
  t.equal(of.carriedOut!.bytes, 0);
});
