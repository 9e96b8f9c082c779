/**
 * What both directions of the data path share: the memory, the tables, and the values that are
 * decided once per breath (time, mode, MTU) so that the packets of a batch need not ask again.
 */
import type { Encapsulation } from '../tunnel/encapsulation.ts';
import type { Arena } from './arena.ts';
import type { Policy } from './classifier/lookup.ts';
import type { Counters } from './counters.ts';
import type { Flows, Verdict } from './flows.ts';
import type { Fragments } from './fragments.ts';
import type { Direction, Io, PacketDevice, SteeringMode } from './io.ts';

export type Path = {
  readonly io: Io;
  readonly arena: Arena;
  readonly counters: Counters;
  readonly flows: Flows;
  readonly fragments: Fragments;
  readonly policy: Policy;
  readonly encapsulation: Encapsulation;
  /** Devices by link and direction: `devices[2 * link + direction]`. */
  readonly devices: readonly PacketDevice[];
  /** What becomes of a TCP connection whose SYN we did not see: Redirect or PassEstablished. */
  readonly established: Verdict;
  /** The active firewall, as int32. */
  peer: number;
  /** Age of this breath in ticks of 100 ms. */
  nowTick: number;
  /** What the gate and its policy say in this breath. */
  mode: SteeringMode;
  /** Largest inner packet that the tunnel carries, bytes. */
  innerMtu: number;
};

/** The queue of the same interface that goes the other way: where an answer to the sender is written. */
export function opposite(path: Path, link: number, direction: Direction): PacketDevice {
  return path.devices[2 * link + 1 - direction];
}
