// Untimed: another test may run beside this one.
/**
 * The TUN device against the kernel.
 *
 *     namespace "host"                     namespace "peer"
 *     10.88.0.1 on mptun0  -- this test -- mptun0 on 10.88.0.2
 *
 * The test process opens both devices and carries packets between them, columns and all; programs
 * in the namespaces are the kernel's TCP and UDP at either end.
 */
import { type ChildProcess, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import t from 'tap';
import { type Arena, createArena } from '../../engine/arena.ts';
import { createDatagramBatch, createPacketBatch, Direction, Gso } from '../../engine/io.ts';
import { Namespace, removeStaleNamespaces } from '../../lab/namespace.ts';
import { SOCK_DGRAM, SOCK_NONBLOCK, SOCK_RAW } from '../../linux/abi/net.ts';
import { createWaker, openReadiness } from '../../linux/epoll.ts';
import { insideNamespace } from '../../linux/namespace.ts';
import { listInterfaces } from '../../linux/netlink.ts';
import { allocate, check, close, connect, recv, send, socket } from '../../linux/syscall.ts';
import { createTun, openTunQueue, type Tun } from '../../linux/tun.ts';
import { createTunnelSockets, openTunnelSocket } from '../../linux/udp.ts';
import { writeSocketAddress } from '../../linux/udp-message.ts';
import { Reason } from '../../parsers/reason.ts';
import { addPiece, createPieces } from '../../tunnel/pieces.ts';
import {
  type DeviceRig,
  hostAddress,
  packetDeviceContract,
  peerAddress,
} from '../contract/packet-device.ts';
import { address, ipv4 } from '../support/packets.ts';

removeStaleNamespaces();
const host = new Namespace('host');
const peer = new Namespace('peer');
const descriptors = () => readdirSync('/proc/self/fd').length;
const ethPIpBigEndian = 0x0008;
const afPacket = 17;
const ipprotoRaw = 255;

/** A device of one queue in `namespace`, numbered, with the MTU of a usual network. */
function device(namespace: Namespace, local: string, remote: string): Tun {
  const tun = insideNamespace(namespace.path, () => createTun({ name: 'mptun0', queues: 1 }));
  namespace.ip('link set mptun0 mtu 1500');
  namespace.ip(`addr add ${local} peer ${remote} dev mptun0`);
  return tun;
}

t.test('the device is up, silent and without addresses, and goes when it is closed', async (t) => {
  const before = descriptors();
  const inside = <T>(work: () => T) => insideNamespace(host.path, work);
  const tun = inside(() => createTun({ name: 'mptun0', queues: 2 }));
  t.equal(tun.fds.length, 2);
  t.equal(tun.udpSegmentation, true);
  const link = inside(listInterfaces).find(({ index }) => index === tun.index);
  t.match(link, { name: 'mptun0', mtu: 65535, up: true, mac: '' });
  t.match(host.ip('link show dev mptun0'), /qlen 2048/);
  t.notMatch(host.ip('addr show dev mptun0'), /inet/);
  const arena = createArena(4, 1);
  const batch = createPacketBatch(arena.deviceSlots);
  await sleep(1500);
  for (const fd of tun.fds) {
    t.equal(openTunQueue(fd, arena, Direction.Egress, 1).read(batch), 0, 'the kernel says nothing');
  }
  t.throws(() => inside(() => createTun({ name: 'mptun0', queues: 1 })), { code: 'ERR_TUN_BUSY' });
  tun.close();
  tun.close();
  t.notOk(
    inside(listInterfaces).some(({ name }) => name === 'mptun0'),
    'the device is gone',
  );
  t.equal(descriptors(), before, 'no descriptor is left');
});

t.test('whoever may not make a device, or has none to make, is told', async (t) => {
  const attempt = `
    const { createTun } = await import('${process.cwd()}/dist/linux/tun.js');
    try { createTun({ name: 'mptun0', queues: 1 }); } catch (error) { console.log(error.code); }`;
  const node = [process.execPath, '--input-type=module', '-e', attempt];
  const drop = ['--reuid=65534', '--clear-groups', '--inh-caps=-all', '--bounding-set=-all'];
  t.equal(host.must('setpriv', [...drop, ...node]).trim(), 'ERR_NOT_PERMITTED');
  // A mount namespace of its own, in which /dev/net is empty.
  const script = 'mount -t tmpfs none /dev/net && exec "$@"';
  const result = spawnSync('unshare', ['--mount', 'sh', '-c', script, 'sh', ...node], {
    encoding: 'utf8',
  });
  t.equal(result.stdout.trim(), 'ERR_NO_TUN_DEVICE', result.stderr);
});

function kernelRig(): DeviceRig {
  const arena = createArena(4, 1);
  const tun = device(host, hostAddress, peerAddress);
  const buffer = allocate(65536);
  const target = allocate(16);
  writeSocketAddress(target.view, address(peerAddress), 0);
  const { raw, eye } = insideNamespace(host.path, () => ({
    // Whole packets out, by the route; and a copy of every IPv4 packet that comes in.
    raw: check(socket(2, SOCK_RAW, ipprotoRaw), 'socket'),
    eye: check(socket(afPacket, SOCK_DGRAM | SOCK_NONBLOCK, ethPIpBigEndian), 'socket'),
  }));
  check(connect(raw, target.address, 16), 'connect');
  return {
    device: openTunQueue(tun.fds[0], arena, Direction.Egress, 1),
    arena,
    deliver(packet) {
      buffer.bytes.set(packet);
      check(send(raw, buffer.address, packet.length, 0), 'send');
    },
    written() {
      const packets: Uint8Array[] = [];
      for (;;) {
        const length = recv(eye, buffer.address, 65536, 0);
        if (length < 0) return packets;
        packets.push(buffer.bytes.slice(0, length));
      }
    },
    close() {
      for (const fd of [raw, eye]) close(fd);
      tun.close();
    },
  };
}

t.test('it obeys the contract of devices', async (t) => packetDeviceContract(t, kernelRig));

t.test('what it refuses has a reason', async (t) => {
  const arena = createArena(4, 1);
  const tun = device(host, hostAddress, peerAddress);
  t.teardown(() => tun.close());
  const queue = openTunQueue(tun.fds[0], arena, Direction.Egress, 1);
  const pieces = createPieces();
  addPiece(pieces, arena.scratchAt, 100);
  const write = () => queue.write(pieces, Gso.None, 0, 0, 0);
  arena.bytes.fill(0, arena.scratchAt, arena.scratchAt + 100);
  t.equal(write(), Reason.DeviceRefused, 'IP version 0');
  const packet = ipv4({ source: peerAddress, target: hostAddress }, 253, new Uint8Array(80));
  arena.bytes.set(packet, arena.scratchAt);
  t.equal(write(), Reason.Ok);
  t.equal(
    queue.write(pieces, Gso.None, 0, 90, 16),
    Reason.DeviceRefused,
    'a checksum outside of the packet',
  );
  host.ip('link set mptun0 down');
  t.equal(write(), Reason.DeviceDown, 'the device is down');
  host.ip('link del mptun0');
  t.equal(write(), Reason.DeviceDown, 'the device is gone');
  const batch = createPacketBatch(arena.deviceSlots);
  t.equal(queue.read(batch), 0);
  t.ok(queue.failure > 0, 'and reading says so');
  const waker = createWaker();
  const readiness = openReadiness(tun.fds, waker.fd);
  readiness.wait(1000);
  const start = performance.now();
  readiness.wait(50);
  t.ok(performance.now() - start > 45, 'a dead device does not keep the engine awake');
  readiness.close();
  waker.close();
});

/** Everything between two devices until `until` resolves, unchanged; what was seen. */
class Relay {
  readonly seen = { packets: 0, tcp: 0, udp: 0, longest: 0, gsoSizes: new Set<number>() };
  readonly refused: Reason[] = [];
  private readonly arena: Arena = createArena(32, 1);
  private readonly batch = createPacketBatch(this.arena.deviceSlots);
  private readonly pieces = createPieces();
  private readonly a: ReturnType<typeof openTunQueue>;
  private readonly b: ReturnType<typeof openTunQueue>;

  constructor(a: Tun, b: Tun) {
    this.a = openTunQueue(a.fds[0], this.arena, Direction.Egress, 1);
    this.b = openTunQueue(b.fds[0], this.arena, Direction.Egress, 1);
  }

  async run(until: Promise<unknown>): Promise<void> {
    let running = true;
    void until.finally(() => {
      running = false;
    });
    while (running) {
      if (this.move(this.a, this.b) + this.move(this.b, this.a) === 0) await sleep(0);
      else await new Promise(setImmediate);
    }
  }

  move(from: ReturnType<typeof openTunQueue>, to: ReturnType<typeof openTunQueue>): number {
    const { batch, pieces, seen } = this;
    const count = from.read(batch);
    for (let i = 0; i < count; i++) {
      seen.packets++;
      seen.longest = Math.max(seen.longest, batch.length[i]);
      if (batch.gso[i] === Gso.Tcp4) seen.tcp++;
      if (batch.gso[i] === Gso.Udp) seen.udp++;
      if (batch.gso[i] !== Gso.None) seen.gsoSizes.add(batch.gsoSize[i]);
      pieces.count = 0;
      // Cut where no header ends, as a joined packet would be.
      const half = batch.length[i] >> 1;
      addPiece(pieces, batch.at[i], half);
      addPiece(pieces, batch.at[i] + half, batch.length[i] - half);
      if (half < 60) {
        pieces.count = 0;
        addPiece(pieces, batch.at[i], batch.length[i]);
      }
      const result = to.write(
        pieces,
        batch.gso[i] as Gso,
        batch.gsoSize[i],
        batch.checksumStart[i],
        batch.checksumOffset[i],
      );
      if (batch.reason[i] !== Reason.Ok) this.refused.push(batch.reason[i]);
      if (result !== Reason.Ok) this.refused.push(result);
    }
    return count;
  }

  /** One pass from the first device to the second. */
  step(): number {
    return this.move(this.a, this.b);
  }
}

function output(child: ChildProcess): Promise<string> {
  let text = '';
  child.stdout?.on('data', (data) => {
    text += data;
  });
  return once(child, 'close').then(() => text);
}

const megabytes = 48;
/** Sends, or receives and prints the hash of, the same bytes: a counter in 32 bits. */
const program = `
  const [role, address] = process.argv.slice(1);
  const net = require('node:net');
  const hash = require('node:crypto').createHash('sha256');
  const words = new Uint32Array(262144);
  if (role === 'server') {
    net.createServer((socket) => {
      socket.on('data', (data) => hash.update(data));
      socket.on('end', () => { console.log(hash.digest('hex')); process.exit(); });
    }).listen(5001, address, () => console.log('ready'));
  } else {
    const socket = net.connect(5001, address);
    let sent = 0;
    const more = () => {
      if (sent === ${megabytes}) { socket.end(); console.log(hash.digest('hex')); return; }
      words.forEach((_, index) => { words[index] = sent * 262144 + index; });
      sent++;
      const copy = Buffer.from(words.buffer.slice(0));
      hash.update(copy);
      socket.write(copy, more);
    };
    socket.on('connect', more);
  }`;

t.test('TCP super-packets come out and go in whole, and their data is intact', async (t) => {
  const a = device(host, hostAddress, peerAddress);
  const b = device(peer, peerAddress, hostAddress);
  const relay = new Relay(a, b);
  t.teardown(() => {
    a.close();
    b.close();
  });
  const node = ['-e', program];
  const stdio = ['ignore', 'pipe', 'inherit'] as const;
  const server = peer.spawn(process.execPath, [...node, 'server', peerAddress], {
    stdio: [...stdio],
  });
  const received = output(server);
  await once(server.stdout as NodeJS.ReadableStream, 'data');
  const client = host.spawn(process.execPath, [...node, 'client', peerAddress], {
    stdio: [...stdio],
  });
  const sent = output(client);
  await relay.run(Promise.all([received, sent]));
  const hash = (await sent).trim();
  t.match(hash, /^[0-9a-f]{64}$/);
  t.equal((await received).replace('ready', '').trim(), hash, 'the data is what was sent');
  t.same(relay.refused, [], 'nothing was refused');
  t.ok(relay.seen.tcp > 0, `${relay.seen.tcp} super-packets of ${relay.seen.packets} packets`);
  t.ok(relay.seen.longest > 30000, `the longest had ${relay.seen.longest} bytes`);
  t.same([...relay.seen.gsoSizes], [1448], 'in segments of MTU - 20 - 32');
});

t.test('so do UDP super-packets', async (t) => {
  const a = device(host, hostAddress, peerAddress);
  const b = device(peer, peerAddress, hostAddress);
  const relay = new Relay(a, b);
  const arena = createArena(1, 4);
  const firewalls = [{ address: address(peerAddress), port: 6081 }];
  const near = insideNamespace(host.path, () =>
    createTunnelSockets({ port: 6081, firewalls, senders: 1 }),
  );
  const far = insideNamespace(peer.path, () => createTunnelSockets({ port: 6081, firewalls: [] }));
  t.teardown(() => {
    for (const owner of [near, far, a, b]) owner.close();
  });
  const sender = openTunnelSocket(near, arena, 4);
  const receiver = openTunnelSocket(far, arena, 4);
  const pieces = createPieces();
  for (let i = 0; i < 3500; i++) arena.bytes[arena.scratchAt + i] = i % 251;
  addPiece(pieces, arena.scratchAt, 3500);
  sender.queue(pieces, 1000, firewalls[0].address, 1, 0);
  t.equal(sender.flush(), 1);
  t.equal(sender.results[0], Reason.Ok);
  t.equal(relay.step(), 1, 'one read');
  t.match(relay.seen, { udp: 1, longest: 3528 });
  t.same([...relay.seen.gsoSizes], [1000]);
  t.same(relay.refused, []);
  const batch = createDatagramBatch(arena.datagramSlots);
  t.equal(receiver.receive(batch), 1, 'one receive');
  t.equal(batch.length[0], 3500);
  t.equal(batch.segmentSize[0], 1000);
  const got = arena.bytes.slice(batch.at[0], batch.at[0] + 3500);
  const wanted = arena.bytes.slice(arena.scratchAt, arena.scratchAt + 3500);
  t.equal(Buffer.compare(got, wanted), 0, 'the same bytes');
});
