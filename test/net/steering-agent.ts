/**
 * A stand-in for the engine, run by steering.test.ts inside the workload's namespace: one TUN
 * device, steering around it, and an echo: what is read from a queue is written to it again. It is
 * told what to do over IPC, one command and one answer at a time.
 */
import { execFileSync } from 'node:child_process';
import type { KernelVerdict, SteeringMode } from '../../engine/io.ts';
import { clsact } from '../../linux/bpf/clsact.ts';
import type { SteeringPolicy } from '../../linux/bpf/policy.ts';
import { tcx } from '../../linux/bpf/tcx.ts';
import { attachSteering, openSteering } from '../../linux/steering.ts';
import {
  allocate,
  check,
  clockGettime,
  epollCreate1,
  epollCtl,
  epollWait,
  ioctl,
  open,
  read,
  setPointer,
  write,
} from '../../linux/syscall.ts';

/** What the test chooses; the agent finds out the rest. */
export type AgentPolicy = Omit<SteeringPolicy, 'interfaces' | 'tun'> & {
  readonly interfaceNames: readonly string[];
};
const methods = { tcx, clsact };
export type MethodName = keyof typeof methods;
export type Command =
  | { do: 'mode'; mode: SteeringMode }
  | { do: 'remember'; flow: [number, number, number, number, number]; verdict: KernelVerdict }
  | { do: 'forgetAll' | 'counters' | 'missing' | 'stats' | 'detach' | 'closeTun' }
  | { do: 'heartbeat'; on: boolean }
  | { do: 'replace'; policy: AgentPolicy };
/** By queue: packets, those larger than an MTU, and non-IPv4 ones. */
export type Stats = { packets: number[]; large: number[]; strange: number };

const TUNSETIFF = 0x4004_54ca;
const TUNSETOFFLOAD = 0x4004_54d0;
const tunFlags = 0x0001 | 0x0100 | 0x1000 | 0x4000; // IFF_TUN MULTI_QUEUE NO_PI VNET_HDR
const offloads = 0x01 | 0x02 | 0x04; // CSUM TSO4 TSO6
const udpOffloads = 0x20 | 0x40; // USO4 USO6, since Linux 6.2
const O_RDWR_NONBLOCK = 0x802;
const virtioLength = 10;

const start = JSON.parse(process.argv[2] ?? '') as AgentPolicy;
const links = JSON.parse(execFileSync('ip', ['-j', 'link'], { encoding: 'utf8' })) as {
  ifindex: number;
  ifname: string;
  address: string;
}[];
function linkNamed(name: string) {
  const link = links.find(({ ifname }) => ifname === name);
  if (link === undefined) throw new Error(`no interface ${name}`);
  const mac = Uint8Array.from(link.address.split(':'), (byte) => Number.parseInt(byte, 16));
  return { name, index: link.ifindex, mac };
}

function openQueue(): number {
  const fd = check(open('/dev/net/tun', O_RDWR_NONBLOCK, 0), 'open(/dev/net/tun)');
  const request = allocate(40);
  request.bytes.set(new TextEncoder().encode('mptun'));
  request.view.setUint16(16, tunFlags, true);
  check(ioctl(fd, TUNSETIFF, request.address), 'ioctl(TUNSETIFF)');
  if (ioctl(fd, TUNSETOFFLOAD, offloads | udpOffloads) < 0) {
    check(ioctl(fd, TUNSETOFFLOAD, offloads), 'ioctl(TUNSETOFFLOAD)');
  }
  return fd;
}

const queues = start.interfaceNames.flatMap(() => [openQueue(), openQueue()]);
const [tunLink] = JSON.parse(
  execFileSync('ip', ['-j', 'link', 'show', 'mptun'], { encoding: 'utf8' }),
) as { ifindex: number }[];
const tun = { fd: queues[0] ?? -1, index: tunLink?.ifindex ?? 0 };

function fullPolicy({ interfaceNames, ...policy }: AgentPolicy): SteeringPolicy {
  return { ...policy, interfaces: interfaceNames.map(linkNamed), tun };
}
const attached = attachSteering(fullPolicy(start), methods[process.argv[3] as MethodName]);
// Up only now: the filter keeps out what the kernel itself sends by a new interface.
execFileSync('ip', ['link', 'set', 'mptun', 'up', 'mtu', '65521']);
const steering = openSteering(attached.controlFd, attached.verdictFd);

const timespec = allocate(16);
function now(): number {
  clockGettime(1, timespec.address);
  return timespec.view.getUint32(0, true) * 1000 + timespec.view.getUint32(8, true) / 1e6;
}

const stats: Stats = { packets: queues.map(() => 0), large: queues.map(() => 0), strange: 0 };
const buffer = allocate(virtioLength + 65536);
const epoll = epollCreate1(0);
const events = allocate(12 * 64);
for (const fd of queues) {
  const event = allocate(12);
  event.view.setUint32(0, 1, true);
  setPointer(event.view, 4, fd);
  check(epollCtl(epoll, 1, fd, event.address), 'epoll_ctl');
}

function echo(fd: number, queue: number): void {
  for (let count = 0; count < 64; count++) {
    const length = read(fd, buffer.address, buffer.bytes.length);
    if (length < 0) return;
    stats.packets[queue]! += 1;
    if (length > virtioLength + 1500) stats.large[queue]! += 1;
    if ((buffer.bytes[virtioLength] ?? 0) >> 4 !== 4) stats.strange += 1;
    write(fd, buffer.address, length);
  }
}

let beating = true;
function breathe(): void {
  epollWait(epoll, events.address, 64, 1);
  if (beating) steering.heartbeat(now());
  queues.forEach(echo);
  setImmediate(breathe);
}

function obey(command: Command): unknown {
  switch (command.do) {
    case 'mode':
      return steering.setMode(command.mode);
    case 'heartbeat':
      beating = command.on;
      return;
    case 'remember':
      return steering.remember(...command.flow, command.verdict);
    case 'forgetAll':
      return steering.adopt(1);
    case 'counters':
      return attached.readCounters();
    case 'missing':
      return attached.missing();
    case 'stats':
      return stats;
    case 'replace':
      return attached.replace(fullPolicy(command.policy));
    case 'detach':
      attached.detach();
      return attached.detach();
    case 'closeTun':
      return void execFileSync('ip', ['link', 'del', 'mptun']);
  }
}
process.on('message', (command: Command) => {
  process.send?.(obey(command) ?? null);
});
process.on('disconnect', () => process.exit(0));
breathe();
process.send?.('ready');
