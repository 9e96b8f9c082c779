/**
 * What is known and counted of each firewall: shared memory, one row a firewall. The data path
 * writes it (the probe's columns are the telemetry worker's when the probe does not go through the
 * tunnel), any thread reads it.
 *
 *     Float64  one column after the other, then the buckets of the probe's round trips, row by row
 */

/** Column by name; `…Ms` that is a point in time is CLOCK_MONOTONIC, 0 for never. */
const names = [
  /** 1: it may take flows. */
  'usable',
  /** 1: it takes new flows. */
  'active',
  /** 1: it was lost a short while ago, so others are preferred. */
  'held',
  /** Since when it is usable, or not. */
  'sinceMs',
  /** How often it has become usable or stopped being so. */
  'changes',
  /** Largest inner packet on the way to it, bytes. */
  'innerMtu',
  'sentPackets',
  'sentBytes',
  /** Accepted, and on their way to the network. */
  'returnedPackets',
  'returnedBytes',
  /** Flows that came to it from a firewall that was lost, or is not preferred any more. */
  'flowsTaken',
  'lastReturnMs',
  /** ProbeState of tunnel/firewalls.ts. */
  'probeState',
  'probesSent',
  'probesAnswered',
  'lastAnswerMs',
  /** Round trips: of the last probe, and all added up, in milliseconds. */
  'roundTripMs',
  'roundTripSumMs',
] as const;

type Name = (typeof names)[number];

/** Upper ends of the buckets of round trips in milliseconds; what is longer has a last one. */
export const roundTripLimitsMs = [
  0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1000, 2500,
] as const;
const bucketCount = roundTripLimitsMs.length + 1;

export type FirewallColumns = { readonly [K in Name]: Float64Array } & {
  /** `[bucketCount * firewall + bucket]`: answers, not added up. */
  readonly roundTrips: Float64Array;
};

export function firewallColumnsByteLength(count: number): number {
  return 8 * count * (names.length + bucketCount);
}

/** The columns over `memory` of firewallColumnsByteLength(count) bytes. */
export function openFirewallColumns(memory: SharedArrayBuffer): FirewallColumns {
  const count = memory.byteLength / firewallColumnsByteLength(1);
  const columns = names.map((name, index) => [
    name,
    new Float64Array(memory, 8 * count * index, count),
  ]);
  const bucketsAt = 8 * count * names.length;
  return {
    ...(Object.fromEntries(columns) as { readonly [K in Name]: Float64Array }),
    roundTrips: new Float64Array(memory, bucketsAt, count * bucketCount),
  };
}

/** A probe was answered. No allocation. */
export function noteRoundTrip(
  columns: FirewallColumns,
  firewall: number,
  roundTripMs: number,
  nowMs: number,
): void {
  columns.probesAnswered[firewall]++;
  columns.lastAnswerMs[firewall] = nowMs;
  columns.roundTripMs[firewall] = roundTripMs;
  columns.roundTripSumMs[firewall] += roundTripMs;
  let bucket = 0;
  while (bucket < bucketCount - 1 && roundTripMs > roundTripLimitsMs[bucket]) bucket++;
  columns.roundTrips[bucketCount * firewall + bucket]++;
}

/** Answers by bucket, each with those of the smaller ones; cold. */
export function cumulatedRoundTrips(columns: FirewallColumns, firewall: number): number[] {
  const first = bucketCount * firewall;
  let total = 0;
  return [...columns.roundTrips.subarray(first, first + bucketCount)].map((count) => {
    total += count;
    return total;
  });
}
