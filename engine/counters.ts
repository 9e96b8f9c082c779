/**
 * Counters by reason. The data path counts in private columns and publishes them to shared memory
 * now and then, so that readers never slow the path (snabb core/counter.lua). A published set is
 * copied under a sequence word: odd while it is being written.
 *
 *     Int32    sequence, (pad)
 *     Float64  packets[reasonCount], bytes[reasonCount], gauges[gaugeCount]
 */
import { type Reason, reasonCount } from '../parsers/reason.ts';

/** Values that are not sums. */
export const Gauge = {
  Flows: 0,
  InnerMtu: 1,
  Breaths: 2,
  SteeringMode: 3,
  PolicyGeneration: 4,
  FlowsEvicted: 5,
  /** Availability of engine/peers.ts. */
  Availability: 6,
  /** 1 when no device takes super-datagrams from us any more: slower. */
  SegmentationOff: 7,
} as const;
export type Gauge = (typeof Gauge)[keyof typeof Gauge];
const gaugeCount = Object.keys(Gauge).length;

const headerBytes = 8;
export const countersByteLength = headerBytes + 8 * (2 * reasonCount + gaugeCount);

export type Counters = {
  readonly packets: Float64Array;
  readonly bytes: Float64Array;
  readonly gauges: Float64Array;
};

export function createCounters(): Counters {
  return {
    packets: new Float64Array(reasonCount),
    bytes: new Float64Array(reasonCount),
    gauges: new Float64Array(gaugeCount),
  };
}

/** Count `packets` packets of together `bytes` IPv4 bytes under one reason. */
export function count(counters: Counters, reason: Reason, packets: number, bytes: number): void {
  counters.packets[reason] += packets;
  counters.bytes[reason] += bytes;
}

/** The shared side: one writer (a data-path worker), any number of readers. */
export type PublishedCounters = Counters & { readonly sequence: Int32Array };

export function openPublishedCounters(memory: SharedArrayBuffer): PublishedCounters {
  return {
    sequence: new Int32Array(memory, 0, 1),
    packets: new Float64Array(memory, headerBytes, reasonCount),
    bytes: new Float64Array(memory, headerBytes + 8 * reasonCount, reasonCount),
    gauges: new Float64Array(memory, headerBytes + 16 * reasonCount, gaugeCount),
  };
}

export function publish(counters: Counters, shared: PublishedCounters): void {
  Atomics.add(shared.sequence, 0, 1);
  shared.packets.set(counters.packets);
  shared.bytes.set(counters.bytes);
  shared.gauges.set(counters.gauges);
  Atomics.add(shared.sequence, 0, 1);
}

/** A consistent copy of what was last published; cold path. */
export function snapshot(shared: PublishedCounters): Counters {
  const copy = createCounters();
  for (let attempt = 0; attempt < 1000; attempt++) {
    const before = Atomics.load(shared.sequence, 0);
    copy.packets.set(shared.packets);
    copy.bytes.set(shared.bytes);
    copy.gauges.set(shared.gauges);
    if ((before & 1) === 0 && Atomics.load(shared.sequence, 0) === before) break;
  }
  return copy;
}
