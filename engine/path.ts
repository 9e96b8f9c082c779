/**
 * What both directions of the data path share: the memory, the tables, and the values that are
 * decided once per breath (time, mode, MTU) so that the packets of a batch need not ask again.
 */
import { ipv4Id, ipv4Protocol } from '../parsers/ipv4.ts';
import type { Reason } from '../parsers/reason.ts';
import type { Encapsulation } from '../tunnel/encapsulation.ts';
import type { Arena } from './arena.ts';
import type { CarriedFlows } from './carried-flows.ts';
import type { Policy } from './classifier/lookup.ts';
import type { Counters } from './counters.ts';
import type { Flows, OnFailure } from './flows.ts';
import type { Fragments } from './fragments.ts';
import type { Handover } from './handover.ts';
import type { Direction, Io, PacketDevice } from './io.ts';
import type { Packet } from './packet.ts';
import type { Peers } from './peers.ts';
import type { Tap } from './tap.ts';

/**
 * What the gate says, for the packets of one breath. Pass: nothing is decided, everything goes
 * straight on (before the first telemetry, at the end, or closed with nothing that would drop).
 * Closed: what would be redirected meets its failure policy instead.
 */
export const GateView = { Pass: 0, Open: 1, Closed: 2 } as const;
export type GateView = (typeof GateView)[keyof typeof GateView];

export type Path = {
  readonly io: Io;
  readonly arena: Arena;
  readonly counters: Counters;
  readonly flows: Flows;
  /** Those of them that the programs in the kernel carry. */
  readonly carried: CarriedFlows;
  readonly fragments: Fragments;
  /** Replaced whole by the loop, between batches. */
  policy: Policy;
  readonly encapsulation: Encapsulation;
  /** Devices by link and direction: `devices[2 * link + direction]`. */
  readonly devices: readonly PacketDevice[];
  /** Whether devices take UDP super-packets. */
  readonly joinUdp: boolean;
  readonly peers: Peers;
  readonly tap: Tap;
  /** Absent where there is one worker. */
  readonly handover?: Handover | undefined;
  /** Age of this breath in ticks of 100 ms. */
  nowTick: number;
  /** What the gate and its policy say in this breath. */
  gate: GateView;
  /** While the gate is closed: what becomes of a flow whose rule says nothing, and its reasons. */
  onLoss: OnFailure;
  passedReason: Reason;
  droppedReason: Reason;
};

/** The queue of the same interface that goes the other way: where a sender is answered. */
export function opposite(path: Path, link: number, direction: Direction): PacketDevice {
  return path.devices[2 * link + 1 - direction];
}

/** The datagram's later fragments, which have no ports, belong to `flow`, found for it. */
export function rememberFragments(path: Path, packet: Packet, flow: number): void {
  const { view } = path.arena;
  const { flows, fragments, nowTick } = path;
  const { source, destination } = packet.key;
  const id = ipv4Id(view, packet.at);
  const protocol = ipv4Protocol(view, packet.at);
  const cookie = flows.cookie[flow];
  const { sourceIsA } = flows;
  fragments.remember(source, destination, id, protocol, flow, cookie, sourceIsA, nowTick);
}
