/**
 * `node dist/bench/flow-log.bench.js [--smoke] [--record]`: nanoseconds
 * that a short flow (find, insert,
 * describe, a packet, remove) costs the path without the flow log, with it, and with its ring full;
 * and what one line costs the main thread. Goal: the difference that `log.flows` makes to the path.
 */
import { describeFlow } from '../control/flow-line.ts';
import { flowColumnsByteLength } from '../engine/flow-columns.ts';
import {
  createFlowRecord,
  FlowEnd,
  FlowLogReader,
  flowLogByteLength,
  flowLogRecords,
} from '../engine/flow-log.ts';
import { Flows, OnFailure, Verdict } from '../engine/flows.ts';
import { micro, report, say } from './record.ts';
import { median } from './statistics.ts';

const capacity = 65_536;
const live = 32_768;

/** Half full, each turn one flow ends and one begins: addresses far apart, as in a flood. */
function createTurn(records: number, drained: boolean): () => void {
  const ring = new SharedArrayBuffer(flowLogByteLength(records));
  const flows = new Flows(capacity, new SharedArrayBuffer(flowColumnsByteLength(capacity)), ring);
  const reader = new FlowLogReader(ring);
  const written = createFlowRecord();
  let turn = 0;
  const begin = () => {
    flows.find(0x0a010009, Math.imul(turn++, 0x9e3779b1), 443, 40000, 6);
    const flow = flows.insert(0, 0, Verdict.Redirect, 1);
    flows.describe(flow, 0, 1, OnFailure.Inherit, 1, 0);
    flows.writeStart(flow);
    flows.touch(flow, 2, 1);
    return flow;
  };
  const all = new Int32Array(live);
  for (let i = 0; i < live; i++) all[i] = begin();
  if (drained) while (reader.read(written));
  // A reader of another thread costs the path nothing but the cache line of its count.
  const header = new Int32Array(ring);
  return () => {
    const at = turn % live;
    flows.remove(all[at], FlowEnd.Idle);
    all[at] = begin();
    if (drained) header[1] = header[0];
  };
}

const names = { interfaces: ['eth0'], firewall: () => 'fw-1', rule: () => 'web-out' };
const shown = { ...createFlowRecord(), event: 1, end: 1, verdict: 1, protocol: 6 };
let bytes = 0;

const cases: readonly [string, () => void][] = [
  ['flow, no log', createTurn(0, false)],
  ['flow, logged', createTurn(flowLogRecords, true)],
  ['flow, ring full', createTurn(flowLogRecords, false)],
  ['line', () => (bytes += JSON.stringify(describeFlow(shown, 0, names)).length)],
];

const rounds = micro.smoke ? 1 : 9;
const turns = micro.smoke ? 5_000 : 300_000;
const samples = cases.map((): number[] => []);
// Interleaved, and in time of our own processor: what else the machine does falls out.
for (let round = 0; round < rounds; round++) {
  for (const [index, [, run]] of cases.entries()) {
    const before = process.cpuUsage();
    for (let i = 0; i < turns; i++) run();
    const { system, user } = process.cpuUsage(before);
    samples[index].push(((user + system) * 1000) / turns);
  }
}
if (bytes === 0) throw new Error('nothing was measured');
for (const [index, [name]] of cases.entries()) {
  const value = Math.round(median(samples[index]));
  say(`${name}: ${value} ns (${Math.round(Math.min(...samples[index]))} at best)`);
  report({ bench: 'flow-log', name, value, unit: 'ns', parameters: { capacity, live, rounds } });
}
