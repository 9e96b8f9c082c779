/** Sets and rules, once read, to what the classifier takes: numbers only, names resolved. */

import { Opener, type Range, type Rule } from '../../engine/classifier/rules.ts';
import { type Config, limits } from '../../engine/config.ts';
import { Verdict } from '../../engine/flows.ts';
import { Protocol } from '../../parsers/ipv4.ts';
import { firewallSet } from './firewall-fields.ts';
import type { Item, ItemKind, SetItem, SetReference, Sets } from './rule-fields.ts';
import type { Sections } from './schema.ts';
import { closest, formatProtocol } from './text.ts';

export type RuleFinding = {
  readonly path: Path;
  readonly message: string;
  readonly atKey: boolean;
};

type RuleSpec = Sections['rules'][number];

export type ResolvedRules = {
  readonly rules: Config['rules'];
  readonly errors: readonly RuleFinding[];
  readonly warnings: readonly RuleFinding[];
};

const openers = { egress: Opener.Egress, ingress: Opener.Ingress, both: Opener.Both } as const;
export const verdicts = {
  redirect: Verdict.Redirect,
  pass: Verdict.Pass,
  drop: Verdict.Drop,
} as const;

const lists = [
  ['local', 'address'],
  ['remote', 'address'],
  ['localPort', 'port'],
  ['remotePort', 'port'],
] as const;

/** The name of a rule that has none: its place, in a form that no written name has. */
function placeName(index: number): string {
  return `#${index + 1}`;
}

/**
 * @param firewalls their names; undefined when they could not be read
 * @param lineOf line of the rule at an index, from 1
 */
export function resolveRules(
  specs: readonly RuleSpec[],
  sets: Sets,
  firewalls: readonly string[] | undefined,
  lineOf: (index: number) => number,
): ResolvedRules {
  const names = new SetTable(sets);
  const errors: RuleFinding[] = [...names.errors];
  const rules: Rule[] = [];
  let ranges = 0;
  for (const [index, spec] of specs.entries()) {
    const resolved = { local: none, remote: none, localPort: none, remotePort: none };
    for (const [key, kind] of lists) {
      const path = ['rules', index, key];
      resolved[key] = names.resolve(spec[key] ?? [], kind, path, errors);
      ranges += resolved[key].length;
      if (kind === 'port' && resolved[key].length > 0) checkPorts(spec, path, errors);
    }
    rules.push({
      name: spec.name ?? placeName(index),
      line: lineOf(index),
      opener: openers[spec.direction],
      protocol: spec.protocol ?? -1,
      ...resolved,
      verdict: verdicts[spec.action],
      onFailure: spec.onFailure,
      firewalls: firewallSet(spec.firewall, firewalls, (message) =>
        errors.push({ path: ['rules', index, 'firewall'], message, atKey: false }),
      ),
      log: spec.log,
    });
    if (ranges > limits.ranges.max) {
      const message =
        `the rules down to here have, with their sets, ${ranges} ranges of addresses and ports: ` +
        `no more than ${limits.ranges.max} are taken`;
      errors.push({ path: ['rules', index], message, atKey: false });
      break;
    }
  }
  for (const finding of duplicateNames(specs, lineOf)) errors.push(finding);
  return { rules, errors, warnings: names.unused() };
}

const none: readonly Range[] = [];

function checkPorts(spec: RuleSpec, path: (string | number)[], errors: RuleFinding[]): void {
  const protocol = spec.protocol ?? -1;
  if (protocol === -1 || protocol === Protocol.Tcp || protocol === Protocol.Udp) return;
  const message = `${formatProtocol(protocol)} has no ports: only tcp and udp have`;
  errors.push({ path, message, atKey: true });
}

function duplicateNames(
  specs: readonly RuleSpec[],
  lineOf: (index: number) => number,
): RuleFinding[] {
  const seen = new Map<string, number>();
  return specs.flatMap(({ name }, index): RuleFinding[] => {
    const first = name === undefined ? undefined : seen.get(name);
    if (first === undefined) {
      if (name !== undefined) seen.set(name, index);
      return [];
    }
    const message = `${name} is the name of the rule in line ${lineOf(first)} already`;
    return [{ path: ['rules', index, 'name'], message, atKey: false }];
  });
}

type Path = readonly (string | number)[];

function pathOf(list: Path, { at }: { readonly at: number }): Path {
  return at < 0 ? list : [...list, at];
}

type NamedSet = { readonly kind: ItemKind; readonly ranges: readonly Range[] };

/** The sets by name, each resolved once: rules that use one share its ranges. */
class SetTable {
  readonly errors: RuleFinding[] = [];
  private readonly specs: Sets;
  private readonly resolved = new Map<string, NamedSet | undefined>();
  private readonly used = new Set<string>();

  constructor(specs: Sets) {
    this.specs = specs;
    for (const name of specs.keys()) this.named(name, []);
  }

  /** Sorted and merged; empty for any, and for what has errors. */
  resolve(
    items: readonly Item[],
    kind: ItemKind,
    path: Path,
    errors: RuleFinding[],
  ): readonly Range[] {
    const all: Range[] = [];
    let isAny = false;
    for (const item of items) {
      if (item === 'any') {
        isAny = true;
      } else if (!('set' in item)) {
        all.push(item);
      } else {
        const found = this.lookUp(item.set, kind, pathOf(path, item), errors);
        if (items.length === 1) return found;
        for (const range of found) all.push(range);
      }
    }
    return isAny ? none : merge(all);
  }

  unused(): RuleFinding[] {
    return [...this.specs.keys()]
      .filter((name) => !this.used.has(name))
      .map((name) => ({
        path: ['sets', name],
        message: 'is used by no rule',
        atKey: true,
      }));
  }

  private lookUp(
    name: string,
    kind: ItemKind,
    path: Path,
    errors: RuleFinding[],
  ): readonly Range[] {
    const report = (message: string) => errors.push({ path, message, atKey: false });
    this.used.add(name);
    if (!this.specs.has(name)) {
      report(this.unknown(name));
      return none;
    }
    const set = this.resolved.get(name);
    if (set !== undefined && set.kind !== kind) {
      const has = { address: 'addresses', port: 'ports' };
      report(`$${name} is a set of ${has[set.kind]}: ${has[kind]} are needed here`);
      return none;
    }
    return set?.ranges ?? none;
  }

  private unknown(name: string): string {
    const known = [...this.specs.keys()];
    const meant = closest(name, known);
    if (meant !== undefined) return `there is no set ${name}: did you mean $${meant}?`;
    if (known.length === 0) return `there is no set ${name}: sets: is empty`;
    return `there is no set ${name}: there are ${known.slice(0, 10).join(', ')}`;
  }

  /** @param chain the sets that are being resolved, outermost first */
  private named(name: string, chain: readonly string[]): NamedSet | undefined {
    if (this.resolved.has(name)) return this.resolved.get(name);
    const ranges: Range[] = [];
    let kind: ItemKind | undefined;
    let isGood = true;
    for (const item of this.specs.get(name) ?? []) {
      const found = this.member(name, item, [...chain, name]);
      if (found === undefined) {
        isGood = false;
      } else if (kind !== undefined && kind !== found.kind) {
        const message = 'a set holds addresses or ports, not both';
        this.errors.push({ path: pathOf(['sets', name], item), message, atKey: false });
        isGood = false;
      } else {
        kind = found.kind;
        for (const range of found.ranges) ranges.push(range);
      }
    }
    const set = kind === undefined || !isGood ? undefined : { kind, ranges: merge(ranges) };
    this.resolved.set(name, set);
    return set;
  }

  private member(
    name: string,
    item: SetItem | SetReference,
    chain: readonly string[],
  ): NamedSet | undefined {
    if (!('set' in item)) return { kind: item.kind, ranges: [item.item] };
    const report = (message: string) =>
      this.errors.push({ path: pathOf(['sets', name], item), message, atKey: false });
    this.used.add(item.set);
    if (chain.includes(item.set)) {
      const loop = [...chain.slice(chain.indexOf(item.set)), item.set];
      report(`the set holds itself: ${loop.map((each) => `$${each}`).join(' -> ')}`);
      return undefined;
    }
    if (chain.length > maximumNesting) {
      report(`sets within sets more than ${maximumNesting} deep`);
      return undefined;
    }
    if (this.specs.has(item.set)) return this.named(item.set, chain);
    report(this.unknown(item.set));
    return undefined;
  }
}

/** Deeper than anybody writes; far less than the stack takes. */
const maximumNesting = 32;

/** In order, with those that overlap or touch as one. */
function merge(ranges: readonly Range[]): readonly Range[] {
  if (ranges.length < 2) return ranges;
  const sorted = [...ranges].sort((a, b) => a.first - b.first);
  const result: Range[] = [];
  for (const range of sorted) {
    const before = result.at(-1);
    if (before === undefined || range.first > before.last + 1) result.push(range);
    else if (range.last > before.last) {
      result[result.length - 1] = { first: before.first, last: range.last };
    }
  }
  return result;
}
