/**
 * Runs everything that can fail: types, lint, tidy, tests, small runs of fuzzers and benches.
 *
 *   node dist/scripts/test.js            all of it; test/net only as root
 *     --unit                             what needs no root
 *     --net                              test/net alone
 *     --only PATTERN                     test files whose path matches, and no checks but types
 *
 * One line for each file, failures with their diagnostics, and a last line `N passed, N failed`:
 * assertions, and one for each check. With CI set, a skipped test fails unless the kernel lacks
 * something (`kernel has no …`). No tests found is a failure.
 */
import { spawn } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { killAll, type Outcome, runTap } from './tap.ts';

const timeLimitMs = 180_000;
const excuse = /kernel has no /i;
const inCi = /^(1|true)$/.test(process.env.CI ?? '');
const isRoot = process.getuid?.() === 0;

/** Programs that fail by their exit status; each runs when the file that it `needs` exists. */
const checks = [
  { name: 'types', command: 'node_modules/.bin/tsc', args: ['-p', '.'], needs: 'tsconfig.json' },
  {
    name: 'lint',
    command: 'node_modules/.bin/biome',
    args: ['ci', '--colors=off', '.'],
    needs: 'biome.json',
  },
  script('tidy', 'scripts/tidy.ts'),
  script('fuzz', 'test/fuzz/main.ts', 'smoke'),
  script('bench', 'bench/micro.ts'),
];

function script(name: string, source: string, ...args: string[]) {
  return { name, command: process.execPath, args: [compiled(source), ...args], needs: source };
}

function compiled(source: string): string {
  return join('dist', source.replace(/\.ts$/, '.js'));
}

let passed = 0;
let failed = 0;
const skipped: string[] = [];

function report(name: string, outcome: Outcome): void {
  const { seconds, problems } = outcome;
  if (inCi) refuseSkips(outcome);
  passed += outcome.passed;
  failed += outcome.failed;
  skipped.push(...outcome.skipped.map((reason) => `${name}: ${reason}`));
  const counts = [
    `${outcome.passed} passed`,
    outcome.failed > 0 ? `${outcome.failed} failed` : '',
    outcome.skipped.length > 0 ? `${outcome.skipped.length} skipped` : '',
  ].filter((count) => count !== '');
  const verdict = outcome.failed > 0 ? 'FAILED' : 'ok    ';
  console.log(`${verdict} ${seconds.toFixed(1).padStart(6)} s  ${name}  ${counts.join(', ')}`);
  for (const problem of problems) console.log(problem.replace(/^/gm, '         '));
}

function refuseSkips(outcome: Outcome): void {
  for (const reason of outcome.skipped.filter((text) => !excuse.test(text))) {
    outcome.failed++;
    outcome.problems.push(`skipped, which only a missing kernel feature may: ${reason}`);
  }
  outcome.skipped = outcome.skipped.filter((text) => excuse.test(text));
}

function runCheck(command: string, args: readonly string[]): Promise<Outcome> {
  const started = performance.now();
  return new Promise((resolve) => {
    const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'] });
    let output = '';
    const gather = (chunk: Buffer) => {
      output += chunk;
    };
    child.stdout.on('data', gather);
    child.stderr.on('data', gather);
    const done = (ok: boolean) =>
      resolve({
        passed: ok ? 1 : 0,
        failed: ok ? 0 : 1,
        skipped: [],
        problems: ok || output === '' ? [] : [output.trimEnd()],
        seconds: (performance.now() - started) / 1000,
      });
    child.once('error', (error) => {
      output += error.message;
      done(false);
    });
    child.once('close', (status) => done(status === 0));
  });
}

/** Test files by source, so that what is left in dist/ of a deleted one does not run. */
function testFiles(): string[] {
  if (!existsSync('test')) return [];
  return readdirSync('test', { recursive: true, encoding: 'utf8' })
    .filter((path) => path.endsWith('.test.ts'))
    .map((path) => join('test', path))
    .sort();
}

/** `// Flags: --expose-gc` at the head of a test file, as Node's own tests have it. */
function flagsOf(source: string): string[] {
  return /^\/\/ Flags: (.*)$/m.exec(readFileSync(source, 'utf8'))?.[1]?.trim().split(/\s+/) ?? [];
}

/** `// Untimed: …` at its head: it measures no time, and two of the kind may run at once. */
function isUntimed(source: string): boolean {
  return /^\/\/ Untimed: /m.test(readFileSync(source, 'utf8'));
}

async function runFiles(files: readonly string[], jobs: number): Promise<void> {
  const queue = [...files];
  const worker = async () => {
    for (let file = queue.shift(); file !== undefined; file = queue.shift()) {
      report(file, await runTap(compiled(file), { flags: flagsOf(file), timeLimitMs }));
    }
  };
  await Promise.all(Array.from({ length: jobs }, worker));
}

function failWith(problem: string): void {
  failed++;
  console.log(problem);
}

function options() {
  try {
    return parseArgs({
      options: { unit: { type: 'boolean' }, net: { type: 'boolean' }, only: { type: 'string' } },
    }).values;
  } catch (error) {
    console.error(`${(error as Error).message}\nscripts/test [--unit | --net] [--only PATTERN]`);
    process.exit(2);
  }
}

async function main(): Promise<void> {
  const { unit = false, net = false, only } = options();
  const pattern = new RegExp(only ?? '');
  for (const { name, command, args, needs } of checks) {
    if (!existsSync(needs) || (name !== 'types' && (net || only !== undefined))) continue;
    report(name, await runCheck(command, args));
  }
  const files = testFiles().filter((path) => pattern.test(path));
  const netFiles = unit && !net ? [] : files.filter((path) => path.startsWith('test/net/'));
  const unitFiles = net && !unit ? [] : files.filter((path) => !path.startsWith('test/net/'));
  if (netFiles.length + unitFiles.length === 0) failWith('no tests found');
  await runFiles(unitFiles, availableParallelism());
  if (isRoot) {
    await runFiles(netFiles.filter(isUntimed), availableParallelism());
    await runFiles(
      netFiles.filter((file) => !isUntimed(file)),
      1,
    );
  } else if (netFiles.length > 0) {
    const sentence = `${netFiles.length} files of test/net need root: sudo ./scripts/test --net`;
    if (net || inCi) failWith(sentence);
    else skipped.push(sentence);
  }
  for (const reason of skipped) console.log(`skipped: ${reason}`);
  console.log(`${passed} passed, ${failed} failed`);
  process.exitCode = failed > 0 ? 1 : 0;
}

for (const [signal, status] of [
  ['SIGINT', 130],
  ['SIGTERM', 143],
] as const) {
  process.on(signal, () => {
    killAll();
    process.exit(status);
  });
}
await main();
