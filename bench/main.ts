/**
 * `sudo npm run bench`: everything that the agent is measured by, side by side. Progress goes to
 * standard error; the tables, or with `--json` one line for each figure, to standard output.
 */
import Table from 'cli-table3';
import { Command, InvalidArgumentError } from 'commander';
import pc from 'picocolors';
import { removeStaleNamespaces } from '../lab/namespace.ts';
import { type Cell, type CellResult, describeMachine, type Plan, runPlan } from './harness.ts';
import { fixedRate } from './measure/fixed-rate.ts';
import { newConnections } from './measure/new-connections.ts';
import { packetRate } from './measure/packet-rate.ts';
import { programs } from './measure/programs.ts';
import { reload } from './measure/reload.ts';
import { roundTrip } from './measure/round-trip.ts';
import { tcp } from './measure/tcp.ts';
import { type Effort, figureKinds, type Measurement } from './measure.ts';
import { startMeter } from './meters.ts';
import { microBenches, runMicroBench } from './micro.ts';
import type { Peer } from './peer.ts';
import {
  agentGeneve,
  agentGeneveKernel,
  agentPassDefault,
  agentPassing,
  agentPassRule,
  agentVxlan,
  agentVxlanKernel,
} from './peers/agent.ts';
import { direct } from './peers/direct.ts';
import { fastd } from './peers/fastd.ts';
import { kernelVxlan } from './peers/kernel-vxlan.ts';
import { wireguardGo } from './peers/wireguard-go.ts';
import { record } from './record.ts';
import type { Parameters } from './results.ts';
import { footnote, tables, wireTitles } from './table.ts';

const peers: readonly Peer[] = [
  direct,
  agentPassing,
  agentPassDefault,
  agentPassRule,
  kernelVxlan,
  agentVxlan,
  agentVxlanKernel,
  agentGeneve,
  agentGeneveKernel,
  fastd,
  wireguardGo,
];
/** Memory is looked at by `fixedRate`, after all kinds of traffic; rules change after it. */
const measurements: readonly Measurement[] = [
  tcp,
  packetRate,
  roundTrip,
  newConnections,
  programs,
  fixedRate,
  reload,
];

type Options = {
  repeats: number;
  seconds: number;
  only?: RegExp;
  measure?: RegExp;
  quick?: boolean;
  json?: boolean;
  record?: boolean;
  list?: boolean;
};

/** What others may use of the machine before a figure is in doubt, in cores. */
const othersLimit = 0.1;
const standardEffort = { precision: 1.05, quick: false };
const quickEffort: Effort = { seconds: 0.3, precision: 2, quick: true };

function parseOptions(): Options {
  return new Command('bench')
    .description('Measures the agent against the kernel and other tunnels. Needs root.')
    .option('--repeats <number>', 'how often everything is measured', positive, 5)
    .option('--seconds <number>', 'how long each transfer takes', positive, 2)
    .option(
      '--only <regex>',
      'what to run: micro benches by name, cells by "peer, wire" (see --list)',
      pattern,
    )
    .option('--measure <regex>', 'measurements to run, by name (see --list)', pattern)
    .option('--quick', 'everything once, in a minute: shows that it works, measures nothing')
    .option('--json', 'print figures as lines of JSON instead of tables')
    .option('--record', 'append the figures to bench/results.ndjson')
    .option('--list', 'print cells and measurements, and end')
    .parse()
    .opts<Options>();
}

async function main(options: Options): Promise<number> {
  const say = (words: string) => console.error(pc.dim(words));
  const cells = chooseCells(options, say);
  const micro = options.measure === undefined ? chooseMicro(options) : [];
  const chosen = measurements.filter(({ name }) => options.measure?.test(name) ?? true);
  if (options.list) {
    for (const name of micro) console.log(name);
    for (const { peer, wire } of cells) console.log(`${peer.name}, ${wire}`);
    console.log(`measurements: ${chosen.map(({ name }) => name).join(', ')}`);
    return 0;
  }
  if (cells.length > 0 && process.getuid?.() !== 0) {
    console.error('Root is needed for network namespaces, TUN devices and eBPF: run with sudo.');
    return 1;
  }
  removeStaleNamespaces();
  const run = new Date().toISOString();
  const others = await coresOfOthers();
  if (others > othersLimit) {
    say(`other programs use ${others.toFixed(1)} cores: the figures will be wrong`);
  }
  const { json = false, quick = false, record: recorded = false } = options;
  const broken = micro.filter((name) => !runMicroBench(name, { json, quick, record: recorded }));
  const plan: Plan = {
    cells,
    measurements: chosen,
    repeats: options.quick ? 1 : options.repeats,
    effort: options.quick ? quickEffort : { ...standardEffort, seconds: options.seconds },
    onProgress: say,
  };
  const results = await runPlan(plan);
  const machine = describeMachine();
  if (options.json) printJson(results, plan);
  else if (cells.length > 0) printTables(results);
  if (options.record) recordAll(results, plan, { run, others: Number(others.toFixed(2)) });
  const { cpu, processors, memoryGib, kernel, node } = machine;
  say(`${processors} x ${cpu}, ${memoryGib} GiB, Linux ${kernel}, Node ${node}`);
  const failures = results.flatMap(({ peer, wire, failures }) =>
    failures.map((words) => `${peer}, ${wire}: ${words}`),
  );
  for (const words of failures) console.error(pc.red(`failed: ${words}`));
  for (const name of broken) console.error(pc.red(`failed: ${name}`));
  return failures.length + broken.length === 0 ? 0 : 1;
}

function chooseMicro({ only }: Options): string[] {
  return microBenches.filter((name) => only?.test(name) ?? true);
}

/** Quick: each peer once, on the wire that asks most of it. */
function chooseCells(options: Options, say: (words: string) => void): Cell[] {
  const all = peers.flatMap((peer) => {
    const missing = peer.missing?.();
    if (missing !== undefined) {
      say(`left out: ${peer.name}: ${missing}`);
      return [];
    }
    const wires = options.quick ? peer.wires.slice(-1) : peer.wires;
    return wires.map((wire) => ({ peer, wire }));
  });
  return all.filter(({ peer, wire }) => options.only?.test(`${peer.name}, ${wire}`) ?? true);
}

/** Cores in use while we do nothing. */
async function coresOfOthers(): Promise<number> {
  const stop = startMeter(undefined);
  await new Promise((resolve) => setTimeout(resolve, 1000));
  const { machine, seconds } = stop();
  return machine / seconds;
}

function printTables(results: readonly CellResult[]): void {
  for (const { wire, head, rows } of tables(results)) {
    const table = new Table({ head: [...head], style: { head: ['bold'], border: ['gray'] } });
    for (const row of rows) table.push([...row]);
    console.log(`\n${wireTitles[wire]}\n${table.toString()}`);
  }
  console.log(footnote);
}

function printJson(results: readonly CellResult[], plan: Plan): void {
  for (const line of lines(results, plan, {})) console.log(JSON.stringify(line));
  for (const { peer, wire, failures } of results) {
    for (const failure of failures) console.log(JSON.stringify({ peer, wire, failure }));
  }
}

function recordAll(results: readonly CellResult[], plan: Plan, extra: Parameters): void {
  for (const line of lines(results, plan, extra)) record(line);
}

function lines(results: readonly CellResult[], plan: Plan, extra: Parameters) {
  return results.flatMap((result) =>
    Object.entries(figureKinds).flatMap(([name, { unit }]) => {
      const figure = result.figures[name];
      if (figure === undefined) return [];
      const { seconds } = plan.effort;
      const { peer, wire } = result;
      const { repeats } = figure;
      const spread = Number(figure.spread.toFixed(4));
      const parameters = { peer, wire, repeats, spread, seconds, ...extra };
      return [{ bench: 'paths', name, value: figure.median, unit, parameters }];
    }),
  );
}

function positive(text: string): number {
  const value = Number(text);
  if (value > 0) return value;
  throw new InvalidArgumentError('a number above 0 is needed');
}

function pattern(text: string): RegExp {
  try {
    return new RegExp(text);
  } catch {
    throw new InvalidArgumentError('this is no regular expression');
  }
}

// Exit explicitly: that is what stops programs and removes hosts after a failure.
main(parseOptions()).then(
  (code) => process.exit(code),
  (error: Error) => {
    console.error(process.env.DEBUG === undefined ? error.message : error.stack);
    process.exit(1);
  },
);
