/**
 * Appends what a bench measured to bench/results.ndjson, one JSON object a line, with everything
 * that a figure means nothing without: commit, Node, kernel, CPU, parameters.
 */
import { execFileSync } from 'node:child_process';
import { appendFileSync } from 'node:fs';
import { cpus, release } from 'node:os';
import { parseArgs } from 'node:util';
import { type Result, resultsFile } from './results.ts';

let machine: Readonly<Record<string, string>> | undefined;

/** Options that micro benches have in common. */
const microOptions = {
  smoke: { type: 'boolean', default: false },
  record: { type: 'boolean', default: false },
  json: { type: 'boolean', default: false },
  /** Of the sets of rules, those whose names match. */
  only: { type: 'string', default: '' },
} as const;

export const micro = parseArgs({ options: microOptions, strict: false }).values as {
  smoke: boolean;
  record: boolean;
  json: boolean;
  only: string;
};

/** Words on the way of a micro bench. */
export function say(words: string): void {
  if (micro.json) console.error(words);
  else console.log(words);
}

/** What a micro bench found: recorded or printed, as its options say. */
export function report(result: Result): void {
  if (micro.record) record(result);
  if (micro.json) console.log(JSON.stringify(result));
}

/** Run from the root of the repository. */
export function record(result: Result): void {
  machine ??= {
    commit: commitName(),
    node: process.version,
    kernel: release(),
    cpu: cpus()[0]?.model.trim() ?? 'unknown',
  };
  const { parameters, ...measured } = result;
  const line = { ...measured, ...machine, date: new Date().toISOString(), parameters };
  appendFileSync(resultsFile, `${JSON.stringify(line)}\n`);
}

/** Short hash of HEAD, with `+` when the tree differs from it. */
function commitName(): string {
  try {
    const git = (...args: string[]) =>
      execFileSync('git', args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim();
    const changed = git('status', '--porcelain', '--', '.', `:!${resultsFile}`) !== '';
    return git('rev-parse', '--short', 'HEAD') + (changed ? '+' : '');
  } catch {
    return 'unknown';
  }
}
