/**
 * Which remote addresses pass whatever else a connection is: the part of a rule set that the kernel
 * can decide on an address alone, so that a network that passes never wakes user space.
 *
 * One walk over the rules in their order, with the addresses that no rule has settled yet. A rule
 * that matches by remote address alone and passes settles its addresses as "pass"; a rule that
 * redirects or drops settles all that it may touch as "not pass"; a rule that passes under further
 * conditions settles nothing, since either way its connections may pass. What is left at the end is
 * the default's.
 */
import { Verdict } from '../flows.ts';
import type { Prefix } from './built-in.ts';
import { Opener, type Range, type Rule } from './rules.ts';

const everything: Range = { first: 0, last: 0xffff_ffff };

/**
 * Remote networks all of whose connections pass, as prefixes in ascending order; undefined when
 * there would be more than `limit` of them, or when telling would take more than about a second.
 */
export function passNetworks(
  rules: readonly Rule[],
  byDefault: Verdict,
  limit: number,
): readonly Prefix[] | undefined {
  let open: readonly Range[] = [everything];
  const passing: Range[] = [];
  let work = 0;
  for (const rule of rules) {
    if (open.length === 0) break;
    const remote = rule.remote.length === 0 ? [everything] : merge(rule.remote);
    const passes = rule.verdict === Verdict.Pass;
    if (passes && !isByRemoteAlone(rule)) continue;
    work += open.length + remote.length;
    if (work > workLimit) return undefined;
    if (passes) passing.push(...intersect(open, remote));
    open = subtract(open, remote);
  }
  if (byDefault === Verdict.Pass) passing.push(...open);
  const prefixes: Prefix[] = [];
  for (const range of merge(passing)) {
    addPrefixes(prefixes, range);
    if (prefixes.length > limit) return undefined;
  }
  return prefixes;
}

/** What is in networks of both, as prefixes in ascending order; no more than both have together. */
export function commonNetworks(a: readonly Prefix[], b: readonly Prefix[]): readonly Prefix[] {
  const prefixes: Prefix[] = [];
  for (const range of intersect(merge(a.map(rangeOf)), merge(b.map(rangeOf)))) {
    addPrefixes(prefixes, range);
  }
  return prefixes;
}

function rangeOf({ address, length }: Prefix): Range {
  const first = address >>> 0;
  return { first, last: first + 2 ** (32 - length) - 1 };
}

/** Steps of the walk; a step is some nanoseconds. */
const workLimit = 50_000_000;

function isByRemoteAlone(rule: Rule): boolean {
  return (
    rule.opener === Opener.Both &&
    rule.protocol < 0 &&
    rule.local.length === 0 &&
    rule.localPort.length === 0 &&
    rule.remotePort.length === 0
  );
}

/** Sorted, without overlaps or touching neighbours. */
function merge(ranges: readonly Range[]): Range[] {
  const sorted = [...ranges].sort((a, b) => a.first - b.first);
  const merged: Range[] = [];
  for (const range of sorted) {
    const last = merged.at(-1);
    if (last === undefined || range.first > last.last + 1) merged.push(range);
    else if (range.last > last.last) {
      merged[merged.length - 1] = { first: last.first, last: range.last };
    }
  }
  return merged;
}

/** Both sorted and merged. */
function intersect(a: readonly Range[], b: readonly Range[]): Range[] {
  const common: Range[] = [];
  for (let i = 0, j = 0; i < a.length && j < b.length; ) {
    const first = Math.max(a[i].first, b[j].first);
    const last = Math.min(a[i].last, b[j].last);
    if (first <= last) common.push({ first, last });
    if (a[i].last < b[j].last) i++;
    else j++;
  }
  return common;
}

/** What of `a` is not in `b`; both sorted and merged. */
function subtract(a: readonly Range[], b: readonly Range[]): Range[] {
  const rest: Range[] = [];
  let j = 0;
  for (const { first, last } of a) {
    let from = first;
    while (j < b.length && b[j].last < from) j++;
    for (let k = j; k < b.length && b[k].first <= last; k++) {
      if (b[k].first > from) rest.push({ first: from, last: b[k].first - 1 });
      from = b[k].last + 1;
    }
    if (from <= last) rest.push({ first: from, last });
  }
  return rest;
}

/** The fewest prefixes that are exactly the range. */
function addPrefixes(prefixes: Prefix[], range: Range): void {
  let at = range.first;
  while (at <= range.last) {
    let size = 2 ** 32;
    while (at % size !== 0 || at + size - 1 > range.last) size /= 2;
    prefixes.push({ address: at | 0, length: 32 - Math.log2(size) });
    at += size;
  }
}
