/**
 * The engine's world for fuzzers, one per case over an arena that is used again: devices that hand
 * packets over as the kernel does, virtio header and all, a socket that reads what was queued only
 * when it is flushed, and both may refuse. The engine's memory is guarded.
 */
import { type Arena, createArena } from '../../engine/arena.ts';
import { CarriedFlows } from '../../engine/carried-flows.ts';
import type { Policy } from '../../engine/classifier/lookup.ts';
import {
  countersByteLength,
  createCounters,
  openPublishedCounters,
} from '../../engine/counters.ts';
import { firewallColumnsByteLength } from '../../engine/firewall-columns.ts';
import { flowColumnsByteLength } from '../../engine/flow-columns.ts';
import { Flows, OnFailure } from '../../engine/flows.ts';
import { Fragments } from '../../engine/fragments.ts';
import { createGates } from '../../engine/gate.ts';
import type {
  DatagramBatch,
  Direction,
  Gso,
  PacketBatch,
  PacketDevice,
  TunnelSocket,
} from '../../engine/io.ts';
import { Loop } from '../../engine/loop.ts';
import { GateView, type Path } from '../../engine/path.ts';
import { Peers } from '../../engine/peers.ts';
import { Tap, TapPoint, TapReader, TapWord, tapHeaderBytes } from '../../engine/tap.ts';
import { decodeVirtioHeader } from '../../linux/tun.ts';
import { Reason } from '../../parsers/reason.ts';
import type { Encapsulation } from '../../tunnel/encapsulation.ts';
import { createGeneve } from '../../tunnel/geneve.ts';
import type { Pieces } from '../../tunnel/pieces.ts';
import { FakeCarrier, FakeClock, FakeSteering } from '../fakes/io.ts';
import { peerOptions } from '../support/engine.ts';
import { address } from '../support/packets.ts';
import type { Decoded } from './decode.ts';
import { GuardedView, poison } from './guard.ts';
import type { Sample } from './samples.ts';
import { must } from './trial.ts';

export const firewall = address('10.9.0.4');
/** How many packets, and how many datagrams, one breath may read. */
export const batchSize = 4;
export const mtuLimit = 9216;

export type Written = {
  readonly bytes: Buffer;
  readonly gso: Gso;
  readonly gsoSize: number;
  readonly checksumStart: number;
  readonly checksumOffset: number;
  readonly result: Reason;
};

export type Sent = {
  readonly datagrams: readonly Buffer[];
  readonly peer: number;
  readonly tos: number;
  readonly result: Reason;
};

/** Memory for many worlds, one after the other. */
export function createFuzzArena(): Arena & { readonly view: GuardedView } {
  const arena = createArena(batchSize, batchSize);
  return { ...arena, view: new GuardedView(arena.memory.buffer) };
}

type FuzzArena = ReturnType<typeof createFuzzArena>;

const virtioLength = 10;
const margin = 32;

/** Put bytes into a slot, poison around them. */
function place(arena: FuzzArena, at: number, before: number, bytes: Uint8Array): void {
  const end = at + bytes.length;
  arena.bytes.fill(poison, at - margin, at - before);
  arena.bytes.set(bytes, at);
  arena.bytes.fill(poison, end, end + margin);
  const { allowed } = arena.view;
  // Both devices are read into the same slots, one after the other.
  const slot = allowed.indexOf(at - before);
  if (slot < 0) allowed.push(at - before, end);
  else allowed[slot + 1] = end;
}

function gather(arena: Arena, pieces: Pieces): Buffer {
  const parts: Uint8Array[] = [];
  for (let i = 0; i < pieces.count; i++) {
    parts.push(arena.bytes.subarray(pieces.at[i], pieces.at[i] + pieces.length[i]));
  }
  return Buffer.concat(parts);
}

class FuzzDevice implements PacketDevice {
  readonly failure = 0;
  readonly direction: Direction;
  readonly interfaceIndex = 2;
  readonly inbox: Sample[] = [];
  readonly written: Written[] = [];
  refuse: () => Reason = () => Reason.Ok;
  private readonly arena: FuzzArena;

  constructor(arena: FuzzArena, direction: Direction) {
    this.arena = arena;
    this.direction = direction;
  }

  read(batch: PacketBatch): number {
    const { arena, inbox } = this;
    const count = Math.min(inbox.length, batch.capacity);
    for (let i = 0; i < count; i++) {
      const { bytes, checksumOffset, checksumStart, gso, gsoSize } = inbox[i];
      const at = batch.at[i];
      place(arena, at, virtioLength, bytes);
      const header = Buffer.alloc(virtioLength);
      header[0] = checksumStart === 0 ? 0 : 1;
      header[1] = gso;
      header.writeUInt16LE(gsoSize, 4);
      header.writeUInt16LE(checksumStart, 6);
      header.writeUInt16LE(checksumOffset, 8);
      arena.bytes.set(header, at - virtioLength);
      decodeVirtioHeader(arena.view, virtioLength + bytes.length, batch, i);
    }
    inbox.splice(0, count);
    batch.count = count;
    return count;
  }

  write(
    pieces: Pieces,
    gso: Gso,
    gsoSize: number,
    checksumStart: number,
    checksumOffset: number,
  ): Reason {
    const result = this.refuse();
    const bytes = gather(this.arena, pieces);
    this.written.push({ bytes, gso, gsoSize, checksumStart, checksumOffset, result });
    return result;
  }
}

type Queued = { at: number[]; length: number[]; segmentSize: number; peer: number; tos: number };

class FuzzSocket implements TunnelSocket {
  readonly segmentation = true;
  readonly results = new Int32Array(8);
  readonly inbox: { bytes: Buffer; source: number; segmentSize: number; reason: Reason }[] = [];
  readonly sent: Sent[] = [];
  mtu = 1500;
  refuse: () => Reason = () => Reason.Ok;
  private readonly arena: FuzzArena;
  private queued: Queued[] = [];

  constructor(arena: FuzzArena) {
    this.arena = arena;
  }

  receive(batch: DatagramBatch): number {
    const count = Math.min(this.inbox.length, batch.capacity);
    for (let i = 0; i < count; i++) {
      const { bytes, reason, segmentSize, source } = this.inbox[i];
      place(this.arena, batch.at[i], 0, bytes);
      batch.length[i] = bytes.length;
      batch.segmentSize[i] = segmentSize;
      batch.source[i] = source;
      batch.reason[i] = reason;
    }
    this.inbox.splice(0, count);
    batch.count = count;
    return count;
  }

  queue(pieces: Pieces, segmentSize: number, peer: number, _entropy: number, tos: number): boolean {
    if (this.queued.length === this.results.length) return false;
    const at = [...pieces.at.subarray(0, pieces.count)];
    const length = [...pieces.length.subarray(0, pieces.count)];
    this.queued.push({ at, length, segmentSize, peer, tos });
    return true;
  }

  flush(): number {
    const { queued } = this;
    this.queued = [];
    queued.forEach(({ at, length, peer, segmentSize, tos }, index) => {
      const pieces = {
        capacity: 0,
        count: at.length,
        at: Int32Array.from(at),
        length: Int32Array.from(length),
      };
      const bytes = gather(this.arena, pieces);
      must(bytes.length <= 65507, () => `one send of ${bytes.length} bytes`);
      const step = segmentSize > 0 ? segmentSize : Math.max(1, bytes.length);
      const datagrams: Buffer[] = [];
      for (let from = 0; from < bytes.length; from += step) {
        datagrams.push(bytes.subarray(from, from + step));
      }
      must(datagrams.length <= 64, () => `one send of ${datagrams.length} datagrams`);
      this.results[index] = this.refuse();
      this.sent.push({ datagrams, peer, tos, result: this.results[index] });
    });
    return queued.length;
  }

  pathMtu(): number {
    return this.mtu;
  }
}

/** Later fragments that came before their first one, as far as the fuzzers know. */
export type Waiting = {
  /** Read from a device, oldest first. */
  packets: { sample: Sample; packet: Decoded; direction: 0 | 1; since: number }[];
  /** How many came from the tunnel. */
  datagrams: number;
};

export type World = ReturnType<typeof createWorld>;

export type WorldOptions = {
  readonly policy: Policy;
  readonly flows: number;
  readonly mtu: number;
  /** GENEVE with an option of ours unless told. */
  readonly encapsulation?: Encapsulation;
};

/** Decoded by judges of their own (decode.ts). */
const ours = createGeneve({
  port: 6081,
  vni: 48813,
  optionClass: 0xfff1,
  optionType: 0x20,
  inner: 'ipv4',
});

/** @param arena of createFuzzArena; what another world had in it is gone */
export function createWorld(arena: FuzzArena, options: WorldOptions) {
  const devices = [new FuzzDevice(arena, 0), new FuzzDevice(arena, 1)] as const;
  const socket = new FuzzSocket(arena);
  socket.mtu = options.mtu;
  const clock = new FakeClock();
  const steering = new FakeSteering();
  const readiness = { wait: () => false };
  const { encapsulation = ours } = options;
  const flowMemory = new SharedArrayBuffer(flowColumnsByteLength(options.flows));
  const firewallMemory = new SharedArrayBuffer(firewallColumnsByteLength(1));
  const carrier = new FakeCarrier();
  const io = { devices, openers: [], socket, steering, carrier, clock, readiness };
  const gates = createGates(1);
  const [gate] = gates;
  gate.renew(clock.nowMs + 3_600_000);
  const counters = createCounters();
  const flows = new Flows(options.flows, flowMemory);
  const tapMemory = new SharedArrayBuffer(tapHeaderBytes + tapRing);
  const tap = new TapReader(tapMemory);
  tap.begin(96, ~0);
  const peers = new Peers(peerOptions({}), gates, firewallMemory, arena, encapsulation, io);
  const path: Path = {
    io,
    arena,
    counters,
    flows,
    carried: new CarriedFlows(carrier, flows, counters, peers.columns),
    fragments: new Fragments(64),
    policy: options.policy,
    encapsulation,
    devices,
    joinUdp: true,
    peers,
    tap: new Tap(tapMemory, arena),
    nowTick: 0,
    gate: GateView.Pass,
    onLoss: OnFailure.Pass,
    passedReason: Reason.PassedGateClosed,
    droppedReason: Reason.DroppedGateClosed,
  };
  const shared = openPublishedCounters(new SharedArrayBuffer(countersByteLength));
  const loop = new Loop(path, shared, mtuLimit);
  return {
    arena,
    clock,
    devices,
    gate,
    loop,
    path,
    socket,
    waiting: { packets: [], datagrams: 0 } as Waiting,
    /** One breath; what it wrote and sent before is forgotten. Returns packets by reason. */
    breathe(): Float64Array {
      for (const device of devices) device.written.length = 0;
      socket.sent.length = 0;
      const { answerAt, heldAt, scratchAt, scratchEnd } = arena;
      arena.view.allowed.length = 0;
      arena.view.allowed.push(scratchAt, scratchEnd, answerAt, answerAt + 1024);
      arena.view.allowed.push(heldAt[0], 2 * heldAt[1] - heldAt[0]);
      const before = path.counters.packets.slice();
      loop.breathe();
      checkPoison(arena);
      checkTap(tap);
      const toFirewall = path.peers.columns.sentPackets[0];
      const redirected = path.counters.packets[Reason.Redirected];
      must(toFirewall === redirected, () => `${toFirewall} sent, ${redirected} redirected`);
      return path.counters.packets.map((count, reason) => count - before[reason]);
    },
  };
}

/** Entries of `allowed` that are the engine's own memory: scratch, answer, held fragments. */
const ownRanges = 6;

/** Small, so that it is full now and then. */
const tapRing = 4096;

/** What a capture would have of the breath: records, one behind the other. */
function checkTap(tap: TapReader): void {
  for (let taken = tap.take(); taken.length > 0; taken = tap.take()) {
    const words = new Int32Array(taken.buffer);
    let at = 0;
    while (at < taken.length) {
      const size = words[(at >> 2) + TapWord.size];
      const captured = words[(at >> 2) + TapWord.captured];
      const isPadding = words[(at >> 2) + TapWord.point] === TapPoint.None;
      must(size >= 8 && size % 8 === 0, () => `a record of ${size} bytes`);
      must(isPadding || (captured <= 96 && captured <= size - 64), () => `${captured} captured`);
      at += size;
    }
    must(at === taken.length, () => 'a record is cut short');
  }
}

/** Behind every packet that was read. */
function checkPoison(arena: FuzzArena): void {
  const { allowed } = arena.view;
  for (let i = ownRanges; i < allowed.length; i += 2) {
    const end = allowed[i + 1];
    for (let at = end; at < end + margin; at++) {
      must(arena.bytes[at] === poison, () => `byte ${at - end} behind a packet was overwritten`);
    }
  }
}
