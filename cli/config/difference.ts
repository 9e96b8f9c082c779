/** What a changed configuration changes, in words, and which of it only a restart can change. */
import type { Rule } from '../../engine/classifier/rules.ts';
import type { Config } from '../../engine/config.ts';
import { Verdict } from '../../engine/flows.ts';
import { formatDuration } from './text.ts';

export type Difference = {
  /** One sentence a change, rules first. */
  readonly changed: readonly string[];
  /** Keys that cannot change while the agent runs, each with its sentence. */
  readonly refused: readonly string[];
};

/** Keys that a running agent takes over, with all below them. */
const live = ['workload.management', 'workload.ipv6', 'policy', 'default', 'log.which'];

export function differenceOf(before: Config, after: Config): Difference {
  const changed = ruleChanges(before.rules, after.rules);
  const refused: string[] = [];
  for (const [key, was, is] of leaves({ ...before, rules: [] }, { ...after, rules: [] }, '')) {
    const values = [show(key, was), show(key, is)];
    const words = values.includes('') ? 'changed' : values.join(' -> ');
    const sentence = `${key.replace(/(Ms|Percent)$/, '')}: ${words}`;
    if (live.some((top) => key === top || key.startsWith(`${top}.`))) changed.push(sentence);
    else refused.push(`${sentence}: needs a restart`);
  }
  return { changed, refused };
}

/** Paths in the configuration whose values differ, with both values. */
function leaves(before: unknown, after: unknown, path: string): [string, unknown, unknown][] {
  if (isBlock(before) && isBlock(after)) {
    const keys = new Set([...Object.keys(before), ...Object.keys(after)]);
    return [...keys].flatMap((key) =>
      leaves(before[key], after[key], path === '' ? key : `${path}.${key}`),
    );
  }
  if (isBlockList(before) && isBlockList(after) && before.length === after.length) {
    return before.flatMap((value, index) => leaves(value, after[index], `${path}[${index}]`));
  }
  const same = JSON.stringify(before) === JSON.stringify(after);
  return same ? [] : [[path, before, after]];
}

function isBlock(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function isBlockList(value: unknown): value is readonly Record<string, unknown>[] {
  return Array.isArray(value) && value.every(isBlock);
}

/** As the file has it; empty for what is long, or a number that the file has as text. */
function show(key: string, value: unknown): string {
  if (typeof value === 'string') return value;
  if (typeof value !== 'number') return '';
  if (key.endsWith('Ms')) return formatDuration(value);
  if (key.endsWith('Percent')) return `${value}%`;
  if (key === 'tunnel.mtu' && value === 0) return 'auto';
  return /address|length/.test(key) ? '' : String(value);
}

/** Added, removed, changed and moved, by name; a rule without a name goes by what it says. */
function ruleChanges(before: readonly Rule[], after: readonly Rule[]): string[] {
  const old = byIdentity(before);
  const now = byIdentity(after);
  const result: string[] = [];
  for (const [identity, { rule, index }] of old) {
    if (!now.has(identity)) result.push(`rule ${rule.name}: removed (was number ${index + 1})`);
  }
  const common: { name: string; from: number; to: number }[] = [];
  for (const [identity, { rule, index }] of now) {
    const was = old.get(identity);
    if (was === undefined) {
      result.push(`rule ${rule.name}: added as number ${index + 1} (line ${rule.line})`);
      continue;
    }
    common.push({ name: rule.name, from: was.index, to: index });
    const fields = changedFields(was.rule, rule);
    if (fields.length > 0) {
      result.push(`rule ${rule.name} (line ${rule.line}): changed: ${fields.join(', ')}`);
    }
  }
  const stayed = longestAscent(common.map(({ from }) => from));
  for (const [position, { name, from, to }] of common.entries()) {
    if (!stayed.has(position)) result.push(`rule ${name}: moved from ${from + 1} to ${to + 1}`);
  }
  return result;
}

type Placed = { readonly rule: Rule; readonly index: number };

function byIdentity(rules: readonly Rule[]): ReadonlyMap<string, Placed> {
  const result = new Map<string, Placed>();
  for (const [index, rule] of rules.entries()) {
    const isNamed = !rule.name.startsWith('#');
    const base = isNamed ? rule.name : JSON.stringify({ ...rule, name: '', line: 0 });
    // The same rule without a name may stand twice.
    let identity = base;
    for (let copy = 2; result.has(identity); copy++) identity = `${base} ${copy}`;
    result.set(identity, { rule, index });
  }
  return result;
}

const fieldNames: Readonly<Record<string, string>> = {
  opener: 'direction',
  protocol: 'protocol',
  local: 'local',
  remote: 'remote',
  localPort: 'localPort',
  remotePort: 'remotePort',
  verdict: 'action',
  onFailure: 'onFailure',
  firewalls: 'firewall',
  log: 'log',
};

const actions: Partial<Record<Verdict, string>> = {
  [Verdict.Redirect]: 'redirect',
  [Verdict.Pass]: 'pass',
  [Verdict.Drop]: 'drop',
};

function changedFields(before: Rule, after: Rule): string[] {
  return (Object.keys(fieldNames) as (keyof Rule)[])
    .filter((field) => JSON.stringify(before[field]) !== JSON.stringify(after[field]))
    .map((field) =>
      field === 'verdict'
        ? `action ${actions[before.verdict]} -> ${actions[after.verdict]}`
        : fieldNames[field]!,
    );
}

/** Positions of a longest ascending subsequence: what stayed in order, so that few have moved. */
function longestAscent(values: readonly number[]): ReadonlySet<number> {
  /** Of the ascents of each length, the position whose value is smallest. */
  const ends: number[] = [];
  const before = new Int32Array(values.length).fill(-1);
  for (const [position, value] of values.entries()) {
    let low = 0;
    let high = ends.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (values[ends[middle]!]! < value) low = middle + 1;
      else high = middle;
    }
    if (low > 0) before[position] = ends[low - 1]!;
    ends[low] = position;
  }
  const result = new Set<number>();
  for (let at = ends.at(-1) ?? -1; at >= 0; at = before[at]!) result.add(at);
  return result;
}
