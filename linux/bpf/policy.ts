/**
 * What the steering programs are made from, and what they share with user space: the policy, the
 * mark, the control page, the flow key and the counters. Pure.
 */

/** An IPv4 address as int32 (`getInt32` of the wire bytes). */
export type Address4 = number;
export type Prefix4 = { readonly address: Address4; readonly length: number };

export type SteeringInterface = {
  readonly name: string;
  /** Kernel index. */
  readonly index: number;
  /** Six bytes. */
  readonly mac: Uint8Array;
};

export type ManagementException = {
  /** IP protocol number; 0 is any. */
  readonly protocol: number;
  readonly remote: Prefix4;
  /** Local or remote port, whichever is equal, of TCP or UDP; 0: the whole prefix. */
  readonly port: number;
};

export type Endpoint4 = { readonly address: Address4; readonly port: number };

/**
 * The tunnel header, as it stands between outer UDP and inner IPv4 header: the same for all flows
 * of a direction but for the cookie.
 */
export type TunnelTemplate = {
  /** By Direction; cookie bits are 0. A multiple of 4 bytes, and 14 when it ends in Ethernet. */
  readonly headers: readonly [Uint8Array, Uint8Array];
  /** Of the same length: the bits of the cookie, all within one aligned word. */
  readonly cookieMask: Uint8Array;
  /** Its last 14 bytes are an Ethernet header, whose addresses do not matter on the way back. */
  readonly ethernet: boolean;
};

export type Acceleration = {
  readonly tunnel: TunnelTemplate;
  /** How many flows can be carried at once; each has a record of 128 bytes. */
  readonly flows: number;
};

/** What is never redirected, and passes the boot guard, too. */
export type Exclusions = {
  /** Where tunnel packets go to. */
  readonly firewalls: readonly Endpoint4[];
  /** Local UDP ports that tunnel packets come to. */
  readonly tunnelPorts: readonly number[];
  /** Senders of tunnel packets other than the firewalls. */
  readonly returnFrom: readonly Prefix4[];
  /** TCP endpoints that telemetry is sent to. */
  readonly telemetry: readonly Endpoint4[];
  readonly management: readonly ManagementException[];
  /** Directed broadcast addresses of the interfaces. */
  readonly broadcasts: readonly Address4[];
  readonly ipv6: 'pass' | 'drop';
};

/** Several data-path workers (engine/spread.ts): how many, from 2 on, and the hash's seed. */
export type SteeringSpread = { readonly workers: number; readonly seed: number };

/** Immutable; everything in it becomes constants in the programs. */
export type SteeringPolicy = Exclusions & {
  /** The position in this list is the interface's ordinal, of which the queue numbers are made. */
  readonly interfaces: readonly SteeringInterface[];
  /** Absent where there is one data-path worker. */
  readonly spread?: SteeringSpread | undefined;
  readonly tun: {
    /** Any one of its queues. */
    readonly fd: number;
    readonly index: number;
  };
  readonly onAgentFailure: 'pass' | 'drop';
  /** Until the data path has given its first heartbeat; 'pass': what `onAgentFailure` says. */
  readonly onBoot: 'pass' | 'drop';
  /** A heartbeat older than this is an agent that failed; at most 30 minutes. */
  readonly heartbeatTimeoutMs: number;
  /** How the programs carry established flows themselves; undefined: the engine carries all. */
  readonly acceleration: Acceleration | undefined;
  /** Where links outlive the process when `onAgentFailure` is `drop`; on a bpffs, or made one. */
  readonly pinDirectory: string;
};

/**
 * Queues of the TUN device: first two an interface, for the packets of each direction; then as many
 * again for those that open a TCP connection, so that a flood of them fills a queue of its own.
 */
export function queueOf(ordinal: number, direction: 0 | 1): number {
  return 2 * ordinal + direction;
}

export function openingQueueOf(
  policy: Pick<SteeringPolicy, 'interfaces'>,
  ordinal: number,
  direction: 0 | 1,
): number {
  return 2 * policy.interfaces.length + queueOf(ordinal, direction);
}

/** Each worker has as many, one worker's behind the other's. */
export function queuesPerWorker(policy: Pick<SteeringPolicy, 'interfaces'>): number {
  return 4 * policy.interfaces.length;
}

/**
 * The mark of a packet between our programs: 'mp' in the upper 20 bits, the queue in the lower 12.
 * It never leaves them: the NIC program that meets it puts 0 there.
 */
export const markBase = 0x6d70_0000;
export const markMask = 0xffff_f000;
export const queueMask = 0x0000_0fff;

/**
 * The control page, written by the data path, read by all programs:
 *
 *     0   u64  heartbeat: an IEEE 754 double, 2^52 + ticks of 1,024 ns of CLOCK_MONOTONIC
 *     8   u32  mode (SteeringMode of engine/io.ts)
 *     12  u32  generation of remembered verdicts
 *     16  u32  generation of the policy in force: of networks that pass
 *     20  u32  epoch last given to a flow that the programs carry (linux/carrier.ts)
 *     24  u32  whether flows are carried: Carrying of linux/carrier.ts
 *     64  16 firewalls, as the programs send to them: see carriedPeer
 *     320 u64  with several workers: the heartbeat of each, in the place of the first
 *
 * Several workers write the same mode and policy, each when it comes to it. Each begins another
 * generation of verdicts when it adopts a policy, so that what the last of them remembered by the
 * policy before is forgotten as well. A worker's heartbeat rules the packets that it would get.
 *
 * A double of 2^52 + n has n in its low 52 bits as they are, so that one aligned store of a Number
 * is one atomic store of an integer: it is never seen half written, and needs no BigInt. The
 * program takes off the constant upper bits. 52 bits of ticks are 146,000 years.
 */
export const controlPage = {
  size: 320 + 16 * 8,
  heartbeat: 0,
  mode: 8,
  generation: 12,
  policyGeneration: 16,
  epoch: 20,
  carrying: 24,
  peers: 64,
  heartbeats: 320,
} as const;
/**
 * Where carried packets go: addresses and port in network order, the interface that leads there,
 * and the largest inner packet; 0: nothing is carried now.
 */
export const carriedPeer = {
  size: 16,
  source: 0,
  target: 4,
  interfaceIndex: 8,
  innerMtu: 12,
  port: 14,
} as const;
export const carriedPeersMax = 16;
export const heartbeatBias = 2 ** 52;
/** Upper word of the bits of the double 2^52. */
export const heartbeatBiasHigh = 0x4330_0000;
export const tickShift = 10;
export const ticksPerMs = 1e6 / 2 ** tickShift;

/** Key of a remembered flow, in network byte order; local and remote as this host sees them. */
export const flowKey = {
  size: 16,
  local: 0,
  remote: 4,
  localPort: 8,
  remotePort: 10,
  protocol: 12,
} as const;
/**
 * Value: KernelVerdict of engine/io.ts, and the generation in which it holds; of a flow that the
 * programs carry, which record it has and the epoch in which the record is its own.
 */
export const flowValue = { size: 16, verdict: 0, generation: 4, record: 8, epoch: 12 } as const;

/**
 * A flow that the programs carry, by its number; in memory that the data path sees too. The first
 * cache line is read with every packet and hardly written, the second written with every packet.
 *
 *     0   u32     epoch; 0: not carried
 *     4   u32     cookie, as on the wire
 *     8   u16     outer source port, in network order
 *     10  u16     which of the control page's firewalls
 *     12  u32     interface that its packets leave or come in by
 *     16  u32[2]  by direction: packets that the NIC's program gave to the engine
 *     24  u32[2]  by direction: how many of them the engine has sent on
 *     32  u32[2]  by direction: packets from the tunnel that were left to the socket
 *     40  u32[2]  by direction: how many of them the engine has delivered
 *     64  u64[2]  carried to the firewall, egress: packets, bytes
 *     80  u64[2]  carried to the firewall, ingress
 *     96  u64[2]  brought back
 *
 * Packets are as on a wire and bytes their IPv4 lengths, whatever super-packets they were in. As
 * long as the numbers of a direction differ, packets of the flow are on their way through the
 * engine, and the next one must follow them.
 */
export const carriedRecord = {
  size: 128,
  epoch: 0,
  cookie: 4,
  sourcePort: 8,
  peer: 10,
  interfaceIndex: 12,
  toEngine: 16,
  sent: 24,
  toSocket: 32,
  delivered: 40,
  redirected: 64,
  reinjected: 96,
} as const;
/** Flows that the kernel remembers; the least recently used goes first. 64 bytes or so each. */
export const flowCapacity = 262_144;

/** Key of a network that passes: prefix length in host order, address in network order. */
export const networkKey = { size: 8, length: 0, address: 4 } as const;
/** Value: the policy generation in which it passes. */
export const networkValueSize = 4;
export const networkCapacity = 16_384;

/** What the programs count: {packets, bytes} in u64 by kind, per processor. */
export const CounterKind = {
  /** Went on: never redirected, whatever the rules say. */
  excluded: 0,
  /** Went on: remembered. */
  passedVerdict: 1,
  /** Went on: SteeringMode.Pass. */
  passedMode: 2,
  /** Went on: the heartbeat is too old. */
  passedAgentDead: 3,
  /** Dropped: remembered. */
  droppedVerdict: 4,
  /** Dropped: SteeringMode.Drop. */
  droppedMode: 5,
  /** Dropped: the heartbeat is too old. */
  droppedAgentDead: 6,
  /** Dropped: IPv6 that is not link-local or neighbour discovery. */
  droppedIpv6: 7,
  /** Given to the engine. */
  redirected: 8,
  /** Put on the network for the engine. */
  reinjected: 9,
  /** Dropped on the way back: a queue that no interface has, or not IPv4. */
  droppedQueue: 10,
  /** Went on: to or from a network all of whose connections pass. */
  passedNetwork: 11,
  /** Dropped: the data path has not given a heartbeat yet. */
  droppedStarting: 12,
  /** Sent to the firewall by the programs themselves. */
  carriedOut: 13,
  /** From the firewall, put on the network by the programs themselves. */
  carriedBack: 14,
  /** Dropped: the packet could not be written to. */
  droppedCarried: 15,
} as const;
export type CounterKind = (typeof CounterKind)[keyof typeof CounterKind];
export type CounterName = keyof typeof CounterKind;
export const counterNames = Object.keys(CounterKind) as CounterName[];
export const counterValue = { size: 16, packets: 0, bytes: 8 } as const;

/** Maps by the names that the programs use. */
export type SteeringMapName = 'control' | 'flows' | 'networks' | 'counters' | 'records';

/** The 32-bit word that a load of these wire bytes gives on a little-endian host. */
export function networkWord(hostOrder: number): number {
  const swapped = ((hostOrder & 0xff00) << 8) | ((hostOrder >>> 8) & 0xff00);
  return (hostOrder << 24) | swapped | (hostOrder >>> 24);
}
export function networkHalf(hostOrder: number): number {
  return ((hostOrder & 0xff) << 8) | (hostOrder >>> 8);
}
