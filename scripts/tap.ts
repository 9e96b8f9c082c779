/**
 * Runs one compiled test file and reads the TAP that it prints.
 *
 * With node itself, not the `tap` command: a test file is a program that prints TAP either way, and
 * the command takes 1.2 s for the first file and 0.4 s for each next one where node takes 0.2 s
 * (Node 20, 2 cores). It also rebuilds its plugins in a fresh checkout, where its first run fails.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { Parser, type Result } from 'tap-parser';

export interface Outcome {
  passed: number;
  failed: number;
  /** Names and reasons of skipped tests; not among the passed or failed. */
  skipped: string[];
  /** What a person needs to see of the failures. */
  problems: string[];
  seconds: number;
}

export interface RunOptions {
  /** Arguments for node, before the file. */
  flags?: readonly string[];
  /** The file is killed, with its children, after this time. */
  timeLimitMs: number;
}

const killGraceMs = 5_000;
const lingerMs = 1_000;
const outputMax = 1 << 20;
const diagnosticsMax = 40;

/** Groups of processes that run now. */
const running = new Set<number>();

/** End what runs; for a signal to the runner itself. */
export function killAll(): void {
  for (const group of running) signalGroup(group, 'SIGTERM');
}

/** Run a test file; whatever happens ends in the outcome, and nothing that it started stays. */
export async function runTap(file: string, options: RunOptions): Promise<Outcome> {
  const started = performance.now();
  const { flags = [], timeLimitMs } = options;
  const child = spawn(process.execPath, ['--enable-source-maps', ...flags, file], {
    // A group of its own, so that children of the test go with it.
    detached: true,
    stdio: ['ignore', 'pipe', 'pipe'],
    // tap's own limit of 30 s per test is too short for net tests. It says more than a kill does,
    // so it comes first.
    env: {
      ...process.env,
      TAP_TIMEOUT: String(Math.max(1, timeLimitMs / 1000 - killGraceMs / 1000)),
    },
  });
  const output = gather(child);
  const reading = read(child);
  const ended = await end(child, timeLimitMs);
  // A child that left the group may still hold the output open.
  const letGo = setTimeout(() => {
    child.stdout.destroy();
    child.stderr.destroy();
  }, lingerMs);
  const outcome = await reading;
  clearTimeout(letGo);
  outcome.seconds = (performance.now() - started) / 1000;
  const before = outcome.failed;
  if (ended.problem) fail(outcome, ended.problem);
  else if (ended.status !== 0 && before === 0) fail(outcome, `ended with ${ended.status}`);
  if (outcome.failed > 0 && output.text.trim()) outcome.problems.push(output.text.trim());
  return outcome;
}

function fail(outcome: Outcome, problem: string): void {
  outcome.failed++;
  outcome.problems.push(problem);
}

function gather(child: ChildProcess): { text: string } {
  const output = { text: '' };
  child.stderr?.setEncoding('utf8').on('data', (chunk: string) => {
    output.text = (output.text + chunk).slice(-outputMax);
  });
  return output;
}

/** Reads TAP until the output closes. Counts what asserts, not the tests that enclose it. */
function read(child: ChildProcess): Promise<Outcome> {
  return new Promise((resolve) => {
    const outcome: Outcome = { passed: 0, failed: 0, skipped: [], problems: [], seconds: 0 };
    const parser = new Parser((results) => {
      const { plan, bailout, failures } = results;
      const counted = outcome.passed + outcome.failed + outcome.skipped.length;
      for (const failure of failures) {
        if (!('ok' in failure)) fail(outcome, `broken TAP: ${failure.tapError}`);
      }
      if (bailout) fail(outcome, `bailed out: ${bailout}`);
      // tap's own words for a file without a test, and no excuse.
      const reason = plan.skipReason === 'no tests found' ? '' : plan.skipReason;
      if (plan.skipAll && reason) outcome.skipped.push(reason);
      else if (counted === 0) fail(outcome, 'no tests found');
      else if (!results.ok && outcome.failed === 0) fail(outcome, 'the plan was not kept');
      resolve(outcome);
    });
    follow(parser, outcome);
    child.stdout?.setEncoding('utf8').on('data', (chunk: string) => parser.write(chunk));
    child.stdout?.once('close', () => parser.end());
  });
}

/** Counts a test's assertions and those of the tests inside it. */
function follow(parser: Parser, outcome: Outcome): void {
  let failedBefore = 0;
  parser.on('child', (child: Parser) => {
    failedBefore = outcome.failed;
    follow(child, outcome);
  });
  parser.on('assert', (result: Result) => {
    // The line that closes a test repeats what was counted inside, unless the test failed as such:
    // by its time limit or its plan.
    const repeats = result.closingTestPoint && (result.ok || outcome.failed > failedBefore);
    if (!repeats) count(outcome, result);
  });
}

function count(outcome: Outcome, result: Result): void {
  const name = result.fullname;
  const excuse = result.skip || result.todo;
  if (excuse) {
    outcome.skipped.push(excuse === true ? name : `${name}: ${excuse}`);
  } else if (result.ok) {
    outcome.passed++;
  } else {
    fail(outcome, [`not ok: ${name}`, ...diagnostics(result)].join('\n'));
  }
}

function diagnostics(result: Result): string[] {
  if (!result.diag) return [];
  const lines = Object.entries(result.diag as Record<string, unknown>).flatMap(([key, value]) => {
    const text = typeof value === 'string' ? value : JSON.stringify(value);
    return text.includes('\n') ? [`${key}:`, ...text.trimEnd().split('\n')] : [`${key}: ${text}`];
  });
  return lines.slice(0, diagnosticsMax).map((line) => `  ${line}`);
}

interface End {
  status: number | string | null;
  problem?: string;
}

/** Waits for the end of the test, at most until the limit, and sees to it that nothing stays. */
function end(child: ChildProcess, timeLimitMs: number): Promise<End> {
  return new Promise((resolve) => {
    const group = child.pid;
    if (group === undefined) {
      child.once('error', ({ message }) => resolve({ status: null, problem: message }));
      return;
    }
    running.add(group);
    let late = false;
    const limit = setTimeout(() => {
      late = true;
      // SIGTERM first: the test removes its namespaces on it.
      signalGroup(group, 'SIGTERM');
      setTimeout(() => signalGroup(group, 'SIGKILL'), killGraceMs).unref();
    }, timeLimitMs);
    child.once('exit', async (code, signal) => {
      clearTimeout(limit);
      const left = await waitForGroup(group);
      running.delete(group);
      const status = code ?? signal;
      if (late) resolve({ status, problem: `killed after ${timeLimitMs / 1000} s` });
      else if (left) resolve({ status, problem: 'left processes running; they were killed' });
      else resolve({ status });
    });
  });
}

/** Gives a test's children a moment to end; true when they had to be killed. */
async function waitForGroup(group: number): Promise<boolean> {
  for (const until = performance.now() + lingerMs; performance.now() < until; ) {
    if (!isAlive(group)) return false;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  return signalGroup(group, 'SIGKILL');
}

/** Whether a process of the group runs. Dead ones that nobody waited for (zombies) do not count. */
function isAlive(group: number): boolean {
  return readdirSync('/proc').some((pid) => {
    if (!/^\d+$/.test(pid)) return false;
    try {
      // proc(5): pid (name) state parent group; the name may hold anything.
      const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
      const [state, , itsGroup] = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
      return Number(itsGroup) === group && state !== 'Z' && state !== 'X';
    } catch {
      // It ended meanwhile.
      return false;
    }
  });
}

/** False when there is no such group. */
function signalGroup(group: number, signal: NodeJS.Signals): boolean {
  try {
    return process.kill(-group, signal);
  } catch {
    return false;
  }
}
