/**
 * Hosts as network namespaces. Every name carries our prefix and the pid of the process that made
 * it (`mp4711-workload`), so that whatever a killed run left behind is found and removed by the
 * next, and two runs on one machine do not meet. All of a process's namespaces go on every exit.
 *
 * Programs are started by `nsenter --net`, not `ip netns exec`: the latter gives each program a
 * mount namespace of its own, in which pinned BPF objects would vanish with it.
 */
import { type ChildProcess, type SpawnOptions, spawn, spawnSync } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';

const prefix = 'mp';
const directory = '/run/netns';
const made = new Set<string>();
let watching = false;

/** A command that must work; throws with its words when it does not. Returns standard output. */
export function must(command: string, args: readonly string[], cwd = '.'): string {
  const result = spawnSync(command, args, { cwd, encoding: 'utf8' });
  if (result.error) throw new Error(`${command}: ${result.error.message}`);
  if (result.status !== 0) {
    throw new Error(
      `${command} ${args.join(' ')}: ${result.stderr.trim() || `exit ${result.status}`}`,
    );
  }
  return result.stdout;
}

export class Namespace {
  readonly name: string;
  readonly path: string;

  /** Makes the namespace, with its loopback up. `host` is its short name, such as `workload`. */
  constructor(host: string) {
    watchExits();
    this.name = `${prefix}${process.pid}-${host}`;
    this.path = `${directory}/${this.name}`;
    must('ip', ['netns', 'add', this.name]);
    made.add(this.name);
    this.must('ip', ['link', 'set', 'lo', 'up']);
  }

  /** Run a command inside and wait; throws when it fails. */
  must(command: string, args: readonly string[]): string {
    return must('nsenter', [`--net=${this.path}`, command, ...args]);
  }

  /** `ip` with its arguments as one line, inside. */
  ip(line: string): string {
    return this.must('ip', line.split(' '));
  }

  /** Start a program inside and do not wait. The child is the program itself (nsenter execs). */
  spawn(command: string, args: readonly string[], options: SpawnOptions = {}): ChildProcess {
    return spawn('nsenter', [`--net=${this.path}`, command, ...args], options);
  }

  remove(): void {
    if (!made.delete(this.name)) return;
    spawnSync('ip', ['netns', 'del', this.name]);
  }
}

/** Join two namespaces by a veth pair; each end gets its name and stays down and unnumbered. */
export function join(a: Namespace, aName: string, b: Namespace, bName: string): void {
  must('ip', [
    'link',
    'add',
    aName,
    'netns',
    a.name,
    'type',
    'veth',
    'peer',
    'name',
    bName,
    'netns',
    b.name,
  ]);
}

function removeAllNamespaces(): void {
  for (const name of [...made]) {
    made.delete(name);
    spawnSync('ip', ['netns', 'del', name]);
  }
}

/** Remove what runs that no longer live left behind. Returns the names removed. */
export function removeStaleNamespaces(): string[] {
  if (!existsSync(directory)) return [];
  const stale = readdirSync(directory).filter((name) => {
    const pid = new RegExp(`^${prefix}(\\d+)-`).exec(name)?.[1];
    return pid !== undefined && !existsSync(`/proc/${pid}`);
  });
  for (const name of stale) spawnSync('ip', ['netns', 'del', name]);
  return stale;
}

/** Keep namespaces when this process ends (`--keep`). */
export function keepNamespaces(): void {
  made.clear();
}

function watchExits(): void {
  if (watching) return;
  watching = true;
  process.on('exit', removeAllNamespaces);
  for (const [signal, status] of [
    ['SIGINT', 130],
    ['SIGTERM', 143],
    ['SIGHUP', 129],
  ] as const) {
    process.on(signal, () => {
      removeAllNamespaces();
      process.exit(status);
    });
  }
}
