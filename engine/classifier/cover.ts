/**
 * Rules as sets of packets: whether one overlaps, covers, or is covered by several others together.
 * Exact; what would take too long is answered with "not known".
 */
import { Protocol } from '../../parsers/ipv4.ts';
import { isPossible, joined } from './axis.ts';
import { Opener, type Range, type Rule } from './rules.ts';

/** Opener, protocol, local, remote, local port, remote port. */
const fieldCount = 6;
const addressLast = 0xffff_ffff;
const portLast = 0xffff;

/** For each field, the values that the rule asks for; it holds for the product of them. */
export type PacketSet = readonly (readonly Range[])[];

/** A product of one range for each field: first, last, first, last, … */
export type Box = readonly number[];

/** @returns undefined when no packet can match */
export function packetSet(rule: Rule): PacketSet | undefined {
  const hasPorts = rule.localPort.length + rule.remotePort.length > 0;
  const protocols = protocolsOf(rule.protocol, hasPorts);
  if (protocols.length === 0 || !isPossible(rule)) return undefined;
  const openers = {
    [Opener.Egress]: { first: 0, last: 0 },
    [Opener.Ingress]: { first: 1, last: 1 },
    [Opener.Both]: { first: 0, last: 1 },
  };
  return [
    [openers[rule.opener]],
    protocols,
    orAny(rule.local, addressLast),
    orAny(rule.remote, addressLast),
    orAny(rule.localPort, portLast),
    orAny(rule.remotePort, portLast),
  ];
}

function protocolsOf(protocol: number, hasPorts: boolean): Range[] {
  const withPorts = [Protocol.Tcp, Protocol.Udp].map((value) => ({ first: value, last: value }));
  if (protocol === -1) return hasPorts ? withPorts : [{ first: 0, last: 255 }];
  const one = { first: protocol, last: protocol };
  return hasPorts ? withPorts.filter(({ first }) => first === protocol) : [one];
}

function orAny(ranges: readonly Range[], last: number): readonly Range[] {
  return ranges.length === 0 ? [{ first: 0, last }] : joined(ranges);
}

export function overlaps(a: PacketSet, b: PacketSet): boolean {
  for (let field = fieldCount - 1; field >= 0; field--) {
    if (!meet(a[field], b[field])) return false;
  }
  return true;
}

function meet(a: readonly Range[], b: readonly Range[]): boolean {
  for (let i = 0, k = 0; i < a.length && k < b.length; ) {
    if (a[i].last < b[k].first) i++;
    else if (b[k].last < a[i].first) k++;
    else return true;
  }
  return false;
}

/** @returns whether every packet of `inner` is one of `outer` */
export function covers(outer: PacketSet, inner: PacketSet): boolean {
  for (let field = 0; field < fieldCount; field++) {
    let at = 0;
    const ranges = outer[field];
    for (const { first, last } of inner[field]) {
      while (at < ranges.length && ranges[at].last < first) at++;
      if (at === ranges.length || ranges[at].first > first || ranges[at].last < last) return false;
    }
  }
  return true;
}

/** Work that may still be done. */
export type Budget = { left: number };

/**
 * Takes the boxes of `others` out of those of `set`.
 * @param budget boxes that may be looked at
 * @returns the places in `others` of those that took something, if nothing is left; undefined if
 *   something is, or it is not known because the budget is at its end
 */
export function coveredBy(
  set: readonly Box[],
  others: readonly (readonly Box[])[],
  budget: Budget,
): number[] | undefined {
  let left = set;
  const used: number[] = [];
  for (let place = 0; place < others.length && left.length > 0; place++) {
    let took = false;
    for (const cutter of others[place]) {
      budget.left -= left.length;
      if (budget.left < 0) return undefined;
      const rest: Box[] = [];
      for (const box of left) if (takeOut(box, cutter, rest)) took = true;
      left = rest;
    }
    if (took) used.push(place);
  }
  return left.length === 0 ? used : undefined;
}

/** @returns the set cut into boxes; none when they would be more than `most` */
export function boxesOf(set: PacketSet, most: number): readonly Box[] {
  if (set.reduce((product, ranges) => product * ranges.length, 1) > most) return [];
  let boxes: Box[] = [[]];
  for (const ranges of set) {
    boxes = boxes.flatMap((box) => ranges.map(({ first, last }) => [...box, first, last]));
  }
  return boxes;
}

/** Adds to `rest` what is left of `box` beside `cutter`. @returns whether they overlap */
function takeOut(box: Box, cutter: Box, rest: Box[]): boolean {
  for (let i = 0; i < box.length; i += 2) {
    if (box[i] > cutter[i + 1] || box[i + 1] < cutter[i]) {
      rest.push(box);
      return false;
    }
  }
  const inside = [...box];
  for (let i = 0; i < box.length; i += 2) {
    if (inside[i] < cutter[i]) {
      const before = [...inside];
      before[i + 1] = cutter[i] - 1;
      rest.push(before);
      inside[i] = cutter[i];
    }
    if (inside[i + 1] > cutter[i + 1]) {
      const after = [...inside];
      after[i] = cutter[i + 1] + 1;
      rest.push(after);
      inside[i + 1] = cutter[i + 1];
    }
  }
  return true;
}
