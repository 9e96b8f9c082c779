/**
 * Which of several data-path workers a flow belongs to, its home: the same for both directions.
 *
 *     h = (source ^ destination) ^ factor * (source port ^ destination port) ^ protocol ^ seed
 *     worker = mixed(h) % workers                  words as a little-endian host loads them
 *
 * Ports are TCP's and UDP's. The fragments of all flows between two hosts meet at one worker, which
 * is found as if they had no ports, since all but the first have none.
 *
 * The programs in the kernel compute the same (linux/bpf/programs/spread.ts), so that a packet
 * comes to its home at once; nothing depends on that (engine/handover.ts).
 */
import { Protocol } from '../parsers/ipv4.ts';

/** Plain data: it crosses threads. */
export type Spread = {
  /** How many, at least 1. */
  readonly workers: number;
  /** int32, secret, so that nobody outside can aim flows at one worker. */
  readonly seed: number;
};

/** Multipliers as int32: of the ports, and of MurmurHash3's finaliser (public domain). */
const factors = { ports: 0x9e3779b1, first: 0x85ebca6b, second: 0xc2b2ae35 } as const;

/** The home of a flow: addresses as int32 of their wire bytes, either end first. */
export function workerOf(
  { seed, workers }: Spread,
  source: number,
  destination: number,
  sourcePort: number,
  destinationPort: number,
  protocol: number,
): number {
  const hasPorts = protocol === Protocol.Tcp || protocol === Protocol.Udp;
  const ports = hasPorts ? swap16(sourcePort ^ destinationPort) : 0;
  let h = swap32(source ^ destination) ^ Math.imul(ports, factors.ports) ^ protocol ^ seed;
  h = Math.imul(h ^ (h >>> 16), factors.first);
  h = Math.imul(h ^ (h >>> 13), factors.second);
  return ((h ^ (h >>> 16)) >>> 0) % workers;
}

function swap16(value: number): number {
  return ((value & 0xff) << 8) | (value >>> 8);
}

function swap32(value: number): number {
  return (value << 24) | ((value & 0xff00) << 8) | ((value >>> 8) & 0xff00) | (value >>> 24);
}
