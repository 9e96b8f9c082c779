// Untimed: another test may run beside this one.
/**
 * A neighbour of the firewall forges tunnel packets (needs root). raw-socket sends them with any
 * source address, cap watches the workload's interface, the server and the counters say what came
 * of it. Nothing forged reaches the network.
 *
 *     workload - router - transit (the forger) - firewall
 */
import t from 'tap';
import { type Program, pause, start, until } from '../../lab/program.ts';
import { addresses } from '../../lab/topology.ts';
import { type Hairpin, shell, startHairpin } from '../support/hairpin.ts';
import { udp } from '../support/packets.ts';

const { firewall, server, workload } = addresses;
const program = (name: string) => `dist/test/net/${name}.js`;

/** An outer datagram to the agent, from whomever. */
function outer(source: string, payload: Uint8Array): string {
  return udp({ source, target: workload, id: 0 }, 6081, 6081, payload).toString('hex');
}

/** Our GENEVE header with the given VNI and cookie. */
function geneve(cookie: Buffer, vni = 48813): Buffer {
  const header = Buffer.from('0300080000000000fff1200200010000', 'hex');
  header.writeUIntBE(vni, 4, 3);
  return Buffer.concat([header, cookie]);
}

async function forge(hairpin: Hairpin, packets: readonly string[]): Promise<void> {
  const sender = start(hairpin.topology.transit, process.execPath, [program('raw-sender')]);
  for (const packet of packets) sender.write(packet);
  sender.child.stdin?.end();
  const code = await sender.ended;
  if (code !== 0) throw new Error(`raw-sender: ${sender.errors}`);
}

/** Open a UDP flow and read its cookie off the wire, as somebody on the path could. */
async function cookieOf(hairpin: Hairpin): Promise<Buffer> {
  const { topology } = hairpin;
  const capture = await hairpin.capture(topology.firewall, 'cookie');
  await shell(topology.workload, `echo hello | socat -u - UDP:${server}:7000,sourceport=7001`);
  await capture.stop();
  const rows = await capture.read('geneve && udp.dstport == 7000', ['geneve.option.unknown.data']);
  const data = rows[0]?.[0]?.split(',')[0] ?? '';
  t.equal(data.length, 16, 'eight bytes of our option');
  return Buffer.from(data.slice(8), 'hex');
}

async function watch(hairpin: Hairpin, seen: string[]): Promise<Program> {
  const watcher = start(hairpin.topology.server, process.execPath, [program('cap-watcher')], {
    onLine: (line) => seen.push(line),
  });
  await until('cap watches', 5000, () => seen.includes('ready'));
  return watcher;
}

t.test('nothing forged reaches the network', async (t) => {
  const hairpin = await startHairpin(t);
  const agent = await hairpin.startAgent();
  const cookie = await cookieOf(hairpin);
  const wrong = Buffer.from(cookie.map((byte) => byte ^ 0xff));
  const seen: string[] = [];
  const watcher = await watch(hairpin, seen);
  const flow = { source: workload, target: server };
  const packet = udp(flow, 7001, 7000, Buffer.from('forged'));
  const other = udp(flow, 7002, 7000, Buffer.from('forged'));
  const exempt = udp({ source: workload, target: '169.254.169.254' }, 7001, 80, Buffer.from('x'));

  await forge(hairpin, [
    outer('10.9.0.66', Buffer.concat([geneve(cookie), packet])),
    outer(firewall, Buffer.concat([geneve(wrong), packet])),
    outer(firewall, Buffer.concat([geneve(cookie, 1), packet])),
    outer(firewall, Buffer.concat([geneve(cookie), other])),
    outer(firewall, Buffer.concat([geneve(cookie), exempt])),
    outer(firewall, Buffer.concat([geneve(cookie), packet.subarray(0, 19)])),
    outer(firewall, geneve(cookie).subarray(0, 7)),
  ]);
  await pause(400);
  const { counters } = (await agent.status())!;
  const counted = Object.fromEntries(
    Object.entries(counters).map(([name, { packets }]) => [name, packets]),
  );
  t.match(counted, {
    'tunnel-sender': 1,
    'tunnel-cookie-wrong': 1,
    'tunnel-vni': 1,
    'flow-unknown': 2,
    'ipv4-too-short': 1,
    'tunnel-too-short': 1,
  });
  t.same(seen, ['ready'], 'the server sees no datagram');

  await forge(hairpin, [outer(firewall, Buffer.concat([geneve(cookie), packet]))]);
  await until('the right cookie', 2000, () => seen.length > 1);
  t.same(JSON.parse(seen[1]!), {
    srcaddr: workload,
    dstaddr: server,
    srcport: 7001,
    dstport: 7000,
  });
  await watcher.stop();
});
