/**
 * Runs fuzzers:
 *
 *   node dist/test/fuzz/main.js smoke      all of them for a moment, with a fixed seed
 *     --seed N    another seed
 *     --cases N   cases of each, instead of those of a smoke run
 *     --only X    one fuzzer
 *     --case N    one case, to have a failure again
 *
 * A case that fails is printed with what has it again, and its packets are saved beside the corpus
 * that all cases start from (docs/fuzzing.md says what to do then). Canaries must fail.
 */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { classifier, classifierCanary } from './classifier.ts';
import { config, configCanary } from './config.ts';
import { parserCanary, parsers } from './parsers.ts';
import { Random, seedOf } from './random.ts';
import { redirect, redirectCanary } from './redirect.ts';
import { reinject, reinjectCanary } from './reinject.ts';
import { corpusFolder, failedSuffix, type SavedCase } from './samples.ts';
import { sequences, tableCanary } from './sequences.ts';
import type { Fuzzer, Trial } from './trial.ts';
import { tunnels, tunnelsCanary } from './tunnels.ts';

const fuzzers: readonly Fuzzer[] = [
  parsers,
  redirect,
  reinject,
  sequences,
  tunnels,
  classifier,
  config,
  parserCanary,
  redirectCanary,
  reinjectCanary,
  tableCanary,
  tunnelsCanary,
  classifierCanary,
  configCanary,
];

type Failure = { readonly number: number; readonly trial: Trial; readonly error: Error };
type Run = { readonly failure: Failure | undefined; readonly inputs: number };

function run(fuzzer: Fuzzer, seed: number, first: number, count: number): Run {
  const once = fuzzer.create();
  let inputs = 0;
  for (let number = first; number < first + count; number++) {
    const trial: Trial = {
      random: new Random(seedOf(seed, fuzzer.name, number)),
      inputs: [],
      checked: 0,
    };
    try {
      once(trial);
    } catch (error) {
      return { failure: { number, trial, error: error as Error }, inputs };
    }
    inputs += trial.inputs.length + trial.checked;
  }
  return { failure: undefined, inputs };
}

function save(name: string, seed: number, { error, number, trial }: Failure): string {
  const packets = trial.inputs.map(({ bytes, ...rest }) => ({
    ...rest,
    hex: bytes.toString('hex'),
  }));
  const about = `${name}, seed ${seed}, case ${number}: ${error.message}`;
  const path = join(corpusFolder, `${name}-${seed}-${number}${failedSuffix}`);
  writeFileSync(path, `${JSON.stringify({ about, packets } satisfies SavedCase, null, 2)}\n`);
  return path;
}

/** @returns whether all is as it should be */
function report(fuzzer: Fuzzer, seed: number, first: number, count: number): boolean {
  const { canary = false, name } = fuzzer;
  const started = performance.now();
  const { failure, inputs } = run(fuzzer, seed, first, count);
  const seconds = ((performance.now() - started) / 1000).toFixed(1);
  if (canary) {
    const found = failure === undefined ? 'NOT FOUND' : `found in case ${failure.number}`;
    console.log(`${name.padEnd(14)} ${found}: ${fuzzer.promise}`);
    return failure !== undefined;
  }
  if (failure === undefined) {
    console.log(`${name.padEnd(14)} ${count} cases, ${inputs} inputs, seed ${seed}, ${seconds} s`);
    return true;
  }
  console.log(`${name}: case ${failure.number} breaks: ${fuzzer.promise}`);
  console.log(failure.error.stack);
  console.log(`inputs saved in ${save(name, seed, failure)}; again:`);
  console.log(`  npm run fuzz -- --only ${name} --seed ${seed} --case ${failure.number}`);
  return false;
}

function main(): void {
  const { values } = parseArgs({
    allowPositionals: true,
    options: {
      seed: { type: 'string' },
      cases: { type: 'string' },
      only: { type: 'string' },
      case: { type: 'string' },
    },
  });
  const seed = Number(values.seed ?? 1);
  const chosen = fuzzers.filter(({ name }) => name === (values.only ?? name));
  if (chosen.length === 0) {
    console.error(`no such fuzzer; there are ${fuzzers.map(({ name }) => name).join(', ')}`);
    process.exitCode = 2;
  }
  for (const fuzzer of chosen) {
    const cases = fuzzer.canary ? fuzzer.smoke : Number(values.cases ?? fuzzer.smoke);
    const single = values.case !== undefined;
    const ok = report(fuzzer, seed, single ? Number(values.case) : 0, single ? 1 : cases);
    if (!ok) process.exitCode = 1;
  }
}

main();
