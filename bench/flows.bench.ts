/**
 * The flow table with a million live flows: a hit in random order, a miss, and an insert with its
 * removal. `node dist/bench/flows.bench.js [--smoke] [--record]`.
 *
 * Goal: 100 ns for a hit, hash and cache misses included. `--smoke` takes a small table and a
 * moment. What is found is summed, so that no look-up is left out.
 */
import { flowColumnsByteLength } from '../engine/flow-columns.ts';
import { FlowEnd } from '../engine/flow-log.ts';
import { Flows, noFlow, Verdict } from '../engine/flows.ts';
import { micro, report, say } from './record.ts';

const live = micro.smoke ? 10_000 : 1_000_000;
const steps = micro.smoke ? 20_000 : 2_000_000;
const rounds = micro.smoke ? 1 : 7;
const udp = 17;
const local = 0x0a01_000a;

/** A permutation's worth of disorder: an odd multiplier walks all of 2^20 in no visible order. */
const scatter = (step: number) => (Math.imul(step, 0x9e37_79b1) >>> 0) % live;
const remoteOf = (flow: number) => (0x0a02_0000 + (flow >>> 4)) | 0;
const portOf = (flow: number) => 1024 + (flow & 15);

function createTable(): Flows {
  const capacity = live + 16;
  const flows = new Flows(capacity, new SharedArrayBuffer(flowColumnsByteLength(capacity)));
  for (let flow = 0; flow < live; flow++) {
    flows.find(local, remoteOf(flow), portOf(flow), 443, udp);
    flows.insert(0, 0, Verdict.Redirect, 0);
  }
  return flows;
}

/** Nanoseconds a step: the median of the rounds. */
function time(work: () => number): number {
  const found: number[] = [];
  for (let round = 0; round < rounds; round++) {
    const start = performance.now();
    checksum += work();
    found.push(((performance.now() - start) * 1e6) / steps);
  }
  return found.sort((a, b) => a - b)[rounds >> 1];
}

let checksum = 0;
const flows = createTable();

const hit = time(() => {
  let sum = 0;
  for (let step = 0; step < steps; step++) {
    const flow = scatter(step);
    sum += flows.find(remoteOf(flow), local, 443, portOf(flow), udp);
  }
  return sum;
});
const miss = time(() => {
  let sum = 0;
  for (let step = 0; step < steps; step++) {
    const flow = scatter(step);
    sum += flows.find(local, remoteOf(flow), portOf(flow), 80, udp);
  }
  return sum;
});
const insert = time(() => {
  let sum = 0;
  for (let step = 0; step < steps; step++) {
    flows.find(local, step, 7, 7, udp);
    const flow = flows.insert(0, 0, Verdict.Redirect, 0);
    if (flow === noFlow) throw new Error('the table has no room');
    flows.remove(flow, FlowEnd.Idle);
    sum += flow;
  }
  return sum;
});

const figures = { hit, miss, 'insert and remove': insert };
for (const [name, value] of Object.entries(figures)) {
  say(`${name.padEnd(20)} ${value.toFixed(0).padStart(6)} ns`);
  report({ bench: 'flows', name, value, unit: 'ns', parameters: { live, steps, rounds } });
}
say(`sum of what was found: ${checksum}`);
