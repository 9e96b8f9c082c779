/**
 * What the firewall, or somebody who would like to be it, sends to the tunnel: datagrams that the
 * engine itself sent before, streams of segments that may be joined, both damaged; and who of them
 * may be put on the network, decided apart from the engine.
 */
import { GateView } from '../../engine/path.ts';
import { Reason } from '../../parsers/reason.ts';
import {
  type Decoded,
  decode,
  decodeGeneve,
  flowName,
  onesSum,
  transportChecksum,
} from './decode.ts';
import { Mutator, mendHeader } from './mutate.ts';
import type { Random } from './random.ts';
import type { Sample } from './samples.ts';
import { firewall, type World } from './world.ts';

/** Reasons of packets that have got no flow, as far as they are packets at all. */
const withoutFlow: ReadonlySet<Reason> = new Set([
  Reason.VirtioTooShort,
  Reason.VirtioBadGso,
  Reason.VirtioBadChecksum,
  Reason.FlowsFull,
  Reason.ResetEstablished,
]);

/** A flow that was redirected, as seen on the tunnel. */
type KnownFlow = {
  cookie: number;
  /** Its end on this host. */
  readonly local: string;
};

/** How many packets are counted by now, and which of them enter. */
export type Entry = {
  readonly counted: number;
  readonly packets: readonly { readonly packet: Buffer; readonly queue: number }[];
};

/** What may be on its way back. */
export class Known {
  readonly flows = new Map<string, KnownFlow>();
  /** Flows by datagram, of those whose fragments are on the way; the newest is the last. */
  private readonly fragments = new Map<string, string[]>();
  /** Tunnel datagrams as the engine sent them. */
  readonly sent: Buffer[] = [];
  private readonly lenient: boolean;
  private held: { cookie: number; fragment: string; bytes: Buffer }[] = [];
  private next = 0;

  /**
   * @param lenient the engine may have forgotten what is known here, so that any later fragment may
   *   be waiting, and any that waited may have been given up
   */
  constructor(lenient: boolean) {
    this.lenient = lenient;
  }

  /** Note what the world has just sent. */
  note(world: World): void {
    for (const { datagrams } of world.socket.sent) {
      for (const datagram of datagrams.slice(0, 3)) this.noteDatagram(datagram);
    }
  }

  /**
   * Note what was fed, counted under `reason`: the engine knows the later fragments of a first one
   * that got as far as its flow, whatever became of it.
   */
  noteFirst(world: World, bytes: Buffer, reason: Reason): void {
    const packet = decode(bytes);
    if (packet?.part !== 'first' || world.path.gate === GateView.Pass) return;
    if (!withoutFlow.has(reason)) this.map(datagramName(packet), flowName(packet));
  }

  private map(fragment: string, name: string): void {
    const names = this.fragments.get(fragment) ?? [];
    this.fragments.set(fragment, [...names.filter((other) => other !== name), name]);
  }

  private flowOf(fragment: string, cookie: number): string | undefined {
    const names = this.fragments.get(fragment) ?? [];
    // The engine may not have taken the newest first fragment.
    const older = names.find((name) => this.flows.get(name)?.cookie === cookie);
    return this.lenient ? (older ?? names.at(-1)) : names.at(-1);
  }

  private noteDatagram(datagram: Buffer): void {
    const tunnel = decodeGeneve(datagram);
    const inner = tunnel && decode(tunnel.inner);
    if (tunnel?.cookie === undefined || inner === undefined) return;
    if (datagram.length < 3000) this.sent[this.next++ % 64] = datagram;
    if (inner.part === 'later') return this.noteFragment(inner, tunnel.cookie, tunnel.direction);
    const name = flowName(inner);
    const known = this.flows.get(name);
    if (known) known.cookie = tunnel.cookie;
    else this.flows.set(name, { cookie: tunnel.cookie, local: endOf(inner, tunnel.direction) });
    if (inner.part === 'first') this.map(datagramName(inner), name);
  }

  /** The engine goes by the number of the flow's record, which may be another flow's by now. */
  private noteFragment(inner: Decoded, cookie: number, direction: number): void {
    const fragment = datagramName(inner);
    for (const [name, flow] of this.flows) {
      if (flow.cookie === cookie) return this.map(fragment, name);
    }
    // The first fragment went by while the gate was closed.
    this.flows.set(fragment, { cookie, local: endOf(inner, direction) });
    this.map(fragment, fragment);
  }

  /**
   * What this datagram may put on the network, in order: its packet, or none, and after a first
   * fragment those that waited for it. What must wait is remembered.
   */
  enter(datagram: Buffer, source: number): Entry {
    const tunnel = source === firewall ? decodeGeneve(datagram) : undefined;
    const inner = tunnel && decode(tunnel.inner);
    if (tunnel?.cookie === undefined || inner === undefined) return { counted: 1, packets: [] };
    const { cookie } = tunnel;
    const bytes = tunnel.inner.subarray(0, inner.total);
    const fragment = datagramName(inner);
    const name = inner.part === 'later' ? this.flowOf(fragment, cookie) : flowName(inner);
    if (inner.part === 'later' && (name === undefined || this.lenient)) {
      this.held.push({ cookie, fragment, bytes });
      if (name === undefined) return { counted: 0, packets: [] };
    }
    const flow = name === undefined ? undefined : this.flows.get(name);
    if (name === undefined || flow?.cookie !== cookie) return { counted: 1, packets: [] };
    const queue = queueOf(inner, flow);
    const entering = [{ packet: bytes, queue }];
    if (inner.part !== 'first') return { counted: 1, packets: entering };
    this.map(fragment, name);
    const freed = this.held.filter((held) => held.fragment === fragment);
    if (!this.lenient) this.held = this.held.filter((held) => held.fragment !== fragment);
    for (const held of freed.filter((one) => one.cookie === cookie)) {
      entering.push({ packet: held.bytes, queue });
    }
    return { counted: 1 + freed.length, packets: entering };
  }
}

/**
 * Which way a packet travels: from 10.1.0.0/16 it goes out, and of two others the lower address is
 * this host's. The same for all packets of a flow, as interfaces have it.
 */
export function directionOf(bytes: Buffer): 0 | 1 {
  const packet = decode(bytes);
  if (packet === undefined) return 0;
  const isOurs = (address: number) => address >>> 16 === 0x0a01;
  if (isOurs(packet.source) !== isOurs(packet.target)) return isOurs(packet.source) ? 0 : 1;
  const { source, sourcePort, target, targetPort } = packet;
  return source < target || (source === target && sourcePort <= targetPort) ? 0 : 1;
}

function endOf(packet: Decoded, direction: number): string {
  return direction === 0
    ? `${packet.source} ${packet.sourcePort}`
    : `${packet.target} ${packet.targetPort}`;
}

function queueOf(inner: Decoded, flow: KnownFlow): number {
  if (inner.part === 'later') return flow.local.startsWith(`${inner.source} `) ? 0 : 1;
  return endOf(inner, 0) === flow.local ? 0 : 1;
}

function datagramName({ id, protocol, source, target }: Decoded): string {
  return `${protocol} ${source} ${target} ${id}`;
}

const asSample = (bytes: Buffer): Sample => ({
  name: 'answer',
  bytes,
  gso: 0,
  gsoSize: 0,
  checksumStart: 0,
  checksumOffset: 0,
});

export class Answers {
  private readonly random: Random;
  private readonly known: Known;
  private readonly mutator: Mutator;

  constructor(random: Random, known: Known) {
    this.random = random;
    this.known = known;
    this.mutator = new Mutator(random, [asSample(Buffer.alloc(28))]);
  }

  /** Some datagrams, in the order in which they arrive. */
  next(): Buffer[] {
    const { random } = this;
    if (this.known.sent.length === 0) return [Buffer.alloc(random.below(40), random.next())];
    if (random.once(2)) return this.stream(random.pick(this.known.sent));
    const datagrams = Array.from({ length: 1 + random.below(6) }, () =>
      random.pick(this.known.sent),
    );
    return datagrams.map((datagram) => (random.once(2) ? datagram : this.damage(datagram)));
  }

  /** In the tunnel header, in the packet behind it, or in both. */
  private damage(datagram: Buffer): Buffer {
    const { random } = this;
    const tunnel = Buffer.from(datagram.subarray(0, 20));
    let inner: Buffer = datagram.subarray(20);
    if (random.once(2)) inner = this.mutator.change(asSample(inner), 1 + random.below(2)).bytes;
    switch (random.below(8)) {
      case 0:
        tunnel[random.below(20)] ^= 1 << random.below(8);
        break;
      case 1:
        tunnel.writeUInt32BE(random.next(), 16);
        break;
      case 2:
        return Buffer.concat([tunnel, inner]).subarray(0, random.below(datagram.length + 1));
      case 3:
        return this.withOption(tunnel, inner);
      case 4:
        return Buffer.concat([tunnel, datagram]);
      default:
    }
    return Buffer.concat([tunnel, inner]);
  }

  /** One more option, in front of ours or behind it. */
  private withOption(tunnel: Buffer, inner: Buffer): Buffer {
    const { random } = this;
    const words = random.below(4);
    const option = Buffer.alloc(4 + 4 * words, 7);
    option.writeUInt16BE(random.pick([0xfff1, 0x0102]), 0);
    option[2] = random.pick([0x20, 0x21, 0x80, 0xa0]);
    option[3] = random.once(6) ? random.below(32) : words;
    tunnel[0] += 1 + words;
    const [head, ours] = [tunnel.subarray(0, 8), tunnel.subarray(8)];
    return Buffer.concat(random.once(2) ? [head, option, ours, inner] : [tunnel, option, inner]);
  }

  /** Neighbours of one TCP or UDP flow, most of which can be joined. */
  private stream(datagram: Buffer): Buffer[] {
    const { random } = this;
    const inner = decode(datagram.subarray(20));
    const isWhole = inner?.part === 'whole' && inner.transportLength > 0;
    if (inner === undefined || !isWhole) return [datagram];
    const headers = datagram.subarray(0, 20 + inner.headerLength + inner.transportLength);
    const size = 1 + random.below(random.once(3) ? 1300 : 40);
    const count = 1 + random.below(random.once(20) ? 140 : 8);
    const segments: Buffer[] = [];
    for (let i = 0; i < count; i++) {
      const isShort = i === count - 1 || random.once(12);
      const payload = Buffer.alloc(isShort ? random.below(size + 1) : size, random.next());
      const segment = Buffer.concat([headers, payload]);
      this.number(segment, inner, i, i * size);
      if (random.once(24)) segment[20 + random.below(segment.length - 20)] ^= 1 << random.below(8);
      segments.push(segment);
    }
    if (random.once(8)) segments.reverse();
    if (random.once(8)) segments.splice(random.below(count), 0, segments[random.below(count)]);
    return segments;
  }

  /** Make a segment the `index`th of a stream, `offset` bytes from its start. */
  private number(segment: Buffer, inner: Decoded, index: number, offset: number): void {
    const { random } = this;
    const packet = segment.subarray(20);
    const { headerLength, protocol, transportLength } = inner;
    packet.writeUInt16BE(packet.length, 2);
    packet.writeUInt16BE((inner.id + index) & 0xffff, 4);
    if (protocol === 6) {
      packet.writeUInt32BE(
        (packet.readUInt32BE(headerLength + 4) + offset) % 2 ** 32,
        headerLength + 4,
      );
      packet[headerLength + 13] = random.once(16) ? random.below(256) : 0x10;
    } else {
      packet.writeUInt16BE(packet.length - headerLength, headerLength + 4);
    }
    const field = headerLength + (protocol === 6 ? 16 : 6);
    if (transportLength > 0 && (protocol === 6 || protocol === 17)) {
      packet.writeUInt16BE(transportChecksum(packet, headerLength, packet.length), field);
    }
    mendHeader(packet);
  }

  /** Who says that he sent them. */
  source(): number {
    return this.random.once(12) ? this.random.next() | 0 : firewall;
  }

  /** Put datagrams into the socket; neighbours of one length joined by the kernel, sometimes. */
  arrive(world: World, datagrams: readonly Buffer[], source: number): Buffer[] {
    const { random } = this;
    const joins = random.once(2);
    const arrived: Buffer[] = [];
    for (let i = 0; i < datagrams.length && world.socket.inbox.length < 4; ) {
      const segmentSize = datagrams[i].length;
      let end = i + 1;
      while (
        joins &&
        segmentSize > 0 &&
        end < datagrams.length &&
        datagrams[end - 1].length === segmentSize &&
        datagrams[end].length > 0 &&
        datagrams[end].length <= segmentSize &&
        segmentSize * (end - i + 1) < 65_000
      ) {
        end++;
      }
      const bytes = Buffer.concat(datagrams.slice(i, end));
      world.socket.inbox.push({ bytes, source, segmentSize, reason: Reason.Ok });
      arrived.push(...datagrams.slice(i, end));
      i = end;
    }
    return arrived;
  }
}

/** Sum of a pseudo-header, as a partial checksum field holds it. */
export function partialSum(bytes: Buffer): number {
  return onesSum(bytes, 12, 20, bytes[9] + bytes.length - (bytes[0] & 15) * 4);
}
