/**
 * Where the steering tests play; needs root.
 *
 *     peer 10.77.0.2 ---- eth0 10.77.0.1 workload 10.78.0.1 eth1 ---- inner 10.78.0.2
 *                           |                                          (a host behind the workload)
 *                         mptun: steering-agent.ts echoes what it is given
 */
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname } from 'node:path';
import t, { type Test } from 'tap';
import { SteeringMode } from '../../engine/io.ts';
import { join, Namespace, removeStaleNamespaces } from '../../lab/namespace.ts';
import type { Hook } from '../../linux/bpf/attach.ts';
import { hasTcx, programsOn } from '../../linux/bpf/tcx-link.ts';
import { insideNamespace } from '../../linux/namespace.ts';
import type { SteeringCounters } from '../../linux/steering.ts';
import type { AgentPolicy, Command, MethodName, Stats } from './steering-agent.ts';

removeStaleNamespaces();
export const workload = new Namespace('workload');
export const peer = new Namespace('peer');
export const inner = new Namespace('inner');
join(workload, 'eth0', peer, 'eth0');
join(workload, 'eth1', inner, 'eth0');
for (const [host, name, address] of [
  [workload, 'eth0', '10.77.0.1/24'],
  [workload, 'eth1', '10.78.0.1/24'],
  [peer, 'eth0', '10.77.0.2/24'],
  [inner, 'eth0', '10.78.0.2/24'],
] as const) {
  host.ip(`addr add ${address} dev ${name}`);
  host.ip(`link set ${name} up`);
}
workload.must('sysctl', ['-qw', 'net.ipv4.ip_forward=1']);
peer.ip('route add 10.78.0.0/24 via 10.77.0.1');
inner.ip('route add default via 10.78.0.1');
// Duplicate address detection would make the first IPv6 packets wait.
workload.ip('-6 addr add fd77::1/64 dev eth0 nodad');
peer.ip('-6 addr add fd77::2/64 dev eth0 nodad');

export const address = (text: string) =>
  text.split('.').reduce((sum, byte) => (sum << 8) | Number(byte), 0) | 0;
export const local = address('10.77.0.1');
export const remote = address('10.77.0.2');
export const UDP = 17;

export const pinDirectory = `${mkdtempSync(`${tmpdir()}/microperimeter-`)}/pins`;
process.on('exit', () => rmSync(dirname(pinDirectory), { recursive: true, force: true }));

export const basePolicy: AgentPolicy = {
  interfaceNames: ['eth0'],
  firewalls: [],
  tunnelPorts: [6081],
  returnFrom: [],
  telemetry: [],
  management: [],
  broadcasts: [address('10.77.0.255')],
  ipv6: 'pass',
  onAgentFailure: 'pass',
  onBoot: 'pass',
  heartbeatTimeoutMs: 300,
  acceleration: undefined,
  pinDirectory,
};

export type Start = (policy: Partial<AgentPolicy>, mode?: SteeringMode) => Promise<Agent>;

/** One test for each way of attaching. `start` starts an agent that uses it. */
export function forEachMethod(name: string, work: (t: Test, start: Start) => Promise<void>): void {
  for (const method of ['tcx', 'clsact'] as const) {
    const skip = method === 'tcx' && !hasTcx() && 'kernel has no TCX';
    t.test(`${name} (${method})`, { skip }, async (t) => {
      await work(t, (policy, mode) => Agent.start(method, policy, mode));
    });
  }
}

/** How many of our programs are on a hook of the workload. */
export function onHook(interfaceName: string, hook: Hook): number {
  const [link] = JSON.parse(workload.ip(`-j link show ${interfaceName}`)) as [{ ifindex: number }];
  const links = insideNamespace(workload.path, () =>
    hasTcx() ? programsOn(link.ifindex, hook).length : 0,
  );
  return (
    links + filters(interfaceName, hook).filter((line) => line.includes('microperimeter')).length
  );
}

/** `tc filter show`, a line for each. */
export function filters(interfaceName: string, hook: Hook): string[] {
  const text = workload.must('tc', ['filter', 'show', 'dev', interfaceName, hook]);
  return text.split('\n').filter((line) => /\b(?:handle|fh)\b/.test(line));
}

export class Agent {
  readonly child: ChildProcess;
  private constructor(child: ChildProcess) {
    this.child = child;
  }

  static async start(
    method: MethodName,
    policy: Partial<AgentPolicy>,
    mode: SteeringMode = SteeringMode.Redirect,
  ) {
    const program = `${process.cwd()}/dist/test/net/steering-agent.js`;
    const child = workload.spawn(
      process.execPath,
      [program, JSON.stringify({ ...basePolicy, ...policy }), method],
      { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] },
    );
    const agent = new Agent(child);
    await Promise.race([once(child, 'message'), once(child, 'exit')]);
    await agent.tell({ do: 'mode', mode });
    return agent;
  }

  async tell(command: Command): Promise<unknown> {
    const answer = once(this.child, 'message');
    this.child.send(command);
    return (await answer)[0];
  }
  async counters() {
    return (await this.tell({ do: 'counters' })) as SteeringCounters;
  }
  async stats() {
    return (await this.tell({ do: 'stats' })) as Stats;
  }
  async end(signal: NodeJS.Signals = 'SIGKILL') {
    if (this.child.exitCode !== null || this.child.signalCode !== null) return;
    const ended = once(this.child, 'exit');
    this.child.kill(signal);
    await ended;
  }
}

/** Runs to the end; resolves with status and output. */
export async function run(host: Namespace, command: string, ...args: string[]) {
  const child = host.spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'] });
  let text = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream?.setEncoding('utf8').on('data', (part: string) => {
      text += part;
    });
  }
  const [status] = (await once(child, 'close')) as [number | null];
  return { status: status ?? -1, text };
}
export async function pings(host: Namespace, target: string, ...flags: string[]): Promise<boolean> {
  const quick = ['-n', '-c', '2', '-i', '0.05', '-W', '0.4', ...flags];
  return (await run(host, 'ping', ...quick, target)).status === 0;
}
export const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

const kinds = { udp: 'SOCK_DGRAM', tcp: 'SOCK_STREAM' } as const;
const echoServer = `
import socket, sys
s = socket.socket(socket.AF_INET, socket.KIND)
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(("", int(sys.argv[1])))
if s.type == socket.SOCK_STREAM: s.listen()
print("ready", flush=True)
if s.type == socket.SOCK_STREAM:
  c, _ = s.accept()
  c.send(c.recv(100))
  c.recv(1)
else:
  data, sender = s.recvfrom(100)
  s.sendto(data, sender)
`;
export const udpSend = `
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.sendto(b"x" * int(sys.argv[3]), (sys.argv[1], int(sys.argv[2])))
`;
const echoClient = `
import socket, sys
s = socket.socket(socket.AF_INET, socket.KIND)
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.settimeout(0.5)
s.bind(("", int(sys.argv[3])))
s.connect((sys.argv[1], int(sys.argv[2])))
s.send(b"hello")
sys.exit(0 if s.recv(100) == b"hello" else 1)
`;

/** Whether a message from `client` comes back from `server`; ports: the client's, the server's. */
export async function echoes(
  kind: keyof typeof kinds,
  client: Namespace,
  server: Namespace,
  target: string,
  [clientPort, serverPort]: readonly [number, number],
): Promise<boolean> {
  const script = (text: string) => text.replaceAll('KIND', kinds[kind]);
  const echo = server.spawn('python3', ['-c', script(echoServer), `${serverPort}`], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  await once(echo.stdout!, 'data');
  const args = ['-c', script(echoClient), target, `${serverPort}`, `${clientPort}`];
  const { status } = await run(client, 'python3', ...args);
  echo.kill('SIGKILL');
  return status === 0;
}

/** How the counters moved during `work`. */
export async function moved(agent: Agent, work: () => Promise<unknown>) {
  const before = await agent.counters();
  await work();
  const after = await agent.counters();
  const entries = Object.entries(after).map(([name, { packets }]) => [
    name,
    packets - before[name as keyof SteeringCounters].packets,
  ]);
  return Object.fromEntries(entries) as Record<keyof SteeringCounters, number>;
}
