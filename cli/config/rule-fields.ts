/**
 * The kinds of values that sets and rules have. A list of addresses or ports is read to items, of
 * which a set's name is one: what it stands for is known once the whole file is read
 * (cli/config/rules.ts).
 */
import { z } from 'zod';
import { type Range as Limits, limits } from '../../engine/config.ts';
import { parseAddress } from '../../parsers/text.ts';
import { show } from './fields.ts';
import {
  formatPrefix,
  hasHostBits,
  lastAddress,
  parsePrefix,
  parseProtocol,
  withoutHostBits,
} from './text.ts';

/** Both ends included; addresses unsigned. */
export type Range = { readonly first: number; readonly last: number };
export type ItemKind = 'address' | 'port';
/** One entry of a list: a range, every value, or whatever the named set holds. */
export type Item = Range | 'any' | SetReference;
/** `at`: its place in the list, or -1 where it stands alone. */
export type SetReference = { readonly set: string; readonly at: number };
/** An item of a set, which may be of either kind until the set's use is known. */
export type SetItem = {
  readonly kind: ItemKind;
  readonly item: Range;
  readonly at: number;
};

/** What is wrong, to follow "must be …" or to stand by itself. */
type Refusal = { readonly refused: string };

const setName = /^[A-Za-z_][A-Za-z0-9_-]{0,63}$/;
const setNamePattern = '[A-Za-z_][A-Za-z0-9_-]{0,63}';
const quad = '\\d{1,3}(\\.\\d{1,3}){3}';
const addressPattern = `${quad}(/\\d{1,2})?|\\s*${quad}\\s*-\\s*${quad}\\s*`;
const portPattern = '\\s*\\d{1,5}\\s*(-\\s*\\d{1,5}\\s*)?';
const patterns = {
  address: `any|\\$${setNamePattern}|${addressPattern}`,
  port: `any|\\$${setNamePattern}|${portPattern}`,
};
const portNumber = {
  type: 'integer',
  minimum: limits.rulePort.min,
  maximum: limits.rulePort.max,
};
const shapes = {
  address: { type: 'string', pattern: `^(${patterns.address})$` },
  port: { anyOf: [portNumber, { type: 'string', pattern: `^(${patterns.port})$` }] },
};

const expected = {
  address: 'an address, CIDR, A-B, $set or any',
  port: `a port from ${limits.rulePort.min} to ${limits.rulePort.max}, A-B, $set or any`,
};

function parseAddresses(value: unknown): Range | Refusal {
  if (typeof value !== 'string') return { refused: '' };
  const dash = value.split('-');
  if (dash.length === 2) {
    const [first, last] = dash.map((part) => parseAddress(part.trim()));
    if (first === undefined || last === undefined) return { refused: '' };
    return ordered(value, dash, first >>> 0, last >>> 0);
  }
  const prefix = parsePrefix(value);
  if (prefix === undefined) return { refused: '' };
  if (hasHostBits(prefix)) {
    const meant = formatPrefix(withoutHostBits(prefix));
    const refused = `${value} has bits set beyond its length: did you mean ${meant}?`;
    return { refused };
  }
  return { first: prefix.address >>> 0, last: lastAddress(prefix) };
}

function parsePorts(value: unknown): Range | Refusal {
  if (typeof value === 'number') return inLimits(value, value, value);
  if (typeof value !== 'string') return { refused: '' };
  const dash = value.split('-');
  const ends = dash.map((part) => part.trim());
  if (dash.length > 2 || !ends.every((part) => /^\d{1,5}$/.test(part))) return { refused: '' };
  const [first, last] = [Number(ends[0]), Number(ends.at(-1))];
  const found = inLimits(value, first, last);
  return 'refused' in found ? found : ordered(value, dash, first, last);
}

function inLimits(value: unknown, first: number, last: number): Range | Refusal {
  const { min, max } = limits.rulePort;
  const fits = (port: number) => Number.isInteger(port) && port >= min && port <= max;
  if (fits(first) && fits(last)) return { first, last };
  return { refused: `${show(value)} is out of range: ports go from ${min} to ${max}` };
}

function ordered(
  text: unknown,
  ends: readonly string[],
  first: number,
  last: number,
): Range | Refusal {
  if (first <= last) return { first, last };
  const meant = `${ends[1]?.trim()}-${ends[0]?.trim()}`;
  return { refused: `${text} is reversed: did you mean ${meant}?` };
}

const parsers = { address: parseAddresses, port: parsePorts };

function parseItem(kind: ItemKind, value: unknown, at: number): Item | Refusal {
  if (value === 'any') return 'any';
  if (typeof value === 'string' && value.startsWith('$')) return parseReference(value, at);
  const found = parsers[kind](value);
  if (!('refused' in found) || found.refused !== '') return found;
  return { refused: `must be ${expected[kind]}, not ${show(value)}` };
}

function parseReference(value: string, at: number): SetReference | Refusal {
  const set = value.slice(1);
  return setName.test(set) ? { set, at } : { refused: `${show(value)} is not the name of a set` };
}

/** Numbers, `80` and `8000-8099` are ports; everything else is an address or nothing. */
function parseSetItem(value: unknown, at: number): SetItem | SetReference | Refusal {
  if (value === 'any') return { refused: 'any is not for sets: leave the key out of the rule' };
  if (typeof value === 'string' && value.startsWith('$')) return parseReference(value, at);
  const isPort =
    typeof value === 'number' || (typeof value === 'string' && /^[\d\s]+(-[\d\s]+)?$/.test(value));
  const kind = isPort ? 'port' : 'address';
  const item = parsers[kind](value);
  if (!('refused' in item)) return { kind, item, at };
  const words = `must be an address, CIDR, port, A-B or $set, not ${show(value)}`;
  return { refused: item.refused === '' ? words : item.refused };
}

type Report = (message: string, path: (string | number)[]) => void;

/** A list or a single item; null when something was reported. */
function parseList<T extends object | string>(
  value: unknown,
  range: Limits,
  path: readonly (string | number)[],
  parse: (item: unknown, at: number) => T | Refusal,
  report: Report,
): T[] | null {
  const list: unknown[] = Array.isArray(value) ? value : [value];
  if (list.length < range.min) report('must have at least one entry', [...path]);
  else if (list.length > range.max) report(`has more than ${range.max} entries`, [...path]);
  if (list.length < range.min || list.length > range.max) return null;
  const items: T[] = [];
  list.forEach((item, index) => {
    const at = Array.isArray(value) ? index : -1;
    const found = parse(item, at);
    if (typeof found === 'object' && 'refused' in found) {
      report(found.refused, at < 0 ? [...path] : [...path, at]);
    } else {
      items.push(found);
    }
  });
  return items.length === list.length ? items : null;
}

function reporter(context: z.RefinementCtx): Report {
  return (message, path) => context.addIssue({ code: 'custom', message, path });
}

/** `any` unless written. */
export function items(kind: ItemKind) {
  const shape = shapes[kind];
  return z
    .unknown()
    .transform((value, context): readonly Item[] => {
      if (value === undefined) return [];
      const report = reporter(context);
      const parse = (item: unknown, at: number) => parseItem(kind, item, at);
      return parseList(value, limits.setItems, [], parse, report) ?? z.NEVER;
    })
    .meta({ anyOf: [shape, { type: 'array', minItems: 1, items: shape }] })
    .optional();
}

export type Sets = ReadonlyMap<string, readonly (SetItem | SetReference)[]>;

/** Name to items. */
export const sets = z
  .unknown()
  .transform((value, context): Sets => {
    const result = new Map<string, readonly (SetItem | SetReference)[]>();
    const report = reporter(context);
    if (typeof (value ?? {}) !== 'object' || Array.isArray(value)) {
      report('must be a block of named lists', []);
      return z.NEVER;
    }
    const entries = Object.entries(value ?? {});
    if (entries.length > limits.sets.max) report(`has more than ${limits.sets.max} entries`, []);
    for (const [name, list] of entries) {
      if (!setName.test(name)) {
        report('must be a name of letters, digits, _ and -, a letter first', [name]);
      } else if (list === null || list === undefined) {
        report('is empty: a set needs at least one entry', [name]);
      } else if (Array.isArray(list) && list.length === 0) {
        report('is empty: a rule with it could never match', [name]);
      } else {
        result.set(name, parseList(list, limits.setItems, [name], parseSetItem, report) ?? []);
      }
    }
    return result;
  })
  .meta({
    type: ['object', 'null'],
    propertyNames: { pattern: `^${setNamePattern}$` },
    additionalProperties: {
      anyOf: [
        { $ref: '#/$defs/setItem' },
        { type: 'array', minItems: 1, items: { $ref: '#/$defs/setItem' } },
      ],
    },
  });

/** For the schema's `$defs`. */
export const setItemShape = {
  anyOf: [
    portNumber,
    {
      type: 'string',
      pattern: `^(\\$${setNamePattern}|${portPattern}|${addressPattern})$`,
    },
  ],
};

/** `any`, a name or a number, to an IP protocol number; any is -1. */
export const protocol = z
  .unknown()
  .transform((value, context): number => {
    const found = value === undefined ? -1 : parseProtocol(value);
    if (found !== undefined) return found;
    const { min, max } = limits.protocol;
    const message = `must be any, tcp, udp, icmp or a number from ${min} to ${max}, not ${show(value)}`;
    context.addIssue({ code: 'custom', message });
    return z.NEVER;
  })
  .meta({
    anyOf: [
      { enum: ['any', 'tcp', 'udp', 'icmp'] },
      { type: 'integer', minimum: limits.protocol.min, maximum: limits.protocol.max },
    ],
  })
  .optional();
