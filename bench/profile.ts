/**
 * Where the agent's time goes under a load: `node dist/bench/profile.js --help`. Two views of the
 * data-path thread:
 *
 *     functions   V8's sampling profiler (--cpu-prof): self time by TypeScript function; a system
 *                 call counts for the function that made it
 *     kernel      perf, where it is installed: self time by kernel symbol
 *
 * It is a tool for whoever makes the path faster; its figures are not recorded.
 */
import { spawn, spawnSync } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { Command, Option } from 'commander';
import { createRunDirectory } from '../lab/certificates.ts';
import { startIperfServer } from '../lab/traffic.ts';
import { Datagrams } from './measure/datagrams.ts';
import { output } from './measure.ts';
import { parseProcessTicks } from './parse.ts';
import { type Path, withPath } from './peer.ts';
import { agentGeneve, agentVxlan, setAgentNodeOptions } from './peers/agent.ts';
import { type Profile, partsOf, type SelfTime, selfTimes } from './profile-report.ts';

/** Each sample is a signal; more often, and the verifier of BPF programs never comes to an end. */
const samplingUs = 2000;
const warmUpSeconds = 1;
const port = 5300;
const graceMs = 10_000;
const wires = ['whole', 'firewall', 'mtu'] as const;

type Load = (path: Path, seconds: number) => Promise<void>;

const loads: Readonly<Record<string, Load>> = {
  'tcp-out': (path, seconds) => transfer(path, seconds, []),
  'tcp-in': (path, seconds) => transfer(path, seconds, ['-R']),
  'udp-64': (path, seconds) => datagrams(path, seconds, 100_000),
  'udp-64-slow': (path, seconds) => datagrams(path, seconds, 20_000),
  connections: connect,
};

type Options = {
  load: string;
  peer: string;
  wire: (typeof wires)[number];
  seconds: string;
  top: string;
  output?: string;
};

const command = new Command('profile')
  .description('Shows where the time of the agent goes under a load.')
  .addOption(new Option('--load <name>').choices(Object.keys(loads)).default('tcp-out'))
  .addOption(new Option('--peer <name>').choices(['geneve', 'vxlan']).default('geneve'))
  .addOption(new Option('--wire <name>').choices(wires).default('whole'))
  .option('--seconds <number>', 'how long', '4')
  .option('--top <number>', 'how many lines', '25')
  .option('--output <directory>', 'keep the .cpuprofile files there')
  .parse();
await main(command.opts<Options>());
process.exit(0);

async function main(options: Options): Promise<void> {
  const directory = resolve(options.output ?? join(createRunDirectory(), 'profile'));
  mkdirSync(directory, { recursive: true });
  const flags = ['--cpu-prof', `--cpu-prof-dir=${directory}`];
  setAgentNodeOptions([...flags, `--cpu-prof-interval=${samplingUs}`, '--perf-basic-prof']);
  const peer = options.peer === 'vxlan' ? agentVxlan : agentGeneve;
  const load = loads[options.load]!;
  const seconds = Number(options.seconds);
  const top = Number(options.top);
  await withPath(peer, options.wire, async (path) => {
    const before = threadTicks(path.pid!);
    await load(path, warmUpSeconds);
    const perf = startPerf(busiestThread(path.pid!, before), seconds, join(directory, 'perf.data'));
    await load(path, seconds);
    await perf?.(top);
  });
  const file = readdirSync(directory)
    .filter((name) => name.endsWith('.cpuprofile'))
    .map((name) => JSON.parse(readFileSync(join(directory, name), 'utf8')) as Profile)
    .find((profile) => profile.nodes.some((node) => node.callFrame.functionName === 'breathe'));
  if (file === undefined) throw new Error('no profile of the data-path thread was written');
  const { load: name, wire } = options;
  print(`self time by function, ${name}, agent ${options.peer}, ${wire}`, selfTimes(file), top);
}

function print(title: string, times: readonly SelfTime[], top = times.length): void {
  console.log(`\n${title}`);
  for (const { name, share } of times.slice(0, top)) {
    console.log(`${(share * 100).toFixed(1).padStart(6)} %  ${name}`);
  }
}

async function transfer(path: Path, seconds: number, extra: readonly string[]): Promise<void> {
  const server = await startIperfServer(path.server);
  const args = ['-c', path.address, '-t', String(seconds), ...extra];
  const text = await output(path.client, 'iperf3', args, seconds * 1000 + graceMs);
  console.log(text.split('\n').find((line) => line.includes('receiver')));
  await server.stop('SIGKILL');
}

async function datagrams(path: Path, seconds: number, rate: number): Promise<void> {
  const generator = await Datagrams.open(path, port);
  const { arrived, loss } = await generator.trial(64, rate, seconds);
  console.log(`${Math.round(arrived)} datagrams/s, ${(loss * 100).toFixed(2)} % lost`);
  await generator.close();
}

async function connect(path: Path, seconds: number): Promise<void> {
  const { newConnections } = await import('./measure/new-connections.ts');
  console.log(await newConnections.run(path, { seconds, precision: 1.1, quick: false }, {}));
}

/** Records a thread; what it returns waits and prints. */
function startPerf(thread: string, seconds: number, file: string) {
  if (spawnSync('which', ['perf']).status !== 0) return undefined;
  const args = ['record', '-q', '-F', '999', '-g', '-t', thread, '-o', file];
  const recorder = spawn('perf', [...args, '--', 'sleep', String(seconds)], { stdio: 'ignore' });
  const ended = new Promise((done) => recorder.once('exit', done));
  return async (top: number): Promise<void> => {
    await ended;
    const perf = (...args: string[]) =>
      spawnSync('perf', [...args, '-i', file], { encoding: 'utf8', maxBuffer: 1 << 28 }).stdout;
    const parts = partsOf(perf('script', '-F', 'ip,sym,dso'));
    print('data-path thread by part (perf)', parts);
    const self = perf('report', '--stdio', '--no-children', '-g', 'none', '--percent-limit', '0.4');
    const lines = self.split('\n').filter((line) => /^ +\d/.test(line));
    console.log(['\nself time by symbol (perf)', ...lines.slice(0, top)].join('\n'));
  };
}

/** Clock ticks of processor time by thread. */
function threadTicks(pid: number): Map<string, number> {
  const threads = readdirSync(`/proc/${pid}/task`);
  return new Map(
    threads.map((thread) => {
      const text = readFileSync(`/proc/${pid}/task/${thread}/stat`, 'utf8');
      return [thread, parseProcessTicks(text)] as const;
    }),
  );
}

/** The one that worked most since then. */
function busiestThread(pid: number, before: ReadonlyMap<string, number>): string {
  const now = threadTicks(pid);
  const worked = (thread: string) => (now.get(thread) ?? 0) - (before.get(thread) ?? 0);
  return [...now.keys()].reduce((best, one) => (worked(one) > worked(best) ? one : best));
}
