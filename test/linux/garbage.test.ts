// Flags: --expose-gc --min-semi-space-size=64 --max-semi-space-size=64
/**
 * What a packet leaves on the heap: the whole data path with its real system calls, in one thread,
 * over sockets of the loopback. Datagrams with a virtio header stand for the TUN device, a socket
 * that sends everything back for the firewall.
 */
import { getHeapSpaceStatistics } from 'node:v8';
import t, { type Test } from 'tap';
import { createArena } from '../../engine/arena.ts';
import { countersByteLength, openPublishedCounters, snapshot } from '../../engine/counters.ts';
import { createEngine, datagramBatch, deviceBatch } from '../../engine/engine.ts';
import { firewallColumnsByteLength } from '../../engine/firewall-columns.ts';
import { flowColumnsByteLength } from '../../engine/flow-columns.ts';
import { createGates } from '../../engine/gate.ts';
import { Direction } from '../../engine/io.ts';
import * as abi from '../../linux/abi/net.ts';
import { noCarrier } from '../../linux/carrier.ts';
import { openClock } from '../../linux/clock.ts';
import { openReadiness } from '../../linux/epoll.ts';
import {
  allocate,
  bind,
  check,
  close,
  connect,
  eventfd,
  type Fd,
  LITTLE_ENDIAN,
  recvmmsg,
  sendmmsg,
  setPointer,
  socket,
} from '../../linux/syscall.ts';
import { openTunQueue } from '../../linux/tun.ts';
import { createTunnelSockets, openTunnelSocket } from '../../linux/udp.ts';
import { writeSocketAddress } from '../../linux/udp-message.ts';
import { Reason } from '../../parsers/reason.ts';
import { createGeneve } from '../../tunnel/geneve.ts';
import { createPolicy, out, peerOptions } from '../support/engine.ts';
import { address, udp } from '../support/packets.ts';

const loopback = address('127.0.0.1');
/** Below the ports that the kernel hands out, and not those of another run. */
const firstPort = 20_000 + (process.pid % 3000) * 4;
const ports = {
  tunnel: firstPort,
  firewall: firstPort + 1,
  device: firstPort + 2,
  feeder: firstPort + 3,
};
/** Packets fed and datagrams returned by one call: a full batch. A breath may leave a Number. */
const burst = 64;
const virtioLength = 10;
const roomForOne = 2048;

function open(port: number, target: number): Fd {
  const type = abi.SOCK_DGRAM | abi.SOCK_NONBLOCK | abi.SOCK_CLOEXEC;
  const fd = check(socket(abi.AF_INET, type, 0), 'socket');
  const name = allocate(abi.sockaddr_in.size);
  writeSocketAddress(name.view, loopback, port);
  check(bind(fd, name.address, abi.sockaddr_in.size), 'bind');
  if (target === 0) return fd;
  writeSocketAddress(name.view, loopback, target);
  check(connect(fd, name.address, abi.sockaddr_in.size), 'connect');
  return fd;
}

/** What the kernel holds an address of. */
const reachable: unknown[] = [];

/** Messages of one buffer each, to be sent, received or sent back; `target` 0: the peer's. */
function createMessages(roomEach: number, target: number) {
  const bytes = allocate(burst * roomEach);
  const vectors = allocate(burst * abi.iovec.size);
  const messages = allocate(burst * abi.mmsghdr.size);
  const name = allocate(abi.sockaddr_in.size);
  writeSocketAddress(name.view, loopback, target);
  for (let index = 0; index < burst; index++) {
    const vectorAt = index * abi.iovec.size;
    const at = index * abi.mmsghdr.size;
    setPointer(vectors.view, vectorAt, bytes.address + index * roomEach);
    vectors.view.setUint32(vectorAt + abi.iovec.iov_len, roomEach, LITTLE_ENDIAN);
    setPointer(messages.view, at + abi.msghdr.msg_iov, vectors.address + vectorAt);
    messages.view.setUint32(at + abi.msghdr.msg_iovlen, 1, LITTLE_ENDIAN);
    if (target === 0) continue;
    setPointer(messages.view, at + abi.msghdr.msg_name, name.address);
    messages.view.setUint32(at + abi.msghdr.msg_namelen, abi.sockaddr_in.size, LITTLE_ENDIAN);
  }
  const all = { bytes, vectors, messages, name };
  reachable.push(all);
  return all;
}

/** Sends back to the tunnel's port what has come to the firewall. */
function createEcho(firewall: Fd): () => void {
  const { messages, name, vectors } = createMessages(roomForOne, ports.tunnel);
  const lengthAt = abi.iovec.iov_len;
  return () => {
    for (let index = 0; index < burst; index++) {
      vectors.view.setUint32(index * abi.iovec.size + lengthAt, roomForOne, LITTLE_ENDIAN);
    }
    const count = recvmmsg(firewall, messages.address, burst, abi.MSG_DONTWAIT, 0);
    for (let index = 0; index < count; index++) {
      const at = index * abi.mmsghdr.size + abi.mmsghdr.msg_len;
      const length = messages.view.getUint32(at, LITTLE_ENDIAN);
      vectors.view.setUint32(index * abi.iovec.size + lengthAt, length, LITTLE_ENDIAN);
    }
    // The kernel has written there where they came from.
    writeSocketAddress(name.view, loopback, ports.tunnel);
    if (count > 0) sendmmsg(firewall, messages.address, count, 0);
  };
}

/** The data path with a queue that reads and writes `device`. */
function start(t: Test, device: Fd) {
  const sockets = createTunnelSockets({
    port: ports.tunnel,
    address: loopback,
    firewalls: [{ address: loopback, port: ports.firewall }],
  });
  const wake = check(eventfd(0, abi.EFD_NONBLOCK), 'eventfd');
  const readiness = openReadiness([device, sockets.receive], wake);
  t.teardown(() => {
    readiness.close();
    close(wake);
    sockets.close();
  });
  const arena = createArena(deviceBatch, datagramBatch);
  const clock = openClock();
  const queue = openTunQueue(device, arena, Direction.Egress, 2);
  const shared = new SharedArrayBuffer(countersByteLength);
  const gates = createGates(1);
  gates[0]!.renew(clock.now() + 1e9);
  const returnFrom = { address: loopback, length: 32 };
  const loop = createEngine(
    {
      devices: [queue, queue],
      openers: [],
      socket: openTunnelSocket(sockets, arena, datagramBatch),
      carrier: noCarrier,
      steering: { heartbeat() {}, setMode() {}, remember() {}, adopt() {} },
      clock,
      readiness,
    },
    arena,
    createGeneve({ port: ports.tunnel, vni: 1, optionClass: 1, optionType: 1, inner: 'ipv4' }),
    {
      flows: 1024,
      mtuLimit: 9216,
      peers: peerOptions({ firewalls: [{ address: loopback, returnFrom }] }),
      policy: createPolicy({ allFirewalls: 1 }, []),
      joinUdp: false,
    },
    gates,
    shared,
    new SharedArrayBuffer(firewallColumnsByteLength(1)),
    new SharedArrayBuffer(flowColumnsByteLength(1024)),
  );
  return { loop, readiness, counters: openPublishedCounters(shared) };
}

t.test('a packet there and back leaves less than a byte of garbage', async (t) => {
  const device = open(ports.device, ports.feeder);
  const feeder = open(ports.feeder, ports.device);
  const firewall = open(ports.firewall, 0);
  t.teardown(() => [device, feeder, firewall].forEach((fd) => void close(fd)));
  const { counters, loop, readiness } = start(t, device);
  const packet = udp(out, 5000, 53, Buffer.alloc(64, 'x'));
  const feed = createMessages(virtioLength + packet.length, 0);
  for (let index = 0; index < burst; index++) {
    feed.bytes.bytes.set(packet, index * (virtioLength + packet.length) + virtioLength);
  }
  const drain = createMessages(roomForOne, 0);
  const echo = createEcho(firewall);
  const run = (rounds: number) => {
    for (let round = 0; round < rounds; round++) {
      sendmmsg(feeder, feed.messages.address, burst, 0);
      loop.breathe();
      echo();
      loop.breathe();
      recvmmsg(feeder, drain.messages.address, burst, abi.MSG_DONTWAIT, 0);
      readiness.wait(0);
    }
  };
  const rounds = 1000;
  // Until everything is compiled.
  run(1.5 * rounds);
  const measure = () => {
    globalThis.gc!();
    const before = newSpaceUsed();
    run(rounds);
    return (newSpaceUsed() - before) / (rounds * burst);
  };
  // A busy machine compiles late, and that leaves garbage of its own.
  const bytes = Math.min(measure(), measure(), measure());
  const { packets } = snapshot(counters);
  t.ok(packets[Reason.Redirected]! > rounds * burst, 'they went');
  t.ok(packets[Reason.Reinjected]! > 0.99 * packets[Reason.Redirected]!, 'and came back');
  t.ok(bytes <= 1, `${bytes.toFixed(3)} bytes`);
});

function newSpaceUsed(): number {
  const spaces = getHeapSpaceStatistics();
  return spaces.find((space) => space.space_name === 'new_space')!.space_used_size;
}
