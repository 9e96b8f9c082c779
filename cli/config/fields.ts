/** The kinds of values that the configuration file has, as zod schemas with errors in words. */
import { isDeepStrictEqual } from 'node:util';
import { z } from 'zod';
import type { Prefix, Range } from '../../engine/config.ts';
import { parseAddress } from '../../parsers/text.ts';
import {
  durationPattern,
  formatDuration,
  formatPrefix,
  hasHostBits,
  parseDuration,
  parseEndpoint,
  parseException,
  parseIdentifier,
  parseMac,
  parsePrefix,
  withoutHostBits,
} from './text.ts';

/** How a value is shown in a message: short, and as the file may have it. */
export function show(value: unknown): string {
  if (value === undefined || value === null) return 'nothing';
  if (Array.isArray(value)) return 'a list';
  if (typeof value === 'object') return 'a block of keys';
  const text = JSON.stringify(value) ?? String(value);
  return text.length > 60 ? `${text.slice(0, 57)}…` : text;
}

function wrong(expected: string, value: unknown): string {
  const missing = value === undefined || value === null;
  return missing ? `is missing: ${expected} is needed` : `must be ${expected}, not ${show(value)}`;
}

/** What an editor is told of a value: keywords of JSON Schema (draft 2020-12). */
type Shape = Readonly<Record<string, unknown>>;

/**
 * Text that `parse` understands; `expected` completes "must be …". `pattern` is for the JSON
 * Schema, which may accept more than `parse` and never less.
 */
function parsed<T>(expected: string, shape: Shape, parse: (text: string) => T | undefined) {
  return z
    .unknown()
    .transform((value, context): T => {
      const result = typeof value === 'string' ? parse(value) : undefined;
      if (result !== undefined) return result;
      context.addIssue({ code: 'custom', message: wrong(expected, value) });
      return z.NEVER;
    })
    .meta({ type: 'string', ...shape });
}

export function text(expected: string, pattern: RegExp) {
  return parsed(expected, { pattern: pattern.source }, (value) =>
    pattern.test(value) ? value : undefined,
  );
}

export function duration(range: Range) {
  const [min, max] = [formatDuration(range.min), formatDuration(range.max)];
  const expected = `a duration from ${min} to ${max}, such as 500ms, 10s or 2m`;
  return parsed(expected, { pattern: durationPattern }, (value) => {
    const ms = parseDuration(value);
    return ms !== undefined && ms >= range.min && ms <= range.max ? ms : undefined;
  });
}

export function percentage(range: Range) {
  const expected = `a share from ${range.min}% to ${range.max}%, such as 10%`;
  return parsed(expected, { pattern: '^\\d{1,3}%$' }, (value) => {
    const percent = /^\d{1,3}%$/.test(value) ? Number(value.slice(0, -1)) : -1;
    return percent >= range.min && percent <= range.max ? percent : undefined;
  });
}

export function integer(range: Range) {
  return z
    .unknown()
    .transform((value, context): number => {
      const fits = Number.isInteger(value) && (value as number) >= range.min;
      if (fits && (value as number) <= range.max) return value as number;
      const expected = `a whole number from ${range.min} to ${range.max}`;
      context.addIssue({ code: 'custom', message: wrong(expected, value) });
      return z.NEVER;
    })
    .meta({ type: 'integer', minimum: range.min, maximum: range.max });
}

export const yesOrNo = z
  .unknown()
  .transform((value, context): boolean => {
    if (typeof value === 'boolean') return value;
    context.addIssue({ code: 'custom', message: wrong('true or false', value) });
    return z.NEVER;
  })
  .meta({ type: 'boolean' });

export function choice<const T extends string>(...values: readonly T[]) {
  const list = values.length === 1 ? values[0]! : values.join(' or ');
  return parsed(list, { enum: values }, (value) => values.find((candidate) => candidate === value));
}

/**
 * 64 bits, exactly, as 16 hexadecimal digits: YAML's numbers are exact to 2^53 only, so larger ones
 * are text.
 */
export const identifier = z
  .unknown()
  .transform((value, context): string => {
    const digits = parseIdentifier(value);
    if (digits !== undefined) return digits;
    const expected =
      'a number of 64 bits: up to 9007199254740991, or hexadecimal digits in quotes such as "0x1a2b"';
    context.addIssue({ code: 'custom', message: wrong(expected, value) });
    return z.NEVER;
  })
  .meta({
    anyOf: [
      { type: 'string', pattern: '^0[xX][0-9A-Fa-f]{1,16}$' },
      { type: 'integer', minimum: 0, maximum: Number.MAX_SAFE_INTEGER },
    ],
  });

/** Text of hexadecimal digits, eight a word, in lower case. */
export function words(range: Range) {
  const pattern = `^(0[xX])?([0-9A-Fa-f]{8}){${range.min},${range.max}}$`;
  const expected = `hexadecimal digits in quotes, 8 for each of ${range.min} to ${range.max} words`;
  return parsed(expected, { pattern }, (value) =>
    new RegExp(pattern).test(value) ? value.replace(/^0x/i, '').toLowerCase() : undefined,
  );
}

const [quad, cidr] = ['\\d{1,3}(\\.\\d{1,3}){3}', '\\d{1,3}(\\.\\d{1,3}){3}(/\\d{1,2})?'];

export const address = parsed(
  'an IPv4 address such as 10.9.0.4',
  { pattern: `^${quad}$` },
  parseAddress,
);
export const endpoint = parsed(
  'an IPv4 address and port such as 127.0.0.1:9469',
  { pattern: `^${quad}:\\d{1,5}$` },
  parseEndpoint,
);
export const loopback = endpoint.refine(
  ({ address: text }) => text.startsWith('127.'),
  'must be an address of this host alone (127.0.0.0/8): reach it by ssh -L',
);
export const mac = parsed(
  'a MAC address such as 02:00:00:00:00:01',
  { pattern: '^[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5}$' },
  parseMac,
);
export const prefix = parsed(
  'an IPv4 prefix such as 10.9.0.0/28',
  { pattern: `^${cidr}$` },
  parsePrefix,
).superRefine(refuseHostBits);
export const exception = parsed(
  'an address, a prefix, or tcp:PREFIX:PORT or udp:PREFIX:PORT',
  { pattern: `^(${cidr}|(tcp|udp):${cidr}:\\d{1,5})$` },
  parseException,
).superRefine((value, context) => refuseHostBits(value.prefix, context));

function refuseHostBits(value: Prefix, context: z.RefinementCtx): void {
  if (!hasHostBits(value)) return;
  const meant = formatPrefix(withoutHostBits(value));
  const message = `${formatPrefix(value)} has bits set beyond its length: did you mean ${meant}?`;
  context.addIssue({ code: 'custom', message });
}

/**
 * A key of the contract that this version does not honour: refused by name, with what happens
 * instead, unless its value asks for just that.
 */
export function notYet(sentence: string, ...inForce: readonly unknown[]) {
  const schema = z.unknown().superRefine((value, context) => {
    if (value === undefined || value === null) return;
    if (inForce.some((candidate) => isDeepStrictEqual(candidate, value))) return;
    const message = `not supported yet: ${sentence}`;
    context.addIssue({ code: 'custom', message, params: { atKey: true } });
  });
  const description = `Not supported yet: ${sentence}.`;
  return schema.meta({ description, enum: [...inForce, null] }).optional();
}

/** A block of known keys; left out or left empty, it is a block with nothing in it. */
export function block<T extends z.ZodRawShape>(shape: T) {
  const schema = z
    .preprocess((value) => value ?? {}, z.strictObject(shape))
    .meta({
      type: ['object', 'null'],
    });
  return schema;
}
