/**
 * Programs that the lab starts in its hosts. Each is known by its child process, its output is
 * kept, and none outlives the lab: on exit, whatever still runs is stopped, the polite ones
 * politely.
 */
import type { ChildProcess } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import type { Namespace } from './namespace.ts';

export type ProgramOptions = {
  /** Called with each line of standard output. Without it, standard output is collected. */
  readonly onLine?: (line: string) => void;
  /**
   * How long to wait, in ms, after SIGTERM before SIGKILL when the lab itself ends. 0, the default,
   * kills at once. For programs that have something to tidy up.
   */
  readonly graceMs?: number;
  readonly environment?: Record<string, string>;
};

const running = new Set<Program>();
let watching = false;

/** How much of a program's words is kept, in characters. */
const keptOutput = 65536;

export class Program {
  readonly name: string;
  readonly child: ChildProcess;
  readonly graceMs: number;
  /** Resolves with the exit code, or the negative signal-less -1 when a signal ended it. */
  readonly ended: Promise<number>;
  /** Undefined while it runs. */
  exitCode: number | undefined = undefined;
  private collectedOutput = '';
  private collectedErrors = '';

  constructor(host: Namespace, command: string, args: readonly string[], options: ProgramOptions) {
    watchExit();
    this.name = command;
    this.graceMs = options.graceMs ?? 0;
    this.child = host.spawn(command, args, {
      stdio: ['pipe', 'pipe', 'pipe'],
      env: { ...process.env, ...options.environment },
    });
    running.add(this);
    this.child.stdin?.on('error', () => {});
    const collect = (line: string) => {
      this.collectedOutput = tail(`${this.collectedOutput}${line}\n`);
    };
    if (this.child.stdout) {
      createInterface({ input: this.child.stdout }).on('line', options.onLine ?? collect);
    }
    this.child.stderr?.on('data', (data: Buffer) => {
      this.collectedErrors = tail(this.collectedErrors + data.toString());
    });
    this.ended = new Promise((resolve) => {
      const end = (code: number) => {
        running.delete(this);
        this.exitCode = code;
        resolve(code);
      };
      this.child.once('error', () => end(127));
      this.child.once('close', (code) => end(code ?? -1));
    });
  }

  get pid(): number {
    return this.child.pid ?? -1;
  }

  /** What it wrote to standard output, when nobody took the lines, up to 64 KiB of the end. */
  get output(): string {
    return this.collectedOutput;
  }

  /** What it wrote to standard error, up to 64 KiB of the end. */
  get errors(): string {
    return this.collectedErrors;
  }

  write(line: string): void {
    this.child.stdin?.write(`${line}\n`);
  }

  signal(signal: NodeJS.Signals): void {
    if (this.exitCode === undefined) this.child.kill(signal);
  }

  /** SIGTERM (or another), and SIGKILL when that did not help within `waitMs`. Returns the code. */
  async stop(signal: NodeJS.Signals = 'SIGTERM', waitMs = 5000): Promise<number> {
    this.signal(signal);
    const timer = setTimeout(() => this.signal('SIGKILL'), waitMs);
    const code = await this.ended;
    clearTimeout(timer);
    return code;
  }
}

/** Start a program in a host. */
export function start(
  host: Namespace,
  command: string,
  args: readonly string[],
  options: ProgramOptions = {},
): Program {
  return new Program(host, command, args, options);
}

/** Run a program in a host to its end. Never throws: the exit code tells. */
export async function run(
  host: Namespace,
  command: string,
  args: readonly string[],
): Promise<{ code: number; output: string; errors: string }> {
  const program = start(host, command, args);
  program.child.stdin?.end();
  const code = await program.ended;
  return { code, output: program.output, errors: program.errors };
}

/** Wait for a condition, asking every `everyMs`; throws with `what` after `limitMs`. */
export async function until(
  what: string,
  limitMs: number,
  holds: () => boolean | Promise<boolean>,
  everyMs = 20,
): Promise<void> {
  const deadline = performance.now() + limitMs;
  while (!(await holds())) {
    if (performance.now() > deadline) throw new Error(`${what}: not within ${limitMs} ms`);
    await pause(everyMs);
  }
}

export function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

function tail(text: string): string {
  return text.length > keptOutput ? text.slice(-keptOutput) : text;
}

function watchExit(): void {
  if (watching) return;
  watching = true;
  process.on('exit', stopAll);
}

/** Synchronous, for the exit handler: nothing may be awaited there. */
function stopAll(): void {
  for (const program of running) program.child.kill(program.graceMs > 0 ? 'SIGTERM' : 'SIGKILL');
  const longest = Math.max(0, ...[...running].map((program) => program.graceMs));
  const deadline = performance.now() + longest;
  while (performance.now() < deadline && [...running].some(isAlive)) sleepSync(10);
  for (const program of running) program.child.kill('SIGKILL');
}

/** A child that ended but could not be reaped yet, because we are busy, is a zombie. */
function isAlive(program: Program): boolean {
  try {
    const stat = readFileSync(`/proc/${program.pid}/stat`, 'utf8');
    return stat.slice(stat.lastIndexOf(')') + 2, stat.lastIndexOf(')') + 3) !== 'Z';
  } catch {
    return false;
  }
}

function sleepSync(ms: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
}
