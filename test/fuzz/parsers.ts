/**
 * Every parser over damaged packets: whatever a check says, nothing reads outside the packet, and
 * nothing throws; and where the fuzzers' own decoder knows the answer, it is the same.
 */

import { transportChecksumOk } from '../../parsers/checksum.ts';
import { createFlowKey, KeyKind, readFlowKey } from '../../parsers/flow-key.ts';
import { mayAnswerWithIcmp, writeFragmentationNeeded } from '../../parsers/icmp.ts';
import { checkIpv4, ipv4ChecksumOk } from '../../parsers/ipv4.ts';
import { Reason, reasonNames } from '../../parsers/reason.ts';
import { clampMss } from '../../parsers/tcp.ts';
import { resetLength, writeResetToReceiver, writeResetToSender } from '../../parsers/tcp-reset.ts';
import { createTunnelHeader, type Encapsulation } from '../../tunnel/encapsulation.ts';
import { createGeneve } from '../../tunnel/geneve.ts';
import { createVxlan } from '../../tunnel/vxlan.ts';
import { type Decoded, decode, decodeGeneve, transportRight } from './decode.ts';
import { GuardedView, poison } from './guard.ts';
import { Mutator } from './mutate.ts';
import { datagramSamples, packetSamples } from './samples.ts';
import { type Fuzzer, must, type Trial } from './trial.ts';

const margin = 64;
const room = 140_000;
const answerAt = margin + room + margin;
const packetsPerCase = 16;

type Check = typeof checkIpv4;

/** One packet after the other at the same place, poison around it. */
class Stage {
  readonly bytes = new Uint8Array(answerAt + 1024).fill(poison);
  readonly view = new GuardedView(this.bytes.buffer);
  at = margin;
  end = margin;

  /** At an odd place as well as an even one. */
  put(packet: Uint8Array, odd: boolean): void {
    this.bytes.fill(poison, this.at, this.end);
    this.at = margin + (odd ? 1 : 0);
    this.end = this.at + packet.length;
    this.bytes.set(packet, this.at);
    this.view.allowed.length = 0;
    this.view.allowed.push(this.at, this.end);
  }

  checkPoison(): void {
    for (let i = 1; i <= 32; i++) {
      const clean = this.bytes[this.at - i] === poison && this.bytes[this.end + i - 1] === poison;
      must(clean, () => `byte ${i} outside the packet was overwritten`);
    }
  }
}

const encapsulations: readonly Encapsulation[] = [
  createGeneve({ port: 6081, vni: 48813, optionClass: 0xfff1, optionType: 0x20, inner: 'ipv4' }),
  createGeneve({
    port: 6081,
    vni: 48813,
    optionClass: 0xfff1,
    optionType: 0xa0,
    inner: 'ethernet',
  }),
  createVxlan({ port: 4789, egressVni: 100, ingressVni: 101 }),
];

const kinds = {
  whole: KeyKind.Plain,
  first: KeyKind.FirstFragment,
  later: KeyKind.LaterFragment,
  error: KeyKind.IcmpError,
};

function create(check: Check) {
  const packets = packetSamples();
  const datagrams = datagramSamples();
  const stage = new Stage();
  const key = createFlowKey();
  const header = createTunnelHeader();

  const tryPacket = (packet: Buffer, odd: boolean) => {
    const expected = decode(packet);
    stage.put(packet, odd);
    const { at, bytes, end, view } = stage;
    let reason = check(view, at, end);
    if (reason === Reason.Ok && !ipv4ChecksumOk(view, at)) reason = Reason.Ipv4BadChecksum;
    if (reason === Reason.Ok) reason = readFlowKey(view, at, key);
    must(
      (reason === Reason.Ok) === (expected !== undefined),
      () => `answer ${reasonNames[reason]}`,
    );
    if (expected === undefined) return;
    const { flowProtocol, headerLength, part, source, sourcePort, target, targetPort, total } =
      expected;
    const found = [key.source >>> 0, key.destination >>> 0, key.sourcePort, key.destinationPort];
    const right = [source, target, sourcePort, targetPort].every((value, i) => value === found[i]);
    must(right && key.protocol === flowProtocol, () => `key ${found.join(' ')}`);
    must(
      key.kind === kinds[part] && key.end === at + total,
      () => `kind ${key.kind}, end ${key.end}`,
    );
    mayAnswerWithIcmp(view, at);
    if (part === 'whole' && [6, 17].includes(flowProtocol)) {
      const ok = transportChecksumOk(bytes, view, at);
      must(ok === transportRight(packet, headerLength, total), () => `checksum right: ${ok}`);
    }
    answer(expected, packet.length);
    if (part === 'whole' && flowProtocol === 6) clampMss(view, key.transportAt, 1200, odd);
  };

  /** What is written in answer is itself a packet. */
  const answer = (expected: Decoded, length: number) => {
    const { at, bytes, view } = stage;
    view.allowed.push(answerAt, answerAt + 1024);
    const { source, target } = expected;
    const written = writeFragmentationNeeded(
      bytes,
      view,
      answerAt,
      at,
      length,
      1400,
      target | 0,
      source | 0,
      7,
    );
    const error = decode(Buffer.from(bytes.subarray(answerAt, answerAt + written)));
    must(error !== undefined || expected.part === 'first', () => 'an ICMP error that is no packet');
    if (expected.transportLength < 20) return;
    for (const write of [writeResetToSender, writeResetToReceiver]) {
      write(bytes, view, answerAt, at, key.transportAt);
      const reset = Buffer.from(bytes.subarray(answerAt, answerAt + resetLength));
      const sound = decode(reset) !== undefined && transportRight(reset, 20, 40);
      must(sound, () => 'a reset that is none');
    }
  };

  const tryDatagram = (datagram: Buffer, odd: boolean) => {
    stage.put(datagram, odd);
    const { at, end, view } = stage;
    encapsulations.forEach((encapsulation, index) => {
      const reason = encapsulation.check(view, at, end, header);
      const inside = header.innerAt >= at && header.innerAt <= end;
      must(reason !== Reason.Ok || inside, () => `inner packet at ${header.innerAt - at}`);
      if (index > 0) return;
      const expected = decodeGeneve(datagram);
      const taken = reason === Reason.Ok && header.control === 0;
      must(taken === (expected !== undefined), () => `answer ${reasonNames[reason]}`);
      if (expected === undefined) return;
      const cookie = header.hasCookie === 1 ? header.cookie : undefined;
      must(cookie === expected.cookie, () => `cookie ${cookie}`);
      must(end - header.innerAt === expected.inner.length, () => 'another inner packet');
    });
  };

  return ({ inputs, random }: Trial) => {
    const mutator = new Mutator(random, packets);
    const tunnelMutator = new Mutator(random, datagrams);
    for (let i = 0; i < packetsPerCase; i++) {
      const isDatagram = random.once(4);
      const sample = isDatagram ? tunnelMutator.next() : mutator.next();
      inputs.push(sample);
      if (isDatagram) tryDatagram(sample.bytes, random.once(2));
      else tryPacket(sample.bytes, random.once(2));
      stage.checkPoison();
    }
  };
}

export const parsers: Fuzzer = {
  name: 'parsers',
  promise: 'no parser throws, or reads or writes outside the packet; answers are the right ones',
  smoke: 2000,
  create: () => create(checkIpv4),
};

/** A check that believes the total length. */
export const parserCanary: Fuzzer = {
  name: 'canary-parser',
  promise: 'a check that believes the total length is found out',
  smoke: 200,
  canary: true,
  create: () =>
    create((view, at, end) => {
      const reason = checkIpv4(view, at, end);
      const isLength = reason === Reason.Ipv4BadTotalLength;
      return isLength && view.getUint16(at + 2) >= 40 ? Reason.Ok : reason;
    }),
};
