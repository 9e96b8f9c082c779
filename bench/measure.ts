/**
 * What the kinds of measurement have in common. Each kind is a file in `bench/measure/`; it makes
 * traffic over a path, proves that the traffic took it, and gives figures by name.
 */
import type { Namespace } from '../lab/namespace.ts';
import { type Program, start, until } from '../lab/program.ts';
import type { Path } from './peer.ts';

/** How long and how exactly. */
export type Effort = {
  /** Of one transfer or trial. */
  readonly seconds: number;
  /** Of the packet rates' search; see statistics.ts. */
  readonly precision: number;
  /** To see that it works: as little as each tool can do, all at once. */
  readonly quick: boolean;
};

export type Figures = Readonly<Record<string, number>>;

/** Figures of earlier repeats of the same cell, by name: where a search may begin. */
export type Hints = Readonly<Record<string, number>>;

export type Measurement = {
  readonly name: string;
  /** It does not survive loss, so nothing that loses packets may run beside it. */
  readonly alone?: boolean;
  run(path: Path, effort: Effort, hints: Hints): Promise<Figures>;
};

export type FigureKind = {
  readonly title: string;
  readonly unit: string;
  /** Whether more is better; what a ratio means depends on it. */
  readonly more: boolean;
  readonly digits: number;
};

const rate = { unit: 'Gbit/s', more: true, digits: 2 };
const instructions = { unit: 'instructions', more: false, digits: 0 };
const nanoseconds = { unit: 'ns', more: false, digits: 0 };
const time = { unit: 'us', more: false, digits: 1 };

/** Every figure there is, in the order of the table. `in`: towards the workload. */
export const figureKinds: Readonly<Record<string, FigureKind>> = {
  'tcp-1-out': { title: 'TCP 1 flow out', ...rate },
  'tcp-1-in': { title: 'TCP 1 flow in', ...rate },
  'tcp-4-out': { title: 'TCP 4 flows out', ...rate },
  'tcp-4-in': { title: 'TCP 4 flows in', ...rate },
  'cpu-gb-machine': { title: 'CPU, machine', unit: 's/GB', more: false, digits: 2 },
  'cpu-gb-program': { title: 'CPU, program', unit: 's/GB', more: false, digits: 2 },
  'udp-64': { title: 'UDP 64 bytes', unit: 'kpps', more: true, digits: 0 },
  'udp-64-joined': { title: 'UDP 64 bytes, 32 joined', unit: 'kpps', more: true, digits: 0 },
  'udp-1400': { title: 'UDP 1,400 bytes', unit: 'kpps', more: true, digits: 0 },
  'udp-p50': { title: 'UDP round trip p50', ...time },
  'udp-p99': { title: 'UDP round trip p99', ...time },
  'tcp-p50': { title: 'TCP round trip p50', ...time },
  'tcp-p99': { title: 'TCP round trip p99', ...time },
  connections: { title: 'connections', unit: '1/s', more: true, digits: 0 },
  'cores-80k': { title: 'cores at 80 kpps', unit: 'cores', more: false, digits: 2 },
  'cores-80k-program': { title: 'of them the program', unit: 'cores', more: false, digits: 2 },
  'cpu-mp-machine': { title: 'CPU, machine', unit: 's/Mpackets', more: false, digits: 2 },
  'cpu-mp-program': { title: 'CPU, program', unit: 's/Mpackets', more: false, digits: 2 },
  'loss-80k': { title: 'lost at 80 kpps', unit: '%', more: false, digits: 3 },
  'reload-p99-before': { title: '1,000 round trips/s p99', ...time },
  'reload-p99': { title: 'the same while 10k rules are reloaded', ...time },
  'reload-lost': { title: 'lost meanwhile', unit: 'datagrams', more: false, digits: 0 },
  'reload-time': { title: 'a reload of 10k rules', unit: 'ms', more: false, digits: 0 },
  'bpf-out': { title: 'BPF at the NIC, out', ...instructions },
  'bpf-out-ns': { title: 'BPF at the NIC, out, a run', ...nanoseconds },
  'bpf-in': { title: 'BPF at the NIC, in', ...instructions },
  'bpf-in-ns': { title: 'BPF at the NIC, in, a run', ...nanoseconds },
  'bpf-tun': { title: 'BPF at the TUN', ...instructions },
  'bpf-tun-ns': { title: 'BPF at the TUN, a run', ...nanoseconds },
  memory: { title: 'memory, program', unit: 'MiB', more: false, digits: 0 },
};

/** A program to its end; its whole standard output. Throws with its words when it failed. */
export async function output(
  host: Namespace,
  command: string,
  args: readonly string[],
  limitMs: number,
): Promise<string> {
  const lines: string[] = [];
  const program = start(host, command, args, { onLine: (line) => lines.push(line) });
  program.child.stdin?.end();
  await until(`${command} ends`, limitMs, () => program.exitCode !== undefined).finally(() =>
    program.stop('SIGKILL'),
  );
  if (program.exitCode !== 0) {
    throw new Error(`${command}: ${lastWords(program, lines.slice(-3).join(' '))}`);
  }
  return lines.join('\n');
}

/** Why a program ended: of a stack trace, the line that names the error. */
export function lastWords(program: Program, otherwise = ''): string {
  const said = program.errors.trim();
  const error = /^\w*Error: .*$/m.exec(said)?.[0];
  return error ?? (said || otherwise || `exit ${program.exitCode}`);
}
