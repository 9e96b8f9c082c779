/**
 * What a GENEVE option that another agent writes looks like, read off a capture of it: class, type,
 * the bit that tells the direction, the word that is a flow's cookie, and what never changes.
 *
 * Directions are told by addresses: the host on which the agent runs is an end of the tunnel and an
 * end of the inner packet. Packets of containers behind it say nothing, and are left out.
 */

import { ethernetHeaderLength, etherTypeEthernet, etherTypeIpv4 } from '../../parsers/ethernet.ts';
import { createFlowKey, readFlowKey } from '../../parsers/flow-key.ts';
import {
  checkIpv4,
  ipv4Destination,
  ipv4HeaderLength,
  ipv4MinimumHeaderLength,
  ipv4Protocol,
  ipv4Source,
  Protocol,
} from '../../parsers/ipv4.ts';
import { Reason } from '../../parsers/reason.ts';
import { Direction } from '../../tunnel/pieces.ts';
import type { CapturedPacket } from '../explain/capture-file.ts';

const udpHeaderLength = 8;
const geneveLength = 8;
const optionHeaderLength = 4;

/** One option of one packet whose direction is known. */
type Sample = {
  readonly direction: Direction;
  /** The inner 5-tuple, the same both ways. */
  readonly flow: string;
  readonly data: Uint8Array;
};

/** An option as it was found in all packets. */
type Found = {
  readonly optionClass: number;
  readonly optionType: number;
  readonly samples: Sample[];
};

export type Learned = {
  readonly vni: number;
  readonly inner: 'ipv4' | 'ethernet';
  readonly packets: number;
  readonly options: readonly LearnedOption[];
};

export type LearnedOption = {
  readonly optionClass: number;
  readonly optionType: number;
  readonly packets: { readonly egress: number; readonly ingress: number };
  /** Hexadecimal digits; 0 where it changes. Empty: its length changes. */
  readonly optionData: string;
  /** Bits that are 0 in all packets of egress and 1 in all of ingress. */
  readonly directionBits: readonly number[];
  /** The same the other way round. */
  readonly invertedBits: readonly number[];
  /** Words (byte offsets) that are the same in a flow and differ between flows. */
  readonly cookies: readonly number[];
};

/** @param port the tunnel's UDP destination port; undefined when there is no GENEVE on it */
export function learn(packets: Iterable<CapturedPacket>, port: number): Learned | undefined {
  const found = new Map<number, Found>();
  const vnis = new Map<number, number>();
  let ethernet = 0;
  let count = 0;
  for (const { captured, view } of packets) {
    const tunnel = readTunnel(view, captured, port);
    if (tunnel === undefined) continue;
    count++;
    vnis.set(tunnel.vni, (vnis.get(tunnel.vni) ?? 0) + 1);
    if (tunnel.ethernet) ethernet++;
    const told = tellDirection(view, tunnel.innerAt, captured);
    if (told !== undefined) readOptions(view, tunnel, told, found);
  }
  if (count === 0) return undefined;
  const [vni = 0] = [...vnis].sort(([, a], [, b]) => b - a)[0] ?? [];
  const options = [...found.values()].map(describe);
  return { vni, inner: ethernet * 2 > count ? 'ethernet' : 'ipv4', packets: count, options };
}

type Tunnel = {
  readonly vni: number;
  readonly ethernet: boolean;
  readonly optionsAt: number;
  readonly optionsEnd: number;
  readonly innerAt: number;
};

/** RFC 8926 section 3.4, of a packet that may have been captured in part. */
function readTunnel(view: DataView, captured: number, port: number): Tunnel | undefined {
  if (checkIpv4(view, 0, view.byteLength) !== Reason.Ok) return;
  if (ipv4Protocol(view, 0) !== Protocol.Udp) return;
  const udpAt = ipv4HeaderLength(view, 0);
  const at = udpAt + udpHeaderLength;
  if (at + geneveLength > captured || view.getUint16(udpAt + 2) !== port) return;
  if (view.getUint8(at) >> 6 !== 0 || (view.getUint8(at + 1) & 0x80) !== 0) return;
  const optionsEnd = at + geneveLength + ((view.getUint8(at) & 0x3f) << 2);
  const protocol = view.getUint16(at + 2);
  const ethernet = protocol === etherTypeEthernet;
  if (optionsEnd > captured || (!ethernet && protocol !== etherTypeIpv4)) return;
  return {
    vni: view.getUint32(at + 4) >>> 8,
    ethernet,
    optionsAt: at + geneveLength,
    optionsEnd,
    innerAt: optionsEnd + (ethernet ? ethernetHeaderLength : 0),
  };
}

function tellDirection(view: DataView, innerAt: number, captured: number) {
  const headers = ipv4MinimumHeaderLength + udpHeaderLength;
  if (innerAt + headers > captured) return undefined;
  if (checkIpv4(view, innerAt, view.byteLength) !== Reason.Ok) return undefined;
  const key = createFlowKey();
  if (readFlowKey(view, innerAt, key) !== Reason.Ok) return undefined;
  const ends = [ipv4Source(view, 0), ipv4Destination(view, 0)];
  const leaves = ends.includes(key.source);
  if (leaves === ends.includes(key.destination)) return undefined;
  const sides = [`${key.source}:${key.sourcePort}`, `${key.destination}:${key.destinationPort}`];
  return {
    direction: leaves ? Direction.Egress : Direction.Ingress,
    flow: `${key.protocol} ${sides.sort().join(' ')}`,
  };
}

function readOptions(
  view: DataView,
  { optionsAt, optionsEnd }: Tunnel,
  told: Pick<Sample, 'direction' | 'flow'>,
  found: Map<number, Found>,
): void {
  for (let at = optionsAt; at + optionHeaderLength <= optionsEnd; ) {
    const length = (view.getUint8(at + 3) & 0x1f) << 2;
    const dataAt = at + optionHeaderLength;
    if (dataAt + length > optionsEnd) return;
    const key = view.getUint32(at) >>> 8;
    let option = found.get(key);
    if (option === undefined) {
      option = { optionClass: key >> 8, optionType: key & 0xff, samples: [] };
      found.set(key, option);
    }
    const data = new Uint8Array(view.buffer, view.byteOffset + dataAt, length).slice();
    option.samples.push({ ...told, data });
    at = dataAt + length;
  }
}

function describe({ optionClass, optionType, samples }: Found): LearnedOption {
  const of = (direction: Direction) => samples.filter((sample) => sample.direction === direction);
  const [egress, ingress] = [of(Direction.Egress), of(Direction.Ingress)];
  const packets = { egress: egress.length, ingress: ingress.length };
  const { length } = samples[0]!.data;
  if (samples.some(({ data }) => data.length !== length)) {
    const nothing = { optionData: '', directionBits: [], invertedBits: [], cookies: [] };
    return { optionClass, optionType, packets, ...nothing };
  }
  const bits = Array.from({ length: length * 8 }, (_, bit) => bit);
  const all = (some: readonly Sample[], bit: number, value: number) =>
    some.length > 0 && some.every(({ data }) => bitOf(data, bit) === value);
  return {
    optionClass,
    optionType,
    packets,
    optionData: constantBytes(samples, length),
    directionBits: bits.filter((bit) => all(egress, bit, 0) && all(ingress, bit, 1)),
    invertedBits: bits.filter((bit) => all(egress, bit, 1) && all(ingress, bit, 0)),
    cookies: cookiesOf(samples, length),
  };
}

function bitOf(data: Uint8Array, bit: number): number {
  return (data[bit >> 3] >> (7 - (bit & 7))) & 1;
}

function constantBytes(samples: readonly Sample[], length: number): string {
  const first = samples[0]!.data;
  return Array.from({ length }, (_, at) =>
    samples.every(({ data }) => data[at] === first[at]) ? first[at] : 0,
  )
    .map((byte) => byte.toString(16).padStart(2, '0'))
    .join('');
}

function cookiesOf(samples: readonly Sample[], length: number): number[] {
  const words = Array.from({ length: length >> 2 }, (_, word) => 4 * word);
  return words.filter((at) => {
    const byFlow = new Map<string, string>();
    for (const { data, flow } of samples) {
      const value = data.subarray(at, at + 4).join();
      if ((byFlow.get(flow) ?? value) !== value) return false;
      byFlow.set(flow, value);
    }
    // Cookies of many flows may meet by chance; a few flows with as many values are cookies.
    return byFlow.size > 1 && new Set(byFlow.values()).size > byFlow.size / 2;
  });
}
