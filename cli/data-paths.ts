/** The data-path workers, one or several, as one. */
import type { Policy } from '../engine/classifier/lookup.ts';
import { Gauge, openPublishedCounters } from '../engine/counters.ts';
import { Deaths } from '../engine/deaths.ts';
import { type DataPathListener, type DataPathStart, DataPathThread } from './data-path-thread.ts';

export class DataPaths {
  private readonly threads: readonly DataPathThread[];

  /**
   * @param starts one for each worker
   * @param wakes ends each one's sleep
   */
  constructor(
    starts: readonly DataPathStart[],
    wakes: readonly (() => void)[],
    listener: DataPathListener,
  ) {
    const deaths = new Deaths();
    this.threads = starts.map((start, worker) => {
      return new DataPathThread(start, wakes[worker]!, listener, deaths);
    });
  }

  /** Each takes it within a tick. */
  replacePolicy(policy: Policy): void {
    const count = this.threads.length;
    this.threads.forEach((thread, worker) => {
      thread.replacePolicy(policyOf(policy, worker, count));
    });
  }

  async stop(): Promise<void> {
    await Promise.all(this.threads.map((thread) => thread.stop()));
  }
}

/** The policy as one of `count` workers has it: with places of its own for the rules' hits. */
export function policyOf(policy: Policy, worker: number, count: number): Policy {
  if (count === 1) return policy;
  const rows = policy.hits.length / count;
  return { ...policy, hits: policy.hits.subarray(worker * rows, (worker + 1) * rows) };
}

/** Hits of a rule, of all workers together. */
export function hitsOf({ hits, verdicts }: Pick<Policy, 'hits' | 'verdicts'>, rule: number) {
  const rows = verdicts.length + 1;
  let sum = 0;
  for (let at = rule; at < hits.length; at += rows) sum += hits[at]!;
  return sum;
}

/** Grows by one whenever all workers have breathed since it grew last. */
export class Breaths {
  private readonly gauges: readonly Float64Array[];
  private readonly last: Float64Array;
  private count = 0;

  /** @param counters those of all workers, as published */
  constructor(counters: SharedArrayBuffer, workers: number) {
    this.gauges = Array.from({ length: workers }, (_, worker) => {
      return openPublishedCounters(counters, worker).gauges;
    });
    this.last = new Float64Array(workers);
  }

  look(): number {
    const { gauges, last } = this;
    const moved = gauges.every((gauge, worker) => gauge[Gauge.Breaths] !== last[worker]);
    if (!moved) return this.count;
    for (const [worker, gauge] of gauges.entries()) last[worker] = gauge[Gauge.Breaths]!;
    return ++this.count;
  }
}
