/** The engine's world in memory: what a test puts in, what the engine wrote out. */
import type { Arena } from '../../engine/arena.ts';
import {
  type Carrier,
  type Clock,
  type DatagramBatch,
  Direction,
  type Gso,
  type Io,
  type KernelVerdict,
  type PacketBatch,
  type PacketDevice,
  type Steering,
  SteeringMode,
  type TunnelSocket,
} from '../../engine/io.ts';
import { Reason } from '../../parsers/reason.ts';
import type { Pieces } from '../../tunnel/pieces.ts';

/** A packet as bytes, with what the virtio header says about it. */
export type FakePacket = {
  bytes: Uint8Array;
  gso?: Gso;
  gsoSize?: number;
  checksumStart?: number;
  checksumOffset?: number;
};

function gather(arena: Arena, pieces: Pieces): Buffer {
  const parts: Uint8Array[] = [];
  for (let i = 0; i < pieces.count; i++) {
    parts.push(arena.bytes.slice(pieces.at[i], pieces.at[i] + pieces.length[i]));
  }
  return Buffer.concat(parts);
}

export class FakeDevice implements PacketDevice {
  readonly direction: Direction;
  readonly interfaceIndex = 2;
  failure = 0;
  readonly inbox: FakePacket[] = [];
  readonly written: (Required<FakePacket> & { bytes: Buffer })[] = [];
  /** What write answers; a test sets it to provoke a refusal. */
  answer: Reason = Reason.Ok;
  private readonly arena: Arena;

  constructor(arena: Arena, direction: Direction) {
    this.arena = arena;
    this.direction = direction;
  }

  read(batch: PacketBatch): number {
    let count = 0;
    while (count < batch.capacity) {
      const packet = this.inbox.shift();
      if (packet === undefined) break;
      this.arena.bytes.set(packet.bytes, batch.at[count]);
      batch.length[count] = packet.bytes.length;
      batch.gso[count] = packet.gso ?? 0;
      batch.gsoSize[count] = packet.gsoSize ?? 0;
      batch.checksumStart[count] = packet.checksumStart ?? 0;
      batch.checksumOffset[count] = packet.checksumOffset ?? 0;
      batch.reason[count] = Reason.Ok;
      count++;
    }
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
    if (this.answer !== Reason.Ok) return this.answer;
    this.written.push({
      bytes: gather(this.arena, pieces),
      gso,
      gsoSize,
      checksumStart,
      checksumOffset,
    });
    return Reason.Ok;
  }
}

export type SentDatagram = { bytes: Buffer; peer: number; entropy: number; tos: number };

export class FakeSocket implements TunnelSocket {
  readonly results = new Int32Array(1024);
  segmentation = true;
  /** Datagrams as they would be on the wire. */
  readonly sent: SentDatagram[] = [];
  readonly inbox: { bytes: Uint8Array; source: number; segmentSize?: number }[] = [];
  mtu = 1500;
  /** By peer, where it differs. */
  readonly mtus = new Map<number, number>();
  /** What flush answers for every send. */
  answer: Reason = Reason.Ok;
  private readonly arena: Arena;
  private queued = 0;

  constructor(arena: Arena) {
    this.arena = arena;
  }

  receive(batch: DatagramBatch): number {
    let count = 0;
    while (count < batch.capacity) {
      const datagram = this.inbox.shift();
      if (datagram === undefined) break;
      this.arena.bytes.set(datagram.bytes, batch.at[count]);
      batch.length[count] = datagram.bytes.length;
      batch.segmentSize[count] = datagram.segmentSize ?? datagram.bytes.length;
      batch.source[count] = datagram.source;
      batch.reason[count] = Reason.Ok;
      count++;
    }
    batch.count = count;
    return count;
  }

  queue(pieces: Pieces, segmentSize: number, peer: number, entropy: number, tos: number): boolean {
    if (this.queued === this.results.length) return false;
    const bytes = gather(this.arena, pieces);
    const step = segmentSize > 0 ? segmentSize : bytes.length;
    if (this.answer === Reason.Ok) {
      for (let at = 0; at < bytes.length; at += step) {
        this.sent.push({ bytes: bytes.subarray(at, at + step), peer, entropy, tos });
      }
    }
    this.results[this.queued++] = this.answer;
    return true;
  }

  flush(): number {
    const count = this.queued;
    this.queued = 0;
    return count;
  }

  pathMtu(peer: number): number {
    return this.mtus.get(peer) ?? this.mtu;
  }
}

export type Remembered = {
  local: number;
  remote: number;
  localPort: number;
  remotePort: number;
  protocol: number;
  verdict: KernelVerdict;
};

export class FakeSteering implements Steering {
  heartbeatMs = 0;
  mode: SteeringMode = SteeringMode.Pass;
  readonly remembered: Remembered[] = [];
  generation = 0;

  heartbeat(nowMs: number): void {
    this.heartbeatMs = nowMs;
  }

  setMode(mode: SteeringMode): void {
    this.mode = mode;
  }

  remember(
    local: number,
    remote: number,
    localPort: number,
    remotePort: number,
    protocol: number,
    verdict: KernelVerdict,
  ): void {
    this.remembered.push({ local, remote, localPort, remotePort, protocol, verdict });
  }

  adopt(policyGeneration: number): void {
    this.generation = policyGeneration;
  }
}

/** Remembers what it was told; a test plays the programs. */
export class FakeCarrier implements Carrier {
  readonly capacity = 64;
  readonly begun: number[] = [];
  readonly reminded: number[] = [];
  readonly ended: number[] = [];
  /** By flow: totals, and numbers by `2 * flow + direction`. */
  readonly carriedTotals = new Map<number, number[]>();
  readonly counts = { given: [], sent: [], returned: [], delivered: [] } as Record<
    'given' | 'sent' | 'returned' | 'delivered',
    number[]
  >;
  innerMtu = 0;

  begin(flow: number): void {
    this.begun.push(flow);
    for (const at of [2 * flow, 2 * flow + 1]) {
      this.counts.given[at] = 0;
      this.counts.returned[at] = 0;
      this.counts.sent[at] = -1;
      this.counts.delivered[at] = -1;
    }
  }
  remind(flow: number): void {
    this.reminded.push(flow);
  }
  end(flow: number): void {
    this.ended.push(flow);
  }
  given(flow: number, direction: Direction): number {
    return this.counts.given[2 * flow + direction] ?? 0;
  }
  setSent(flow: number, direction: Direction, count: number): void {
    this.counts.sent[2 * flow + direction] = count;
  }
  returned(flow: number, direction: Direction): number {
    return this.counts.returned[2 * flow + direction] ?? 0;
  }
  setDelivered(flow: number, direction: Direction, count: number): void {
    this.counts.delivered[2 * flow + direction] = count;
  }
  read(flow: number, totals: Float64Array): void {
    totals.fill(0);
    totals.set(this.carriedTotals.get(flow) ?? []);
  }
  setInnerMtu(_firewall: number, innerMtu: number): void {
    this.innerMtu = innerMtu;
  }
  again = false;
  beginsAgain(): boolean {
    const { again } = this;
    this.again = false;
    return again;
  }
}

export class FakeClock implements Clock {
  nowMs = 1_000_000;

  now(): number {
    return this.nowMs;
  }
}

/** One interface: an egress and an ingress queue, a socket, steering and a clock. */
export type FakeIo = Io & {
  egress: FakeDevice;
  ingress: FakeDevice;
  socket: FakeSocket;
  steering: FakeSteering;
  carrier: FakeCarrier;
  clock: FakeClock;
};

export function createFakeIo(arena: Arena): FakeIo {
  const egress = new FakeDevice(arena, Direction.Egress);
  const ingress = new FakeDevice(arena, Direction.Ingress);
  const clock = new FakeClock();
  return {
    egress,
    ingress,
    devices: [egress, ingress],
    openers: [],
    socket: new FakeSocket(arena),
    steering: new FakeSteering(),
    carrier: new FakeCarrier(),
    clock,
    readiness: {
      wait(timeoutMs: number): boolean {
        clock.nowMs += timeoutMs;
        return false;
      },
    },
  };
}
