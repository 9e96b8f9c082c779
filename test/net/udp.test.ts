// Untimed: another test may run beside this one.
/**
 * The tunnel's sockets and rtnetlink against the kernel.
 *
 *     "host" 10.77.1.1 eth0 --- eth0 "router" eth1 --- eth0 10.77.2.2 "firewall"
 *
 * This process lives in "host". tcpdump in "firewall" says what arrives there, one datagram a line:
 * the router's eth0 has no segmentation offload, so that nothing travels joined.
 */
import { type ChildProcess, spawnSync } from 'node:child_process';
import { createSocket, type Socket } from 'node:dgram';
import { once } from 'node:events';
import { readdirSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import t from 'tap';
import { createArena } from '../../engine/arena.ts';
import { createDatagramBatch } from '../../engine/io.ts';
import { join, Namespace, removeStaleNamespaces } from '../../lab/namespace.ts';
import { enterNamespace, insideNamespace } from '../../linux/namespace.ts';
import {
  addressesOf,
  defaultRouteInterface,
  interfaceByName,
  routeTo,
  setLink,
} from '../../linux/netlink.ts';
import { createTunnelSockets, openTunnelSocket, type TunnelSockets } from '../../linux/udp.ts';
import { Reason } from '../../parsers/reason.ts';
import { addPiece, createPieces } from '../../tunnel/pieces.ts';
import { tunnelSocketContract } from '../contract/tunnel-socket.ts';
import { address } from '../support/packets.ts';

removeStaleNamespaces();
const host = new Namespace('host');
const router = new Namespace('router');
const firewall = new Namespace('firewall');
join(host, 'eth0', router, 'eth0');
join(router, 'eth1', firewall, 'eth0');
number(host, 'eth0', '10.77.1.1/24');
number(router, 'eth0', '10.77.1.254/24');
number(router, 'eth1', '10.77.2.254/24');
number(firewall, 'eth0', '10.77.2.2/24');
host.ip('route add default via 10.77.1.254 metric 50');
firewall.ip('route add default via 10.77.2.254');
router.must('sysctl', ['-qw', 'net.ipv4.ip_forward=1']);
const offloads = ['tx', 'off', 'tso', 'off', 'gso', 'off', 'tx-udp-segmentation', 'off'];
router.must('ethtool', ['-K', 'eth1', ...offloads]);
enterNamespace(host.path);

function number(namespace: Namespace, link: string, prefix: string): void {
  namespace.ip(`addr add ${prefix} broadcast + dev ${link}`);
  namespace.ip(`link set ${link} up`);
}

const firewallAddress = address('10.77.2.2');
/** Not a tunnel's: tcpdump would decode that. */
const port = 7081;
const descriptors = () => readdirSync('/proc/self/fd').length;
const arena = createArena(1, 4);
for (let i = 0; i < 65507; i++) arena.bytes[arena.scratchAt + i] = i % 251;

function sockets(senders = 4): TunnelSockets {
  const firewalls = [{ address: firewallAddress, port }];
  return createTunnelSockets({ port, firewalls, senders });
}

/** One send of `length` bytes, flushed; its fate. */
function sendOne(
  tunnel: ReturnType<typeof openTunnelSocket>,
  length: number,
  segmentSize = 0,
  tos = 0,
): Reason {
  const pieces = createPieces();
  addPiece(pieces, arena.scratchAt, length);
  tunnel.queue(pieces, segmentSize, firewallAddress, 1, tos);
  tunnel.flush();
  return tunnel.results[0];
}

/** A plain UDP socket of Node's in the firewall: what it gets, and what it sends to us. */
async function firewallSocket(): Promise<Socket> {
  const socket = createSocket({ type: 'udp4', recvBufferSize: 1 << 20 });
  // Node makes the socket when it binds, later: the thread must stay in the namespace until then.
  enterNamespace(firewall.path);
  socket.bind(port, '10.77.2.2');
  await once(socket, 'listening');
  enterNamespace(host.path);
  return socket;
}

for (const segmentation of [true, false]) {
  const name = segmentation ? 'with the kernel cutting' : 'cutting by ourselves';
  t.test(`they obey the contract of tunnel sockets, ${name}`, async (t) => {
    const far = await firewallSocket();
    const arrived: { payload: Uint8Array; port: number }[] = [];
    far.on('message', (payload, { port }) => arrived.push({ payload, port }));
    const owner = sockets();
    const socket = openTunnelSocket(owner, arena, 4, { segmentation });
    await tunnelSocketContract(t, {
      socket,
      arena,
      peer: firewallAddress,
      arrive: (payload) =>
        new Promise((done, fail) => {
          far.send(payload, port, '10.77.1.1', (error) => (error ? fail(error) : done()));
        }),
      async sent(count) {
        while (arrived.length < count) await sleep(5);
        return arrived.splice(0, count);
      },
      close() {
        far.close();
        owner.close();
      },
    });
  });
}

/** tcpdump in the firewall until `count` datagrams of the tunnel have come. */
async function watch(count: number): Promise<{ lines: Promise<string[]>; child: ChildProcess }> {
  const args = ['-l', '-n', '-vv', '-i', 'eth0', '-c', `${count}`, `dst port ${port}`];
  const child = firewall.spawn('tcpdump', args, { stdio: ['ignore', 'pipe', 'pipe'] });
  let text = '';
  child.stdout?.on('data', (data) => {
    text += data;
  });
  const lines = once(child, 'close').then(() => text.trim().split(/\n(?=\d)/));
  await once(child.stderr as NodeJS.ReadableStream, 'data');
  return { lines, child };
}

t.test('tcpdump sees datagrams of the right size, TOS, TTL, DF and checksum', async (t) => {
  const firewalls = [{ address: firewallAddress, port }];
  const owner = createTunnelSockets({
    port,
    firewalls,
    senders: 2,
    sourcePorts: { first: 40000, last: 40003 },
    ttl: 33,
  });
  t.teardown(() => owner.close());
  const tunnel = openTunnelSocket(owner, arena, 4);
  const { lines } = await watch(5);
  t.equal(sendOne(tunnel, 3300, 1000, 0x28), Reason.Ok);
  // Nobody listens there: an ICMP error comes back, which the next send must survive.
  await sleep(50);
  t.equal(sendOne(tunnel, 77, 0, 0x02), Reason.Ok, 'a refusal of the past is not this one');
  const seen = await lines;
  const sizes = seen.map((line) => /UDP, length (\d+)/.exec(line)?.[1]);
  t.same(sizes, ['1000', '1000', '1000', '300', '77']);
  const tos = seen.map((line) => /tos (0x[0-9a-f]+)/.exec(line)?.[1]);
  t.same(tos, ['0x28', '0x28', '0x28', '0x28', '0x2']);
  for (const line of seen) {
    t.match(line, /ttl 32, .*flags \[DF\]/, 'TTL 33 less the router, DF');
    t.match(line, /10\.77\.1\.1\.4000[0-3] > 10\.77\.2\.2\.7081/, 'a source port of the range');
    t.match(line, /udp sum ok/, 'the outer checksum is there and right');
  }
});

t.test('datagrams that the kernel joined come by one receive, from any port', async (t) => {
  const near = sockets();
  const firewalls = [{ address: address('10.77.1.1'), port }];
  const far = insideNamespace(firewall.path, () =>
    createTunnelSockets({ port, firewalls, senders: 1 }),
  );
  t.teardown(() => {
    near.close();
    far.close();
  });
  const pieces = createPieces();
  addPiece(pieces, arena.scratchAt, 5100);
  const sender = openTunnelSocket(far, arena, 4);
  const receiver = openTunnelSocket(near, arena, 4);
  // Whole across the router: what arrives joined is what was sent joined.
  router.must('ethtool', ['-K', 'eth1', 'gro', 'on']);
  sender.queue(pieces, 1000, firewalls[0].address, 1, 0);
  t.equal(sender.flush(), 1);
  const batch = createDatagramBatch(arena.datagramSlots);
  await sleep(50);
  t.equal(receiver.receive(batch), 1);
  t.equal(batch.length[0], 5100);
  t.equal(batch.segmentSize[0], 1000);
  t.equal(batch.source[0], firewallAddress);
  const at = batch.at[0];
  const got = arena.bytes.slice(at, at + 5100);
  const wanted = arena.bytes.slice(arena.scratchAt, arena.scratchAt + 5100);
  t.equal(Buffer.compare(got, wanted), 0);

  // Nobody but the sender joins now: what comes joined left so.
  router.must('ethtool', ['-K', 'eth1', 'gro', 'off']);
  const rows: [lengths: number[], tos: number[], received: number[]][] = [
    [[900, 900, 900], [0, 0, 0], [2700]],
    [[900, 900, 500], [8, 8, 8], [2300]],
    [
      [900, 500, 900],
      [0, 0, 0],
      [1400, 900],
    ],
    [
      [900, 901],
      [0, 0],
      [900, 901],
    ],
    [
      [900, 900],
      [0, 8],
      [900, 900],
    ],
  ];
  for (const [lengths, tos, received] of rows) {
    for (const [index, length] of lengths.entries()) {
      pieces.count = 0;
      addPiece(pieces, arena.scratchAt, length);
      sender.queue(pieces, 0, firewalls[0].address, 1, tos[index]);
    }
    sender.flush();
    await sleep(50);
    receiver.receive(batch);
    t.same([...batch.length.subarray(0, batch.count)], received, `${lengths} with TOS ${tos}`);
  }
});

t.test('a path that becomes narrower is a reason, and the new width is known', async (t) => {
  const owner = sockets();
  t.teardown(() => owner.close());
  const tunnel = openTunnelSocket(owner, arena, 4);
  t.equal(tunnel.pathMtu(firewallAddress), 1500);
  t.equal(sendOne(tunnel, 1472), Reason.Ok, 'a datagram that just fits');
  t.equal(sendOne(tunnel, 1473), Reason.SocketTooBig, 'one byte more');
  t.equal(sendOne(tunnel, 3000, 1472), Reason.Ok, 'segments that just fit');
  t.equal(sendOne(tunnel, 3000, 1473), Reason.SocketTooBig, 'one byte more each');
  await t.test('because the own interface did', async (t) => {
    host.ip('link set eth0 mtu 1400');
    t.equal(sendOne(tunnel, 1472), Reason.SocketTooBig);
    t.equal(tunnel.pathMtu(firewallAddress), 1400);
    t.equal(sendOne(tunnel, 1372), Reason.Ok);
    host.ip('link set eth0 mtu 1500');
    t.equal(tunnel.pathMtu(firewallAddress), 1500, 'and wider again');
  });
  await t.test('because a router further on says so', async (t) => {
    router.ip('link set eth1 mtu 1300');
    t.equal(sendOne(tunnel, 1472), Reason.Ok, 'nobody knows yet');
    await sleep(100);
    t.equal(sendOne(tunnel, 1472), Reason.SocketTooBig, 'the ICMP has come');
    t.equal(tunnel.pathMtu(firewallAddress), 1300);
    t.equal(sendOne(tunnel, 1272), Reason.Ok);
    t.equal(sendOne(tunnel, 1273), Reason.SocketTooBig);
    router.ip('link set eth1 mtu 1500');
  });
});

t.test('one bad send among good ones costs only itself', async (t) => {
  const owner = sockets();
  t.teardown(() => owner.close());
  const tunnel = openTunnelSocket(owner, arena, 8);
  const pieces = createPieces();
  for (const length of [100, 60000, 100, 60000, 60000, 100]) {
    pieces.count = 0;
    addPiece(pieces, arena.scratchAt, length);
    tunnel.queue(pieces, 0, firewallAddress, 1, 0);
  }
  tunnel.queue(pieces, 0, address('10.9.9.9'), 1, 0);
  t.equal(tunnel.flush(), 7);
  const { Ok, SocketTooBig, SocketUnreachable } = Reason;
  const results = [Ok, SocketTooBig, Ok, SocketTooBig, SocketTooBig, Ok, SocketUnreachable];
  t.same([...tunnel.results.subarray(0, 7)], results, 'nor is an unknown firewall sent to');
});

t.test('no route is a reason, and sends go on when there is one again', async (t) => {
  const owner = sockets();
  t.teardown(() => owner.close());
  const tunnel = openTunnelSocket(owner, arena, 4);
  host.ip('route del default');
  t.equal(sendOne(tunnel, 100), Reason.SocketUnreachable);
  t.equal(tunnel.pathMtu(firewallAddress), 0);
  t.throws(() => sockets(), { code: 'ERR_PORT_IN_USE' });
  owner.close();
  t.throws(() => sockets(), { code: 'ERR_NO_ROUTE' });
  host.ip('route add default via 10.77.1.254 metric 50');
  const again = sockets();
  t.equal(sendOne(openTunnelSocket(again, arena, 4), 100), Reason.Ok);
  again.close();
});

t.test('ports that are taken are named, and nothing stays open', async (t) => {
  const before = descriptors();
  const first = sockets();
  t.throws(() => sockets(), { code: 'ERR_PORT_IN_USE', message: /7081/ });
  first.close();
  first.close();
  const firewalls = [{ address: firewallAddress, port }];
  const sourcePorts = { first: 40000, last: 40002 };
  t.throws(() => createTunnelSockets({ port, firewalls, senders: 4, sourcePorts }), {
    code: 'ERR_PORT_IN_USE',
    message: /40000 to 40002/,
  });
  t.equal(descriptors(), before);
});

t.test('without privileges the buffers are smaller, and a low port is refused', async (t) => {
  const attempt = (tunnelPort: number) => `
    const { createTunnelSockets } = await import('${process.cwd()}/dist/linux/udp.js');
    try {
      createTunnelSockets({ port: ${tunnelPort}, firewalls: [] }).close();
      console.log('made');
    } catch (error) { console.log(error.code); }`;
  const drop = ['--reuid=65534', '--clear-groups', '--inh-caps=-all', '--bounding-set=-all'];
  const run = (tunnelPort: number) => {
    const node = [process.execPath, '--input-type=module', '-e', attempt(tunnelPort)];
    return spawnSync('setpriv', [...drop, ...node], { encoding: 'utf8' }).stdout.trim();
  };
  t.equal(run(7081), 'made');
  t.equal(run(80), 'ERR_NOT_PERMITTED');
});

t.test('interfaces, addresses and routes are what ip says', async (t) => {
  const link = interfaceByName('eth0');
  t.match(link, { name: 'eth0', mtu: 1500, up: true, type: 1 });
  t.match(host.ip('link show eth0'), new RegExp(link.mac));
  t.throws(() => interfaceByName('eth7'), { code: 'ERR_NO_INTERFACE', advice: /lo, eth0/ });
  t.throws(() => interfaceByName('lo'), { code: 'ERR_INTERFACE_KIND' });
  t.match(addressesOf(link.index), {
    ipv4: [{ address: address('10.77.1.1'), prefixLength: 24, broadcast: address('10.77.1.255') }],
    globalIpv6: false,
  });
  host.ip('addr add 2001:db8::1/64 dev eth0 nodad');
  t.equal(addressesOf(link.index).globalIpv6, true, 'a global IPv6 address shows');
  t.equal(defaultRouteInterface().name, 'eth0');
  t.match(routeTo(firewallAddress), {
    interfaceIndex: link.index,
    gateway: address('10.77.1.254'),
    source: address('10.77.1.1'),
    local: false,
  });
  t.match(routeTo(address('10.77.1.9')), { gateway: 0, mtu: 1500 });
  t.match(routeTo(address('10.77.1.1')), { local: true });
  host.ip('route add 10.66.0.0/16 via 10.77.1.254 mtu lock 1234');
  t.equal(routeTo(address('10.66.1.1')).mtu, 1234, "a route's own MTU");
  host.ip('route add unreachable 10.67.0.0/16');
  t.throws(() => routeTo(address('10.67.0.1')), { code: 'ERR_NO_ROUTE', message: /10\.67\.0\.1/ });
  setLink(link.index, { mtu: 1450, queueLength: 77 });
  t.match(host.ip('link show eth0'), /mtu 1450 .*qlen 77/);
  t.throws(() => setLink(link.index, { mtu: 10 }), { code: 'ERR_SYSTEM_CALL' });
  host.ip('route del default');
  t.throws(() => defaultRouteInterface(), { code: 'ERR_NO_ROUTE' });
});
