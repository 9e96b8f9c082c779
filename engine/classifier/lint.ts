/**
 * What is wrong with rules that are each right by themselves. Every finding is a fact, never a
 * guess; what is not found is told for each kind.
 *
 * - `empty`: no packet can match the rule. All are found.
 * - `shadowed`: earlier rules together cover the rule. All that a single earlier rule covers are
 *   found; of those that only several cover, all but where the sets are cut into too many pieces.
 * - `redundant`: the verdicts would be the same without the rule, because a later rule (or the
 *   default) covers it with the same consequences, and no rule between the two that overlaps it
 *   has others. Found in exactly this case; there are others.
 * - `self-cutting`: it redirects or drops what is never redirected or dropped (built-in.ts). All
 *   are found.
 * - `unfinished`: the rules from here on were not compared with others: it would take too long.
 */
import { Protocol } from '../../parsers/ipv4.ts';
import { Verdict } from '../flows.ts';
import type { BuiltIns, Prefix } from './built-in.ts';
import {
  type Box,
  type Budget,
  boxesOf,
  coveredBy,
  covers,
  overlaps,
  type PacketSet,
  packetSet,
} from './cover.ts';
import { Opener, type Range, type Rule } from './rules.ts';

export type Finding = {
  readonly kind: 'empty' | 'shadowed' | 'redundant' | 'self-cutting' | 'unfinished';
  /** A note is worth a look; a warning, about a rule that has no effect, worth a change. */
  readonly severity: 'warning' | 'note';
  readonly rule: number;
  /** Line of the rule in its file, 0 when it has none. */
  readonly line: number;
  /** The other rules that it takes, in order; empty when it is the default or no rule at all. */
  readonly others: readonly { readonly rule: number; readonly line: number }[];
  readonly text: string;
};

export type LintContext = {
  readonly builtIns: BuiltIns;
  /** What no rule matches. */
  readonly default: Verdict;
  /** Pairs of rules to compare: half a second's work unless told otherwise. */
  readonly pairsMax?: number;
};

const defaultPairs = 100_000_000;
/** Boxes looked at for each rule, and for all, before its union cover is "not known". */
const boxesForRule = 2000;
const boxesForAll = 2_000_000;
/** A rule of more boxes than this takes no part in union covers. */
const boxesInRule = 64;
/** Covering rules that are named; a text of hundreds helps nobody. */
const namedMax = 4;

type Prepared = {
  readonly rules: readonly Rule[];
  readonly sets: readonly (PacketSet | undefined)[];
  /** First and last of each field of each rule: nearly all pairs are told apart by them. */
  readonly bounds: Float64Array;
  /** 1 when each field is a single range: then its bounds say all. */
  readonly isSimple: Uint8Array;
  /** By rule, cut at first use. */
  readonly boxes: (readonly Box[])[];
  readonly budget: Budget;
};

const boundsSize = 12;

/** @returns findings in the order of the rules */
export function lint(rules: readonly Rule[], context: LintContext): Finding[] {
  const prepared = prepare(rules);
  const findings: Finding[] = [];
  let pairsLeft = context.pairsMax ?? defaultPairs;
  let isUnfinished = false;
  for (let index = 0; index < rules.length; index++) {
    const set = prepared.sets[index];
    if (set === undefined) {
      findings.push(empty(rules, index));
      continue;
    }
    findings.push(...selfCutting(rules, index, set, context.builtIns));
    if (isUnfinished) continue;
    pairsLeft -= rules.length;
    if (pairsLeft < 0) {
      isUnfinished = true;
      findings.push(unfinished(rules, index));
      continue;
    }
    const found = shadowed(prepared, index) ?? redundant(prepared, index, context);
    if (found !== undefined) findings.push(found);
  }
  return findings;
}

function prepare(rules: readonly Rule[]): Prepared {
  const sets = rules.map(packetSet);
  const bounds = new Float64Array(rules.length * boundsSize);
  sets.forEach((set, index) => {
    for (let field = 0; field < boundsSize / 2; field++) {
      const ranges = set?.[field];
      const at = index * boundsSize + field * 2;
      // Those of an empty set overlap none.
      bounds[at] = ranges?.[0].first ?? Infinity;
      bounds[at + 1] = ranges?.[ranges.length - 1].last ?? -Infinity;
    }
  });
  const isSimple = Uint8Array.from(sets, (set) =>
    set?.every((ranges) => ranges.length === 1) ? 1 : 0,
  );
  return { rules, sets, bounds, isSimple, boxes: [], budget: { left: boxesForAll } };
}

/** Addresses first, as they differ most; then ports, then protocol and opener. */
function boundsMeet(bounds: Float64Array, a: number, b: number): boolean {
  return (
    bounds[a + 6] <= bounds[b + 7] &&
    bounds[b + 6] <= bounds[a + 7] &&
    bounds[a + 4] <= bounds[b + 5] &&
    bounds[b + 4] <= bounds[a + 5] &&
    bounds[a + 10] <= bounds[b + 11] &&
    bounds[b + 10] <= bounds[a + 11] &&
    bounds[a + 2] <= bounds[b + 3] &&
    bounds[b + 2] <= bounds[a + 3] &&
    bounds[a + 8] <= bounds[b + 9] &&
    bounds[b + 8] <= bounds[a + 9] &&
    bounds[a] <= bounds[b + 1] &&
    bounds[b] <= bounds[a + 1]
  );
}

function doesOverlap({ sets, bounds, isSimple }: Prepared, a: number, b: number): boolean {
  if (!boundsMeet(bounds, a * boundsSize, b * boundsSize)) return false;
  return (isSimple[a] & isSimple[b]) === 1 || overlaps(sets[a]!, sets[b]!);
}

function doesCover({ sets, bounds, isSimple }: Prepared, outer: number, inner: number): boolean {
  const [o, i] = [outer * boundsSize, inner * boundsSize];
  for (let at = 0; at < boundsSize; at += 2) {
    if (bounds[o + at] > bounds[i + at] || bounds[o + at + 1] < bounds[i + at + 1]) return false;
  }
  return isSimple[outer] === 1 || covers(sets[outer]!, sets[inner]!);
}

/** The rules before `index` that overlap it. */
function overlapping(prepared: Prepared, index: number): number[] {
  const found: number[] = [];
  for (let other = 0; other < index; other++) {
    if (doesOverlap(prepared, other, index)) found.push(other);
  }
  return found;
}

/** What together covers the rule; undefined when nothing does, or it is not known. */
function unionCover(prepared: Prepared, index: number, before: readonly number[]) {
  const { sets, boxes, budget } = prepared;
  if (before.length < 2 || budget.left <= 0) return undefined;
  const boxesFor = (rule: number) => {
    boxes[rule] ??= boxesOf(sets[rule]!, boxesInRule);
    return boxes[rule];
  };
  const set = boxesFor(index);
  if (set.length === 0) return undefined;
  const own = { left: Math.min(boxesForRule, budget.left) };
  budget.left -= own.left;
  const places = coveredBy(set, before.map(boxesFor), own);
  budget.left += Math.max(0, own.left);
  return places?.map((place) => before[place]);
}

function shadowed(prepared: Prepared, index: number): Finding | undefined {
  const { rules } = prepared;
  const before = overlapping(prepared, index);
  const single = before.find((other) => doesCover(prepared, other, index));
  if (single !== undefined) {
    const text = `${named(rules, index)} can never match: ${named(rules, single)} covers it`;
    return finding('shadowed', 'warning', rules, index, [single], text);
  }
  const used = unionCover(prepared, index, before);
  if (used === undefined) return undefined;
  const names = used.slice(0, namedMax).map((other) => named(rules, other));
  const rest = used.length > namedMax ? ` and ${used.length - namedMax} more` : '';
  const all = names.join(', ') + rest;
  const text = `${named(rules, index)} can never match: ${all} cover it together`;
  return finding('shadowed', 'warning', rules, index, used, text);
}

function redundant(prepared: Prepared, index: number, context: LintContext): Finding | undefined {
  const { rules } = prepared;
  const rule = rules[index];
  for (let later = index + 1; later < rules.length; later++) {
    if (!doesOverlap(prepared, later, index)) continue;
    if (!hasSameConsequences(rule, rules[later])) return undefined;
    if (!doesCover(prepared, later, index)) continue;
    const text = `${named(rules, index)} changes nothing: ${named(rules, later)} decides the same`;
    return finding('redundant', 'note', rules, index, [later], text);
  }
  const isPlain = rule.onFailure === 'inherit' && rule.firewalls === -1 && !rule.log;
  if (rule.verdict !== context.default || !isPlain) return undefined;
  const text = `${named(rules, index)} changes nothing: the default decides the same`;
  return finding('redundant', 'note', rules, index, [], text);
}

function hasSameConsequences(a: Rule, b: Rule): boolean {
  return (
    a.verdict === b.verdict &&
    a.onFailure === b.onFailure &&
    a.firewalls === b.firewalls &&
    a.log === b.log
  );
}

function selfCutting(
  rules: readonly Rule[],
  index: number,
  set: PacketSet,
  builtIns: BuiltIns,
): Finding[] {
  if (rules[index].verdict === Verdict.Pass) return [];
  const verb = rules[index].verdict === Verdict.Drop ? 'drop' : 'redirect';
  const findings: Finding[] = [];
  for (const { name, sets } of exclusions(builtIns)) {
    if (!sets.some((exclusion) => overlaps(exclusion, set))) continue;
    const isWhole = sets.some((exclusion) => covers(exclusion, set));
    const effect = isWhole
      ? `has no effect: ${name} passes whatever the rules say`
      : `would ${verb} ${name}, which passes whatever the rules say`;
    const text = `${named(rules, index)} ${effect}`;
    const severity = isWhole ? 'warning' : 'note';
    findings.push(finding('self-cutting', severity, rules, index, [], text));
  }
  return findings;
}

/** The built-in exclusions that carry the agent and its operator. */
function exclusions(builtIns: BuiltIns): { name: string; sets: PacketSet[] }[] {
  const { tunnelPort, tunnelPeers, telemetry, management } = builtIns;
  return [
    ...tunnelPeers.map((peer) => ({
      name: `the tunnel to ${prefixText(peer)} (UDP port ${tunnelPort})`,
      sets: eitherPort(Protocol.Udp, rangeOf(peer), tunnelPort),
    })),
    ...telemetry.map(({ address, port }) => ({
      name: `telemetry to ${addressText(address)}:${port}`,
      sets: setsOf(Protocol.Tcp, rangeOf({ address, length: 32 }), [], [portRange(port)]),
    })),
    ...management.map(({ protocol, remote, port }) => ({
      name: `management from ${prefixText(remote)}${port === 0 ? '' : ` port ${port}`}`,
      sets: eitherPort(protocol === 0 ? -1 : protocol, rangeOf(remote), port),
    })),
  ];
}

function eitherPort(protocol: number, remote: Range, port: number): PacketSet[] {
  if (port === 0) return setsOf(protocol, remote, [], []);
  return [
    ...setsOf(protocol, remote, [portRange(port)], []),
    ...setsOf(protocol, remote, [], [portRange(port)]),
  ];
}

function setsOf(
  protocol: number,
  remote: Range,
  localPort: readonly Range[],
  remotePort: readonly Range[],
): PacketSet[] {
  const rule = {
    opener: Opener.Both,
    protocol,
    local: [],
    remote: [remote],
    localPort,
    remotePort,
  };
  const set = packetSet({
    ...rule,
    name: '',
    line: 0,
    verdict: Verdict.Pass,
    onFailure: 'inherit',
    firewalls: -1,
    log: false,
  });
  return set === undefined ? [] : [set];
}

function portRange(port: number): Range {
  return { first: port, last: port };
}

function rangeOf({ address, length }: Prefix): Range {
  const size = 2 ** (32 - length);
  const first = Math.floor((address >>> 0) / size) * size;
  return { first, last: first + size - 1 };
}

function addressText(address: number): string {
  return [24, 16, 8, 0].map((shift) => (address >>> shift) & 255).join('.');
}

function prefixText({ address, length }: Prefix): string {
  return addressText(address) + (length === 32 ? '' : `/${length}`);
}

function empty(rules: readonly Rule[], index: number): Finding {
  const { protocol, localPort, remotePort } = rules[index];
  const isPortless =
    localPort.length + remotePort.length > 0 &&
    protocol !== -1 &&
    protocol !== Protocol.Tcp &&
    protocol !== Protocol.Udp;
  const cause = isPortless
    ? `it asks for ports, and protocol ${protocol} has none`
    : 'a range in it ends before it begins';
  const text = `${named(rules, index)} can never match: ${cause}`;
  return finding('empty', 'warning', rules, index, [], text);
}

function unfinished(rules: readonly Rule[], index: number): Finding {
  const problem = `${rules.length} rules are too many to compare each with each`;
  const text = `${problem}; stopped before ${named(rules, index)}`;
  return finding('unfinished', 'note', rules, index, [], text);
}

function named(rules: readonly Rule[], index: number): string {
  const { name, line } = rules[index];
  const title = name === '' ? `rule ${index + 1}` : `rule "${name}"`;
  return line === 0 ? title : `${title} (line ${line})`;
}

function finding(
  kind: Finding['kind'],
  severity: Finding['severity'],
  rules: readonly Rule[],
  index: number,
  others: readonly number[],
  text: string,
): Finding {
  const at = (rule: number) => ({ rule, line: rules[rule].line });
  return { kind, severity, ...at(index), others: others.map(at), text };
}
