/**
 * The tunnel's UDP sockets. `createTunnelSockets` makes them in the main thread: one that receives
 * on the tunnel's port (or two, where each direction has its own) from anybody (a firewall answers
 * from any source port), and for each firewall several connected ones that send.
 * `openTunnelSocket` moves datagrams through them, in any thread.
 *
 * A sender's source address is what the route had when it was connected: on a host whose address
 * changes, `reconnectSenders` looks it up again.
 */
import { constants } from 'node:os';
import type { Arena } from '../engine/arena.ts';
import type { DatagramBatch, TunnelSocket } from '../engine/io.ts';
import type { Direction, Pieces } from '../tunnel/pieces.ts';
import * as abi from './abi/net.ts';
import type { Program } from './bpf/asm.ts';
import { loadProgram } from './bpf/load.ts';
import { callFailed, errnoName, SystemError } from './errors.ts';
import { Closers } from './fd.ts';
import { features, requireFeature } from './feature.ts';
import {
  allocate,
  bind,
  check,
  close,
  connect,
  errno,
  type Fd,
  getsockname,
  LITTLE_ENDIAN,
  setsockopt,
  socket,
} from './syscall.ts';
import { writeSocketAddress } from './udp-message.ts';
import { DatagramReceiver } from './udp-receive.ts';
import type { Peer } from './udp-row.ts';
import { DatagramSender } from './udp-send.ts';

/** Enough source ports to spread flows over a firewall's queues and ECMP's paths. */
const defaultSenders = 16;
/** 6.7 ms of 10 Gbit/s, longer than a turn of the event loop; the kernel doubles it. */
const receiveBufferLength = 8 * 1024 * 1024;
/** One batch of 64 super-datagrams of 64 KiB to one firewall by one port. */
const sendBufferLength = 4 * 1024 * 1024;

export type TunnelSocketOptions = {
  /** Where firewalls' answers arrive. */
  readonly port: number;
  /** And where else, when each direction has a port of its own. */
  readonly ingressPort?: number;
  /** Local address, int32; 0 or absent for any. */
  readonly address?: number;
  /**
   * Addresses, int32, with the port that the tunnel has there: one entry each, or one for each
   * direction.
   */
  readonly firewalls: readonly Pick<Peer, 'address' | 'port' | 'direction'>[];
  /** Sockets, and so source ports, for each firewall; the workers divide them. */
  readonly senders?: number;
  /** Source ports to choose from, both included; absent: the kernel chooses. */
  readonly sourcePorts?: { readonly first: number; readonly last: number };
  /**
   * Whether the kernel joins datagrams of equal size before it hands them over; by default it does.
   * Joined ones can't be carried by the programs in the kernel.
   */
  readonly join?: boolean;
  /** What no route leads to is not an error: `reconnectSenders` connects it when there is one. */
  readonly awaitRoutes?: boolean;
  /** Outer TTL; absent: the system's. */
  readonly ttl?: number;
  /** Threads that each have sockets of their own; 1 by default. */
  readonly workers?: number;
  /** Which worker's socket a datagram goes to; the kernel chooses by the outer header otherwise. */
  readonly receiver?: Program | undefined;
};

/** Plain numbers, to be handed to another thread. */
export type TunnelDescriptors = {
  readonly receive: Fd;
  /** Of `ingressPort`, where there is one. */
  readonly receiveIngress: Fd | undefined;
  readonly peers: readonly Peer[];
};

/** Itself those of the first worker, but for `peers`, which are those of all. */
export type TunnelSockets = TunnelDescriptors & {
  readonly workers: readonly TunnelDescriptors[];
  /** Idempotent. */
  close(): void;
};

/**
 * @throws SystemError ERR_PORT_IN_USE, ERR_NO_ROUTE, ERR_NOT_PERMITTED, ERR_SYSTEM_CALL;
 *   UnsupportedFeature for a kernel without UDP_SEGMENT or UDP_GRO
 */
export function createTunnelSockets(options: TunnelSocketOptions): TunnelSockets {
  requireFeature(features.udpSegmentation);
  requireFeature(features.udpJoining);
  const closers = new Closers();
  try {
    const { ingressPort, port, senders = defaultSenders, workers: count = 1 } = options;
    const receive = createReceivers(options, port, closers);
    const receiveIngress =
      ingressPort === undefined ? [] : createReceivers(options, ingressPort, closers);
    const ports = new SourcePorts(options.sourcePorts);
    const workers = receive.map((fd, worker) => ({
      receive: fd,
      receiveIngress: receiveIngress[worker],
      peers: options.firewalls.map(({ address, direction, port }) => ({
        address,
        port,
        direction,
        senders: Array.from({ length: Math.ceil(senders / count) }, () =>
          createSender(options, address, port, ports, closers),
        ),
      })),
    }));
    const peers = workers.flatMap((worker) => worker.peers);
    return { ...workers[0]!, peers, workers, close: () => closers.closeAll() };
  } catch (error) {
    closers.closeAll();
    throw error;
  }
}

/**
 * Connect every sender anew, so that its source address is the one of now; the data path may go on
 * sending meanwhile, and what it sends between the two calls is refused. False when there is no
 * route or no address now: then nothing can be sent until it is called again.
 */
export function reconnectSenders(peers: readonly Peer[]): boolean {
  const target = allocate(abi.sockaddr_in.size);
  let connected = true;
  for (const { address, port, senders } of peers) {
    for (const fd of senders) {
      target.view.setUint16(abi.sockaddr_in.sin_family, abi.AF_UNSPEC, LITTLE_ENDIAN);
      connect(fd, target.address, abi.sockaddr_in.size);
      writeSocketAddress(target.view, address, port);
      connected = connect(fd, target.address, abi.sockaddr_in.size) === 0 && connected;
    }
  }
  return connected;
}

export type TunnelTuning = {
  /** false: never let the kernel cut super-datagrams. */
  readonly segmentation?: boolean;
};

/**
 * @param batchSize how many sends one flush takes and how many datagrams one receive returns
 */
export function openTunnelSocket(
  descriptors: TunnelDescriptors,
  arena: Arena,
  batchSize: number,
  tuning: TunnelTuning = {},
): UdpTunnelSocket {
  return new UdpTunnelSocket(descriptors, arena, batchSize, tuning.segmentation ?? true);
}

class UdpTunnelSocket implements TunnelSocket {
  readonly results: Int32Array;
  private readonly receiver: DatagramReceiver;
  private readonly sender: DatagramSender;

  constructor(
    descriptors: TunnelDescriptors,
    arena: Arena,
    batchSize: number,
    segmentation: boolean,
  ) {
    this.receiver = new DatagramReceiver(receiversOf(descriptors), arena, batchSize);
    this.sender = new DatagramSender(descriptors.peers, arena, batchSize, segmentation);
    this.results = this.sender.results;
  }

  /** Whether the kernel cuts super-datagrams: false once a device could not (EIO). */
  get segmentation(): boolean {
    return this.sender.segmentation;
  }

  receive(batch: DatagramBatch): number {
    return this.receiver.receive(batch);
  }

  queue(
    pieces: Pieces,
    segmentSize: number,
    peer: number,
    entropy: number,
    tos: number,
    direction?: Direction,
  ): boolean {
    return this.sender.queue(pieces, segmentSize, peer, entropy, tos, direction);
  }

  flush(): number {
    return this.sender.flush();
  }

  pathMtu(peer: number): number {
    return this.sender.pathMtu(peer);
  }
}

/** What becomes readable when an answer has come. */
export function receiversOf({ receive, receiveIngress }: TunnelDescriptors): readonly Fd[] {
  return receiveIngress === undefined ? [receive] : [receive, receiveIngress];
}

/** One for each worker, in the order of the workers; `receiver` chooses among them. */
function createReceivers(
  options: TunnelSocketOptions,
  port: number,
  closers: Closers,
): readonly Fd[] {
  const { receiver, workers = 1 } = options;
  const fds = Array.from({ length: workers }, () => createReceiver(options, port, closers));
  if (receiver !== undefined) attachReceiver(fds[0]!, receiver);
  return fds;
}

function createReceiver(options: TunnelSocketOptions, port: number, closers: Closers): Fd {
  const fd = openSocket(closers);
  setBuffer(fd, abi.SO_RCVBUFFORCE, abi.SO_RCVBUF, receiveBufferLength);
  const join = options.join === false ? 0 : 1;
  check(setOption(fd, abi.SOL_UDP, abi.UDP_GRO, join), 'setsockopt(UDP_GRO)');
  if ((options.workers ?? 1) > 1) {
    check(setOption(fd, abi.SOL_SOCKET, abi.SO_REUSEPORT, 1), 'setsockopt(SO_REUSEPORT)');
  }
  if (bindTo(fd, options.address ?? 0, port) < 0) {
    const code = errno();
    if (code === constants.errno.EADDRINUSE) throw portInUse(`UDP port ${port}`);
    throw callFailed('bind', code);
  }
  return fd;
}

/** For all sockets on the port. */
function attachReceiver(fd: Fd, program: Program): void {
  const programFd = loadProgram(program, {});
  const attached = setOption(fd, abi.SOL_SOCKET, abi.SO_ATTACH_REUSEPORT_EBPF, programFd);
  const code = errno();
  close(programFd);
  if (attached < 0) throw callFailed('setsockopt(SO_ATTACH_REUSEPORT_EBPF)', code);
}

function createSender(
  options: TunnelSocketOptions,
  address: number,
  port: number,
  ports: SourcePorts,
  closers: Closers,
): Fd {
  const fd = openSocket(closers);
  setBuffer(fd, abi.SO_SNDBUFFORCE, abi.SO_SNDBUF, sendBufferLength);
  // Nobody reads a sender: what a firewall sends to its port must not pile up. 0 is the minimum.
  check(setOption(fd, abi.SOL_SOCKET, abi.SO_RCVBUF, 0), 'setsockopt(SO_RCVBUF)');
  const discover = setOption(fd, abi.IPPROTO_IP, abi.IP_MTU_DISCOVER, abi.IP_PMTUDISC_DO);
  check(discover, 'setsockopt(IP_MTU_DISCOVER)');
  if (options.ttl !== undefined) {
    check(setOption(fd, abi.IPPROTO_IP, abi.IP_TTL, options.ttl), 'setsockopt(IP_TTL)');
  }
  ports.bind(fd, options.address ?? 0);
  const target = allocate(abi.sockaddr_in.size);
  writeSocketAddress(target.view, address, port);
  if (connect(fd, target.address, abi.sockaddr_in.size) < 0) {
    const failure = connectFailed(errno());
    if (failure.code !== 'ERR_NO_ROUTE' || options.awaitRoutes !== true) throw failure;
  }
  return fd;
}

/** What a sender's datagrams come from. Throws SystemError. */
export function sourceOf(sender: Fd): { readonly address: number; readonly port: number } {
  const { address, view } = allocate(abi.sockaddr_in.size + 4);
  view.setUint32(abi.sockaddr_in.size, abi.sockaddr_in.size, LITTLE_ENDIAN);
  check(getsockname(sender, address, address + abi.sockaddr_in.size), 'getsockname');
  return {
    address: view.getInt32(abi.sockaddr_in.sin_addr),
    port: view.getUint16(abi.sockaddr_in.sin_port),
  };
}

/** Hands out the ports of a range, skipping those that somebody holds. */
class SourcePorts {
  private next: number;
  private readonly range: { readonly first: number; readonly last: number } | undefined;

  constructor(range: { readonly first: number; readonly last: number } | undefined) {
    this.range = range;
    this.next = range?.first ?? 0;
  }

  bind(fd: Fd, address: number): void {
    if (this.range === undefined) {
      check(bindTo(fd, address, 0), 'bind');
      return;
    }
    const { first, last } = this.range;
    while (this.next <= last) {
      if (bindTo(fd, address, this.next++) === 0) return;
      if (errno() !== constants.errno.EADDRINUSE) throw callFailed('bind', errno());
    }
    throw portInUse(`every usable source port from ${first} to ${last}`);
  }
}

function portInUse(what: string): SystemError {
  return new SystemError('ERR_PORT_IN_USE', `${what} is in use`, {
    call: 'bind',
    errno: constants.errno.EADDRINUSE,
    advice:
      'See who holds it with "ss -lunp"; a tunnel device of the kernel (ip -d link) holds its ' +
      'port without being listed.',
  });
}

function connectFailed(code: number): SystemError {
  const { ENETUNREACH, EHOSTUNREACH } = constants.errno;
  if (code !== ENETUNREACH && code !== EHOSTUNREACH) return callFailed('connect', code);
  return new SystemError('ERR_NO_ROUTE', `there is no route to the firewall (${errnoName(code)})`, {
    call: 'connect',
    errno: code,
    advice: 'Check the address of the firewall and the routing table (ip route get).',
  });
}

function openSocket(closers: Closers): Fd {
  const type = abi.SOCK_DGRAM | abi.SOCK_NONBLOCK | abi.SOCK_CLOEXEC;
  return closers.own(check(socket(abi.AF_INET, type, 0), 'socket(AF_INET)'));
}

function bindTo(fd: Fd, address: number, port: number): number {
  const region = allocate(abi.sockaddr_in.size);
  writeSocketAddress(region.view, address, port);
  return bind(fd, region.address, abi.sockaddr_in.size);
}

function setOption(fd: Fd, level: number, name: number, value: number): number {
  const region = allocate(4);
  region.view.setInt32(0, value, LITTLE_ENDIAN);
  return setsockopt(fd, level, name, region.address, 4);
}

/** Past the system's limit where we may (CAP_NET_ADMIN), up to it otherwise. */
function setBuffer(fd: Fd, forced: number, limited: number, length: number): void {
  if (setOption(fd, abi.SOL_SOCKET, forced, length) === 0) return;
  check(setOption(fd, abi.SOL_SOCKET, limited, length), 'setsockopt(buffer)');
}
