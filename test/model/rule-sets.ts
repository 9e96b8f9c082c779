/**
 * Rule sets of the character that the packet-classification literature measures with (access
 * lists, firewalls, chains), from a seed and a few distributions; headers drawn from rules with
 * Pareto reuse; and a reader for ClassBench's own files.
 */

import { Opener, type Range, type Rule } from '../../engine/classifier/rules.ts';
import { Verdict } from '../../engine/flows.ts';
import type { Header } from './classifier.ts';

/** Uniform in [0, 1), from a seed: mulberry32. */
export type Random = () => number;

export function seeded(seed: number): Random {
  let state = seed | 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 0x1_0000_0000;
  };
}

/** Pairs of a value and its weight. */
type Weighted<T> = readonly (readonly [T, number])[];

/** How a rule says a port: nothing, one, a range, 1024 and above. */
type PortClass = 'any' | 'one' | 'range' | 'high';

export type Character = {
  /** Lengths of the prefixes of both ends together: wide ones often stand beside narrow ones. */
  readonly lengths: Weighted<readonly [local: number, remote: number]>;
  readonly localPort: Weighted<PortClass>;
  readonly remotePort: Weighted<PortClass>;
  /** -1: any. */
  readonly protocol: Weighted<number>;
  /** Share of prefixes that lie inside one already in use, instead of anywhere. */
  readonly nesting: number;
  /** How many well-known ports there are. */
  readonly ports: number;
};

export const characters: Readonly<Record<'acl' | 'fw' | 'ipc', Character>> = {
  acl: {
    lengths: [
      [[32, 32], 35],
      [[31, 31], 20],
      [[24, 32], 15],
      [[23, 23], 15],
      [[32, 16], 6],
      [[22, 27], 5],
      [[0, 14], 2],
      [[16, 0], 1],
      [[0, 0], 1],
    ],
    localPort: [['any', 1]],
    remotePort: [
      ['one', 64],
      ['any', 28],
      ['range', 5],
      ['high', 3],
    ],
    protocol: [
      [6, 80],
      [-1, 10],
      [17, 6],
      [1, 4],
    ],
    nesting: 0.7,
    ports: 100,
  },
  fw: {
    lengths: [
      [[0, 32], 25],
      [[0, 31], 20],
      [[1, 31], 15],
      [[32, 0], 10],
      [[31, 1], 8],
      [[28, 29], 8],
      [[2, 30], 4],
      [[21, 20], 3],
      [[0, 0], 3],
      [[1, 1], 2],
      [[30, 0], 2],
    ],
    localPort: [
      ['any', 76],
      ['one', 14],
      ['high', 8],
      ['range', 2],
    ],
    remotePort: [
      ['one', 60],
      ['any', 30],
      ['high', 8],
      ['range', 2],
    ],
    protocol: [
      [6, 56],
      [17, 33],
      [47, 5],
      [1, 4],
      [-1, 2],
    ],
    nesting: 0.5,
    ports: 40,
  },
  ipc: {
    lengths: [
      [[24, 24], 20],
      [[32, 32], 18],
      [[31, 31], 10],
      [[23, 25], 12],
      [[16, 24], 8],
      [[25, 16], 8],
      [[0, 32], 6],
      [[32, 0], 6],
      [[1, 24], 4],
      [[24, 1], 4],
      [[17, 17], 3],
      [[0, 0], 1],
    ],
    localPort: [
      ['any', 80],
      ['one', 18],
      ['high', 2],
    ],
    remotePort: [
      ['any', 54],
      ['one', 38],
      ['high', 6],
      ['range', 2],
    ],
    protocol: [
      [17, 38],
      [-1, 33],
      [6, 27],
      [1, 1],
      [51, 1],
    ],
    nesting: 0.6,
    ports: 50,
  },
};

function pick<T>(random: Random, choices: Weighted<T>): T {
  let rest = random() * choices.reduce((total, [, weight]) => total + weight, 0);
  for (const [value, weight] of choices) {
    rest -= weight;
    if (rest < 0) return value;
  }
  return choices[choices.length - 1][0];
}

function below(random: Random, limit: number): number {
  return Math.floor(random() * limit);
}

function prefixRange(address: number, length: number): Range[] {
  if (length === 0) return [];
  const size = 2 ** (32 - length);
  const first = Math.floor(address / size) * size;
  return [{ first, last: first + size - 1 }];
}

/** Rules in order of no meaning but that narrow ones tend to come first, as people write them. */
export function generateRules(character: Character, count: number, seed: number): Rule[] {
  const random = seeded(seed);
  const ports = Array.from({ length: character.ports }, () => below(random, 10_000) + 1);
  const used: Record<'local' | 'remote', Range[]> = { local: [], remote: [] };
  const address = (end: 'local' | 'remote', length: number): Range[] => {
    const pool = used[end];
    let value = random() * 2 ** 32;
    if (pool.length > 0 && random() < character.nesting) {
      const { first, last } = pool[below(random, pool.length)];
      // Near a prefix that is in use: inside it, or one of its neighbours.
      const span = Math.max(last - first + 1, 2 ** (32 - length)) * (1 + below(random, 8));
      value = Math.min(first + random() * span, 2 ** 32 - 1);
    }
    const ranges = prefixRange(Math.floor(value), length);
    if (length >= 8) pool.push(...ranges);
    return ranges;
  };
  const port = (kind: PortClass): Range[] => {
    if (kind === 'any') return [];
    if (kind === 'high') return [{ first: 1024, last: 65535 }];
    const first = ports[below(random, ports.length)];
    return [{ first, last: kind === 'one' ? first : first + 1 + below(random, 40) }];
  };
  const rules: { rule: Rule; order: number }[] = [];
  for (let i = 0; i < count; i++) {
    const [localLength, remoteLength] = pick(random, character.lengths);
    const local = address('local', localLength);
    const remote = address('remote', remoteLength);
    const protocol = pick(random, character.protocol);
    const hasPorts = protocol === 6 || protocol === 17;
    const localPort = hasPorts ? port(pick(random, character.localPort)) : [];
    const remotePort = hasPorts ? port(pick(random, character.remotePort)) : [];
    const rule = makeRule({ protocol, local, remote, localPort, remotePort, line: i + 1 });
    rules.push({ rule, order: random() * 24 - localLength - remoteLength });
  }
  return rules.sort((a, b) => a.order - b.order).map(({ rule }) => rule);
}

export function makeRule(fields: Partial<Rule>): Rule {
  return {
    name: `rule ${fields.line ?? 0}`,
    line: 0,
    opener: Opener.Both,
    protocol: -1,
    local: [],
    remote: [],
    localPort: [],
    remotePort: [],
    verdict: Verdict.Redirect,
    onFailure: 'inherit',
    firewalls: -1,
    log: false,
    ...fields,
  };
}

/** `@source/len destination/len lo : hi lo : hi proto/mask flags/mask`; source is local. */
export function parseClassBench(text: string): Rule[] {
  const shape =
    /^@([\d.]+)\/(\d+)\s+([\d.]+)\/(\d+)\s+(\d+) : (\d+)\s+(\d+) : (\d+)\s+0x(\w+)\/0x(\w+)/;
  const address = (dotted: string) =>
    dotted.split('.').reduce((total, byte) => total * 256 + Number(byte), 0);
  const ports = (first: string, last: string): Range[] =>
    first === '0' && last === '65535' ? [] : [{ first: Number(first), last: Number(last) }];
  const lines = text.split('\n').filter((line) => line.trim() !== '');
  return lines.map((line, index) => {
    const found = shape.exec(line)?.slice(1);
    if (!found) throw new Error(`line ${index + 1} is no filter: ${line}`);
    const [source, sourceLength, destination, destinationLength] = found;
    return makeRule({
      line: index + 1,
      local: prefixRange(address(source), Number(sourceLength)),
      remote: prefixRange(address(destination), Number(destinationLength)),
      localPort: ports(found[4], found[5]),
      remotePort: ports(found[6], found[7]),
      protocol: Number.parseInt(found[9], 16) === 0 ? -1 : Number.parseInt(found[8], 16),
    });
  });
}

export type HeaderOptions = {
  readonly seed: number;
  /** Share of field values at an end of the rule's range, where mistakes live. */
  readonly corners: number;
  /** Copies of a header: ceil(scale / u^(1/shape)). The literature uses 1 and 0.1. */
  readonly shape: number;
  readonly scale: number;
};

export const headerDefaults: HeaderOptions = { seed: 1, corners: 0.2, shape: 1, scale: 0.1 };

/** Headers that a rule of the set matches, which need not be the first that does. */
export function generateHeaders(
  rules: readonly Rule[],
  count: number,
  options: HeaderOptions = headerDefaults,
): Header[] {
  const random = seeded(options.seed);
  const value = (ranges: readonly Range[], last: number): number => {
    const range = ranges.length === 0 ? { first: 0, last } : ranges[below(random, ranges.length)];
    if (random() < options.corners) return random() < 0.5 ? range.first : range.last;
    return range.first + below(random, range.last - range.first + 1);
  };
  const headers: Header[] = [];
  while (headers.length < count) {
    const rule = rules[below(random, rules.length)];
    const ingress = rule.opener === Opener.Both ? random() < 0.5 : rule.opener === Opener.Ingress;
    const hasPorts = rule.localPort.length + rule.remotePort.length > 0;
    const header: Header = {
      opener: ingress ? 1 : 0,
      local: value(rule.local, 2 ** 32 - 1),
      remote: value(rule.remote, 2 ** 32 - 1),
      localPort: value(rule.localPort, 65535),
      remotePort: value(rule.remotePort, 65535),
      protocol:
        rule.protocol !== -1
          ? rule.protocol
          : hasPorts
            ? [6, 17][below(random, 2)]
            : below(random, 256),
    };
    const copies = Math.ceil(options.scale / (1 - random()) ** (1 / options.shape));
    for (let i = 0; i < copies && headers.length < count; i++) headers.push(header);
  }
  return headers;
}
