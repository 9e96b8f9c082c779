/**
 * Steering: the kernel programs that give the workload's packets to the engine, and their life.
 * `attachSteering` is for the main thread (load, attach, count, replace, detach), `openSteering`
 * for the data path (heartbeat, mode, verdicts). They share two descriptors, valid in the whole
 * process.
 *
 * With `onAgentFailure: 'drop'` the programs on the workload's interfaces outlive the process: they
 * see the heartbeat grow old, and drop, until the next start takes over or `releaseLeftovers` of
 * bpf/methods.ts is called. With 'pass' they go with the process, however it ends, where the
 * kernel has TCX; by clsact they stay until then as well, and let pass.
 */
import { readFileSync } from 'node:fs';
import { Direction, type Steering } from '../engine/io.ts';
import { BPF_MAP_UPDATE_ELEM, mapElem, TUNSETFILTEREBPF, TUNSETSTEERINGEBPF } from './abi/bpf.ts';
import type { Program } from './bpf/asm.ts';
import type { AttachMethod, Attachment, Hook } from './bpf/attach.ts';
import { loadProgram, lookupElement, mapValues } from './bpf/load.ts';
import { createMaps, type Maps } from './bpf/maps.ts';
import { chooseAttachMethod, findLeftovers } from './bpf/methods.ts';
import { Networks } from './bpf/networks.ts';
import {
  CounterKind,
  type CounterName,
  controlPage,
  counterNames,
  counterValue,
  flowKey,
  flowValue,
  heartbeatBias,
  type Prefix4,
  type SteeringPolicy,
  ticksPerMs,
} from './bpf/policy.ts';
import { nicProgram } from './bpf/programs/nic.ts';
import { filterProgram, selectorProgram, tunProgram } from './bpf/programs/tun.ts';
import { type CarrierSwitch, openCarrierSwitch } from './carrier.ts';
import { Closers } from './fd.ts';
import {
  allocate,
  bpf,
  check,
  close,
  type Fd,
  ioctl,
  LITTLE_ENDIAN,
  setPointer,
} from './syscall.ts';

export type SteeringCounters = Readonly<Record<CounterName, { packets: number; bytes: number }>>;

export interface AttachedSteering {
  /** How the programs are on their hooks: `TCX` or `clsact`. */
  readonly method: string;
  /** For `openSteering` in another thread. */
  readonly controlFd: Fd;
  readonly verdictFd: Fd;
  /** Records of carried flows (carrier.ts); -1 when nothing is carried. */
  readonly recordsFd: Fd;
  readCounters(): SteeringCounters;
  /**
   * Networks that pass once the policy of `generation` holds (Steering.adopt). Those of other
   * generations stay until they are forgotten. Throws SystemError when there is no room.
   */
  setNetworks(prefixes: readonly Prefix4[], generation: number): void;
  /** Remove networks of policies before `generation`. */
  forgetNetworks(generation: number): void;
  /**
   * New programs in the place of the old ones, hook by hook without a gap; maps, counters, mode
   * and remembered flows stay. Where the old one is not on its hook any more, or the interface has
   * another index by now, the new one is attached; an interface of index 0 is not there and left
   * out. Names of interfaces and the TUN must be those of the first policy. Throws SystemError;
   * when that is for a program that the kernel refuses, the old ones stay.
   */
  replace(policy: SteeringPolicy): void;
  /** Hooks that a program of ours is not on any more; the TUN device's has no name. */
  missing(): readonly { readonly interfaceName: string; readonly hook: Hook }[];
  /** Hooks on which others have programs, too: how many run before and after ours. */
  others(): readonly Neighbours[];
  readonly carrying: CarrierSwitch;
  /** Takes everything away. Idempotent. */
  detach(): void;
}

export type Neighbours = {
  readonly interfaceName: string;
  readonly hook: Hook;
  readonly before: number;
  readonly after: number;
};

/** One program on one hook. */
type Place = {
  attachment: Attachment;
  /** Of the interface on which it is. */
  index: number;
  readonly hook: Hook;
  readonly program: (policy: SteeringPolicy) => Program;
  /** Name of the workload's interface; '' for the TUN device, which goes with the process. */
  readonly interfaceName: string;
};

/** The places that steering takes, in the order of attaching: the way back first. */
function plan(policy: SteeringPolicy): {
  index: number;
  hook: Hook;
  interfaceName: string;
  program: (policy: SteeringPolicy) => Program;
}[] {
  const nics = policy.interfaces.flatMap((nic, ordinal) =>
    ([Direction.Egress, Direction.Ingress] as const).map((direction) => ({
      index: nic.index,
      hook: direction === Direction.Egress ? ('egress' as const) : ('ingress' as const),
      interfaceName: nic.name,
      program: (current: SteeringPolicy) => nicProgram(current, ordinal, direction),
    })),
  );
  const { index } = policy.tun;
  return [{ index, hook: 'ingress', interfaceName: '', program: tunProgram }, ...nics];
}

function attachTunProgram(tun: Fd, request: number, name: string, program: Fd): void {
  const argument = allocate(4);
  argument.view.setInt32(0, program, LITTLE_ENDIAN);
  check(ioctl(tun, request, argument.address), `ioctl(${name})`);
}

/** The descriptor is needed only until the kernel holds the program by itself. */
function withProgram<T>(program: Program, maps: Maps, use: (fd: Fd) => T): T {
  const fd = loadProgram(program, maps);
  try {
    return use(fd);
  } finally {
    close(fd);
  }
}

/**
 * Load the programs and put them on their hooks, in mode Pass and without a heartbeat: until the
 * data path speaks, `onAgentFailure` rules. Leftovers of a dead run in this network namespace go
 * once the new programs are in place. Throws SystemError, with nothing left behind.
 */
export function attachSteering(
  policy: SteeringPolicy,
  method: AttachMethod = chooseAttachMethod(),
): AttachedSteering {
  assertPolicy(policy);
  const closers = new Closers();
  try {
    return attachAll(policy, method, closers);
  } catch (error) {
    closers.closeAll();
    throw error;
  }
}

function attachAll(
  policy: SteeringPolicy,
  method: AttachMethod,
  closers: Closers,
): AttachedSteering {
  const maps = createMaps(closers, policy.acceleration?.flows ?? 0);
  openControl(maps.control).words[controlPage.generation / 4] = 1;
  const carrying = openCarrierSwitch(maps.control);
  const networks = new Networks(maps.networks);
  const { fd: tun } = policy.tun;
  for (const [request, name, program] of [
    [TUNSETFILTEREBPF, 'TUNSETFILTEREBPF', filterProgram()],
    [TUNSETSTEERINGEBPF, 'TUNSETSTEERINGEBPF', selectorProgram()],
  ] as const) {
    withProgram(program, maps, (fd) => attachTunProgram(tun, request, name, fd));
    closers.add(() => removeTunProgram(tun, request));
  }
  const leftovers = findLeftovers(policy.pinDirectory, 'agent');
  const places: Place[] = [];
  for (const { index, hook, interfaceName, program } of plan(policy)) {
    const attachment = withProgram(program(policy), maps, (fd) =>
      method.attach(fd, index, hook, 'agent'),
    );
    const place: Place = { attachment, index, hook, program, interfaceName };
    closers.add(() => place.attachment.detach());
    places.push(place);
  }
  keepOrLetGo(places, policy);
  for (const leftover of leftovers) leftover.release();
  return {
    method: method.name,
    controlFd: maps.control,
    verdictFd: maps.flows,
    recordsFd: maps.records,
    readCounters: () => readCounters(maps.counters),
    setNetworks: (prefixes, generation) => networks.set(prefixes, generation),
    forgetNetworks: (generation) => networks.forgetBefore(generation),
    replace: (next) => replace(policy, next, maps, places, method),
    missing: () =>
      places
        .filter(({ attachment }) => !attachment.isInPlace())
        .map(({ hook, interfaceName }) => ({ hook, interfaceName })),
    others: () =>
      places
        .map(({ attachment, hook, interfaceName }) => ({
          hook,
          interfaceName,
          ...attachment.others(),
        }))
        .filter(({ after, before }) => before + after > 0),
    carrying,
    detach: () => closers.closeAll(),
  };
}

/** When the device went first, so did its programs. */
function removeTunProgram(tun: Fd, request: number): void {
  const none = allocate(4);
  none.view.setInt32(0, -1, LITTLE_ENDIAN);
  ioctl(tun, request, none.address);
}

/** Programmer errors: configuration has refused these before. */
function assertPolicy(policy: SteeringPolicy): void {
  if (policy.interfaces.length === 0) throw new RangeError('no interface to steer');
  const { heartbeatTimeoutMs } = policy;
  if (!(heartbeatTimeoutMs > 0 && heartbeatTimeoutMs <= 30 * 60_000)) {
    throw new RangeError(`heartbeat timeout of ${heartbeatTimeoutMs} ms`);
  }
}

/** What `onAgentFailure` needs to stay when the process ends. */
function keepOrLetGo(places: readonly Place[], policy: SteeringPolicy): void {
  for (const { attachment, interfaceName } of places) {
    if (interfaceName === '' || !attachment.isInPlace()) continue;
    if (policy.onAgentFailure === 'drop') attachment.keep(policy.pinDirectory, interfaceName);
    else attachment.letGo();
  }
}

function replace(
  first: SteeringPolicy,
  next: SteeringPolicy,
  maps: Maps,
  places: readonly Place[],
  method: AttachMethod,
): void {
  assertPolicy(next);
  const names = (policy: SteeringPolicy) => policy.interfaces.map(({ name }) => name).join();
  const same = names(first) === names(next);
  if (!same || first.tun.index !== next.tun.index || first.pinDirectory !== next.pinDirectory) {
    throw new RangeError('interfaces, TUN and pin directory stay for the life of the steering');
  }
  const closers = new Closers();
  try {
    // All are loaded before the first is put in place: a refusal changes nothing.
    const programs = places.map((p) => closers.own(loadProgram(p.program(next), maps)));
    const wanted = plan(next);
    places.forEach((place, at) => {
      putInPlace(place, wanted[at]!.index, programs[at]!, method);
    });
  } finally {
    closers.closeAll();
  }
  keepOrLetGo(places, next);
}

function putInPlace(place: Place, index: number, program: Fd, method: AttachMethod): void {
  if (index === 0) return;
  if (index === place.index && place.attachment.isInPlace()) {
    return place.attachment.replace(program);
  }
  // First, because the next may get what identifies it.
  place.attachment.detach();
  place.attachment = method.attach(program, index, place.hook, 'agent');
  place.index = index;
}

/** Possible processors, of which a per-processor map has a value each: `0-3,8` is five. */
function processorCount(): number {
  const text = readFileSync('/sys/devices/system/cpu/possible', 'utf8').trim();
  return text.split(',').reduce((sum, range) => {
    const [first = 0, last = first] = range.split('-').map(Number);
    return sum + last - first + 1;
  }, 0);
}

function readCounters(map: Fd): SteeringCounters {
  const values = new Uint8Array(processorCount() * counterValue.size);
  const view = new DataView(values.buffer);
  const key = new Uint8Array(4);
  const entries = counterNames.map((name) => {
    key[0] = CounterKind[name];
    lookupElement(map, key, values);
    const total = { packets: 0, bytes: 0 };
    for (let at = 0; at < values.length; at += counterValue.size) {
      total.packets += readU64(view, at + counterValue.packets);
      total.bytes += readU64(view, at + counterValue.bytes);
    }
    return [name, total] as const;
  });
  return Object.fromEntries(entries) as SteeringCounters;
}

/** Exact below 2^53: 8 PiB. */
function readU64(view: DataView, at: number): number {
  return view.getUint32(at, LITTLE_ENDIAN) + view.getUint32(at + 4, LITTLE_ENDIAN) * 2 ** 32;
}

function openControl(
  controlFd: Fd,
  heartbeatAt: number = controlPage.heartbeat,
): { words: Uint32Array; heartbeat: Float64Array } {
  const page = mapValues(controlFd, controlPage.size);
  return {
    words: new Uint32Array(page, 0, controlPage.size / 4),
    heartbeat: new Float64Array(page, heartbeatAt, 1),
  };
}

/**
 * The data path's side, from the descriptors of AttachedSteering. Throws SystemError.
 *
 * @param worker which of several it is; absent where there is one
 */
export function openSteering(controlFd: Fd, verdictFd: Fd, worker?: number): Steering {
  const { heartbeat: first, heartbeats } = controlPage;
  const heartbeatAt = worker === undefined ? first : heartbeats + 8 * worker;
  const { words, heartbeat } = openControl(controlFd, heartbeatAt);
  const mode = controlPage.mode / 4;
  const generation = controlPage.generation / 4;
  const key = allocate(flowKey.size);
  const value = allocate(flowValue.size);
  const update = allocate(mapElem.size);
  update.view.setUint32(mapElem.map_fd, verdictFd, LITTLE_ENDIAN);
  setPointer(update.view, mapElem.key, key.address);
  setPointer(update.view, mapElem.value, value.address);
  return {
    heartbeat(nowMs) {
      heartbeat[0] = heartbeatBias + Math.floor(nowMs * ticksPerMs);
    },
    setMode(next) {
      Atomics.store(words, mode, next);
    },
    remember(local, remote, localPort, remotePort, protocol, verdict) {
      key.view.setInt32(flowKey.local, local);
      key.view.setInt32(flowKey.remote, remote);
      key.view.setUint16(flowKey.localPort, localPort);
      key.view.setUint16(flowKey.remotePort, remotePort);
      key.view.setUint32(flowKey.protocol, protocol, LITTLE_ENDIAN);
      value.view.setUint32(flowValue.verdict, verdict, LITTLE_ENDIAN);
      value.view.setUint32(flowValue.generation, words[generation]!, LITTLE_ENDIAN);
      // When it fails (memory is short) the flow goes on through the engine.
      bpf(BPF_MAP_UPDATE_ELEM, update.address, mapElem.size);
    },
    adopt(policyGeneration) {
      Atomics.store(words, controlPage.policyGeneration / 4, policyGeneration);
      Atomics.add(words, generation, 1);
    },
  };
}
