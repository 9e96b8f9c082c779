/**
 * Lookups a second, bytes and milliseconds to compile, for generated sets and for ClassBench's own
 * where they are found: `node dist/bench/classify.bench.js [--smoke] [--record] [--only PATTERN]`.
 *
 * One core, one lookup after the other, 100,000 headers drawn from the rules (values uniform in
 * the rule's range, a fifth at its ends; Pareto reuse), so that caches see what a trace would show
 * them. `--smoke` takes a small set and a moment.
 */
import { loadavg } from 'node:os';
import Benchmark from 'benchmark';
import { compile } from '../engine/classifier/compile.ts';
import { match } from '../engine/classifier/match.ts';
import type { Rule } from '../engine/classifier/rules.ts';
import type { Tables } from '../engine/classifier/tables.ts';
import { classBenchFolder, classBenchSets } from '../test/model/classbench.ts';
import { linearMatch } from '../test/model/classifier.ts';
import {
  characters,
  generateHeaders,
  generateRules,
  headerDefaults,
} from '../test/model/rule-sets.ts';
import type { Direction } from '../tunnel/pieces.ts';
import { micro, report, say } from './record.ts';
import type { Parameters } from './results.ts';

/** Names the lines of one run in bench/results.ndjson. */
const run = new Date().toISOString();
const seed = 7;
const headerCount = 100_000;
/** Answers compared with the twin: the figure is worth nothing when they are wrong. */
const checkedCount = 200;

type Trace = {
  readonly openers: Uint8Array;
  readonly locals: Int32Array;
  readonly remotes: Int32Array;
  readonly localPorts: Uint16Array;
  readonly remotePorts: Uint16Array;
  readonly protocols: Uint8Array;
};

function traceOf(rules: readonly Rule[], count: number): Trace {
  const headers = generateHeaders(rules, count, { ...headerDefaults, seed });
  return {
    openers: Uint8Array.from(headers, ({ opener }) => opener),
    locals: Int32Array.from(headers, ({ local }) => local | 0),
    remotes: Int32Array.from(headers, ({ remote }) => remote | 0),
    localPorts: Uint16Array.from(headers, ({ localPort }) => localPort),
    remotePorts: Uint16Array.from(headers, ({ remotePort }) => remotePort),
    protocols: Uint8Array.from(headers, ({ protocol }) => protocol),
  };
}

/** @returns a sum, so that no lookup is left out */
function lookUpAll(tables: Tables, trace: Trace): number {
  const { openers, locals, remotes, localPorts, remotePorts, protocols } = trace;
  let sum = 0;
  for (let i = 0; i < locals.length; i++) {
    const opener = openers[i] as Direction;
    sum += match(
      tables,
      opener,
      locals[i],
      remotes[i],
      localPorts[i],
      remotePorts[i],
      protocols[i],
    );
  }
  return sum;
}

function check(rules: readonly Rule[], tables: Tables): void {
  for (const header of generateHeaders(rules, checkedCount, {
    ...headerDefaults,
    seed: seed + 1,
  })) {
    const { opener, local, remote, localPort, remotePort, protocol } = header;
    const found = match(tables, opener, local | 0, remote | 0, localPort, remotePort, protocol);
    const expected = linearMatch(rules, header);
    if (found === expected) continue;
    throw new Error(`${JSON.stringify(header)}: found ${found}, should be ${expected}`);
  }
}

function compileMs(rules: readonly Rule[], runs: number): number {
  const times = Array.from({ length: runs }, () => {
    const before = performance.now();
    compile(rules);
    return performance.now() - before;
  });
  return Math.min(...times);
}

function measure(name: string, rules: readonly Rule[], isSmoke: boolean): void {
  const tables = compile(rules);
  check(rules, tables);
  const count = isSmoke ? 1000 : headerCount;
  const trace = traceOf(rules, count);
  // Short samples and many: on a shared machine some of them are not interrupted.
  const benchmark = new Benchmark(name, () => lookUpAll(tables, trace), {
    minTime: 0.004,
    minSamples: isSmoke ? 5 : 200,
    maxTime: isSmoke ? 0.01 : 2,
  });
  benchmark.run();
  const sorted = [...benchmark.stats.sample].sort((a, b) => a - b);
  const perSecond = (sample: number) => Math.round(count / sample);
  const median = perSecond(sorted[sorted.length >> 1]);
  const best = perSecond(sorted[0]);
  const ms = compileMs(rules, isSmoke ? 1 : 3);
  const bytes = tables.words.byteLength;
  const columns = [
    name.padEnd(14),
    `${rules.length}`.padStart(7),
    `${(median / 1e6).toFixed(1)}`.padStart(7),
    `${(best / 1e6).toFixed(1)}`.padStart(7),
    `${(bytes / (1 << 20)).toFixed(2)}`.padStart(9),
    `${ms.toFixed(0)}`.padStart(7),
  ];
  say(columns.join(' '));
  const parameters: Parameters = {
    set: name,
    rules: rules.length,
    headers: count,
    seed,
    run,
    load: loadavg()[0],
  };
  const result = { bench: 'classify', parameters };
  report({ ...result, name: 'lookups', value: median, unit: 'lookups/s' });
  report({ ...result, name: 'lookups, fastest sample', value: best, unit: 'lookups/s' });
  report({ ...result, name: 'memory', value: bytes, unit: 'bytes' });
  report({ ...result, name: 'compile', value: Math.round(ms * 10) / 10, unit: 'ms' });
}

function sets(isSmoke: boolean): Map<string, () => Rule[]> {
  const found = new Map<string, () => Rule[]>();
  for (const count of isSmoke ? [100] : [1000, 10_000, 100_000]) {
    for (const [name, character] of Object.entries(characters)) {
      found.set(`${name}-${count}`, () => generateRules(character, count, seed));
    }
  }
  if (isSmoke) return found;
  const real = classBenchSets();
  if (real.size === 0) say(`no ClassBench sets in ${classBenchFolder}`);
  for (const [name, rules] of real) found.set(name, () => rules);
  return found;
}

say('set              rules  M/s med    best       MiB      ms');
for (const [name, rules] of sets(micro.smoke)) {
  if (new RegExp(micro.only).test(name)) measure(name, rules(), micro.smoke);
}
