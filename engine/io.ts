/**
 * What the engine needs of the world, stated once: two devices to read and write packets, a socket
 * to the firewall, steering in the kernel, a clock and a way to sleep. linux/ implements it with
 * system calls, test/fakes in memory; both obey the same contract tests.
 *
 * Nothing here allocates, throws or waits per packet. Batches are columns of numbers over one
 * arena; their capacity is fixed for life. A batch belongs to whoever was last given it: a read
 * fills it from index 0 and its packets stay valid until the next read into the same batch.
 */
import type { Reason } from '../parsers/reason.ts';
import { Direction, Gso, type Pieces } from '../tunnel/pieces.ts';

// Words that tunnel/ speaks too; they stand in the lower folder.
export { Direction, Gso };

/** Columns of packets read from a device. `at` points to the IPv4 header. */
export type PacketBatch = {
  readonly capacity: number;
  count: number;
  readonly at: Int32Array;
  readonly length: Int32Array;
  /** Gso.None for an ordinary packet. */
  readonly gso: Uint8Array;
  /** Payload bytes of each segment of a super-packet; 0 otherwise. */
  readonly gsoSize: Uint16Array;
  /**
   * Where the transport header starts (relative to `at`) when its checksum field holds only the
   * pseudo-header sum and must be finished before the packet leaves the host; 0 when the
   * checksum is complete.
   */
  readonly checksumStart: Uint16Array;
  /** Offset of the checksum field from `checksumStart` (16 TCP, 6 UDP). */
  readonly checksumOffset: Uint16Array;
  /** Reason.Ok, or why the device already refused what the kernel handed over. */
  readonly reason: Int32Array;
};

export function createPacketBatch(slots: Int32Array): PacketBatch {
  const capacity = slots.length;
  return {
    capacity,
    count: 0,
    at: Int32Array.from(slots),
    length: new Int32Array(capacity),
    gso: new Uint8Array(capacity),
    gsoSize: new Uint16Array(capacity),
    checksumStart: new Uint16Array(capacity),
    checksumOffset: new Uint16Array(capacity),
    reason: new Int32Array(capacity),
  };
}

/** Columns of datagrams received from the tunnel. `at` points to the UDP payload. */
export type DatagramBatch = {
  readonly capacity: number;
  count: number;
  readonly at: Int32Array;
  readonly length: Int32Array;
  /** Joined by the kernel (UDP_GRO): each datagram but the last has this length. Else = length. */
  readonly segmentSize: Int32Array;
  /** Sender's IPv4 address as int32 (getInt32 of the wire bytes). */
  readonly source: Int32Array;
  /** Reason.Ok or Reason.TunnelTruncated. */
  readonly reason: Int32Array;
};

export function createDatagramBatch(slots: Int32Array): DatagramBatch {
  const capacity = slots.length;
  return {
    capacity,
    count: 0,
    at: Int32Array.from(slots),
    length: new Int32Array(capacity),
    segmentSize: new Int32Array(capacity),
    source: new Int32Array(capacity),
    reason: new Int32Array(capacity),
  };
}

/**
 * One queue of the TUN device: one direction of one interface. What is read was on its way in that
 * direction; what is written goes on in that direction (egress: out by the interface to the next
 * hop; ingress: in by the interface, as if it had arrived there).
 */
export interface PacketDevice {
  readonly direction: Direction;
  /** Kernel index of the workload interface that this queue stands for. */
  readonly interfaceIndex: number;
  /**
   * Not 0: the errno for which nothing can be read any more, such as EBADFD when it was deleted.
   */
  readonly failure: number;
  /** Never blocks. Fills `batch` from 0 until it is full or the queue is empty; returns count. */
  read(batch: PacketBatch): number;
  /**
   * Write the pieces `pieceAt/pieceLength[0..count)` of the arena as one packet. Never blocks.
   * `gso`/`gsoSize` describe a super-packet (then the checksum must be partial). `checksumStart`
   * not 0: the checksum is partial and the kernel finishes it. The first piece of a super-packet
   * holds its IP and transport headers. Returns Ok or a Device… reason.
   */
  write(
    pieces: Pieces,
    gso: Gso,
    gsoSize: number,
    checksumStart: number,
    checksumOffset: number,
  ): Reason;
}

/** The tunnel's UDP socket(s). */
export interface TunnelSocket {
  /** Never blocks. Fills `batch` from 0 until full or nothing is left; returns count. */
  receive(batch: DatagramBatch): number;
  /**
   * Queue one send to the firewall `peer`: the pieces as they follow each other, cut by the kernel
   * into datagrams of `segmentSize` bytes (0: one datagram; else every datagram has that size but
   * the last). Pieces are copied into the queue; the arena bytes they point to must stay until
   * flush. `entropy` chooses the source port: equal values, equal ports. `tos` is the outer
   * TOS byte. `direction` chooses the port at the firewall where each has its own. Returns false
   * when the queue is full: flush, then queue again.
   */
  queue(
    pieces: Pieces,
    segmentSize: number,
    peer: number,
    entropy: number,
    tos: number,
    direction?: Direction,
  ): boolean;
  /**
   * Send everything queued, in order. Afterwards `results[i]` holds Ok or a Socket… reason for the
   * i-th queued send. Returns how many there were.
   */
  flush(): number;
  readonly results: Int32Array;
  /** Whether the kernel cuts what is queued; false once a device could not, then we do it. */
  readonly segmentation: boolean;
  /**
   * Largest IPv4 packet that reaches `peer` whole, as the kernel knows it now (interface MTU or a
   * learned path MTU), in bytes. A system call: ask on SocketTooBig and now and then.
   */
  pathMtu(peer: number): number;
}

/**
 * What the kernel programs do with a packet that would be redirected. RedirectAll: as Redirect, but
 * nothing that they remember or know of networks holds.
 */
export const SteeringMode = { Pass: 0, Redirect: 1, Drop: 2, RedirectAll: 3 } as const;
export type SteeringMode = (typeof SteeringMode)[keyof typeof SteeringMode];

/** What the kernel programs remember of a flow. */
export const KernelVerdict = { Ask: 0, Pass: 1, Drop: 2, Carry: 3 } as const;
export type KernelVerdict = (typeof KernelVerdict)[keyof typeof KernelVerdict];

/** The steering programs in the kernel, as far as the data path speaks to them. */
export interface Steering {
  /** Say that the engine lives, at CLOCK_MONOTONIC `nowMs`: once a breath. No system call. */
  heartbeat(nowMs: number): void;
  /** What to do while the engine lives. No system call. */
  setMode(mode: SteeringMode): void;
  /**
   * Let the kernel decide this flow by itself from now on, both directions. Addresses are int32,
   * ports numbers. A system call. A TCP SYN of the same 5-tuple still comes to the engine.
   */
  remember(
    local: number,
    remote: number,
    localPort: number,
    remotePort: number,
    protocol: number,
    verdict: KernelVerdict,
  ): void;
  /**
   * From now on a policy of this generation holds: flows remembered so far are forgotten, networks
   * of other generations do not count. No system call.
   */
  adopt(policyGeneration: number): void;
}

/** Numbers that `Carrier.read` tells: packets and bytes of three kinds. */
export const carrierTotals = 6;

/**
 * The programs in the kernel that carry redirected flows by themselves, by the number of the flow.
 * Only `begin` and `remind` are system calls, the rest is shared memory.
 */
export interface Carrier {
  /** Flows with lower numbers can be carried; 0: none. */
  readonly capacity: number;
  /**
   * Know the flow and count its packets; carry none until `setSent` and `setDelivered` agree with
   * what was counted. Addresses are int32, `entropy` chooses the source port as in TunnelSocket,
   * `firewall` is its place in the configuration.
   */
  begin(
    flow: number,
    local: number,
    remote: number,
    localPort: number,
    remotePort: number,
    protocol: number,
    cookie: number,
    entropy: number,
    firewall: number,
    interfaceIndex: number,
  ): void;
  /** Know it again: the kernel forgets the least recently used, and every flow at a SYN. */
  remind(flow: number): void;
  /** Carry it no more, at once. */
  end(flow: number): void;
  /** Packets given to the engine since `begin`; int32, wraps around. */
  given(flow: number, direction: Direction): number;
  /** How many of these have been sent on. */
  setSent(flow: number, direction: Direction, count: number): void;
  /** Packets left to the socket since `begin`; int32, wraps around. */
  returned(flow: number, direction: Direction): number;
  /** How many of these have been delivered. */
  setDelivered(flow: number, direction: Direction, count: number): void;
  /**
   * Wire packets and bytes carried by this record, ever: to the firewall from egress, from ingress,
   * and back.
   */
  read(flow: number, totals: Float64Array): void;
  /** The largest inner packet on the way to a firewall, bytes; 0: nothing is carried there. */
  setInnerMtu(firewall: number, innerMtu: number): void;
  /** Once after the host has changed: what has been begun must be ended. */
  beginsAgain(): boolean;
}

export interface Clock {
  /** CLOCK_MONOTONIC in milliseconds, with fractions. */
  now(): number;
}

/** Sleep until a device or the socket has something to read, or somebody wakes us. */
export interface Readiness {
  /**
   * Returns after at most `timeoutMs`, a whole number of milliseconds, or at once for 0: whether
   * there is something to read or somebody woke us.
   */
  wait(timeoutMs: number): boolean;
}

export type Io = {
  readonly devices: readonly PacketDevice[];
  /**
   * Queues that only packets which open a TCP connection come by, each beside the one of `devices`
   * with its index: read, never written. Empty where there are none.
   */
  readonly openers: readonly PacketDevice[];
  readonly socket: TunnelSocket;
  readonly steering: Steering;
  readonly carrier: Carrier;
  readonly clock: Clock;
  readonly readiness: Readiness;
};
