/**
 * Text of a configuration file to a `Config`, or to every problem it has at once, each with its
 * line, column and key: YAML's own errors, what the schema refuses, and what does not fit together.
 */
import { type Document, isMap, isNode, LineCounter, type Pair, parseDocument } from 'yaml';
import type { z } from 'zod';
import type { Config } from '../../engine/config.ts';
import { crossChecks, pointlessKeys } from './cross-checks.ts';
import { type Override, override } from './environment.ts';
import { show } from './fields.ts';
import { resolveHa } from './firewall-fields.ts';
import { resolveRules } from './rules.ts';
import { type SectionName, type Sections, sections } from './schema.ts';
import { closest } from './text.ts';

export type Path = readonly (string | number)[];

export type Problem = {
  /** From 1. */
  readonly line: number;
  readonly column: number;
  /** Such as `firewalls[0].address`; empty for the file as a whole. */
  readonly key: string;
  readonly message: string;
};

export class ConfigError extends Error {
  readonly code = 'ERR_CONFIG';
  readonly file: string;
  readonly problems: readonly Problem[];

  constructor(file: string, problems: readonly Problem[]) {
    super(problems.map((problem) => formatProblem(file, problem)).join('\n'));
    this.name = 'ConfigError';
    this.file = file;
    this.problems = problems;
  }
}

/** `FILE:LINE:COLUMN: KEY: message`; a problem with the file as a whole has no position. */
export function formatProblem(file: string, problem: Problem): string {
  const position = problem.line === 0 ? '' : `:${problem.line}:${problem.column}`;
  return `${file}${position}: ${problem.key === '' ? '' : `${problem.key}: `}${problem.message}`;
}

type Finding = { readonly path: Path; readonly message: string; readonly atKey: boolean };

export type ReadConfig = {
  readonly config: Config;
  /** What is right and probably not meant, in the order of lines. */
  readonly warnings: readonly Problem[];
  /** Where the value at `path` begins, from 1; 0 when the file does not have it. */
  placeOf(path: Path): { readonly line: number; readonly column: number };
};

/** Not in the file. */
const nowhere = { line: 0, column: 0 } as const;

/** `file` is the name to show. Throws a ConfigError with all problems, in the order of lines. */
export function parseConfig(text: string, file: string): Config {
  return readConfig(text, file).config;
}

/** As `parseConfig`, with what a person may want to know of a good file. */
export function readConfig(
  text: string,
  file: string,
  overrides: readonly Override[] = [],
): ReadConfig {
  const lines = new LineCounter();
  const document = parseYaml(text, file, lines);
  const placeOf = (path: Path) => {
    const node = document.getIn(path, true);
    const at = isNode(node) ? node.range?.[0] : undefined;
    if (at === undefined) return nowhere;
    const { line, col } = lines.linePos(at);
    return { line, column: col };
  };
  const lineOfRule = (index: number) => placeOf(['rules', index]).line;
  const value = toValue(document, file);
  applyOverrides(value, file, overrides);
  const { config, errors, warnings } = checkSections(value, lineOfRule);
  const problems = (findings: readonly Finding[]) =>
    findings
      .map((finding) => locate(document, lines, overrides, finding))
      .sort((a, b) => a.line - b.line || a.column - b.column);
  if (config === undefined) throw new ConfigError(file, problems(errors));
  const taken = overrides.map(({ path, variable }) => ({
    ...nowhere,
    key: formatPath(path),
    message: `taken from ${variable}, not from the file`,
  }));
  return { config: deepFreeze(config), warnings: [...taken, ...problems(warnings)], placeOf };
}

function parseYaml(text: string, file: string, lines: LineCounter): Document.Parsed {
  let document: Document.Parsed;
  try {
    document = parseDocument(text, { lineCounter: lines, prettyErrors: false, logLevel: 'error' });
  } catch (error) {
    throw new ConfigError(file, [wholeFile(`cannot be read as YAML: ${(error as Error).message}`)]);
  }
  const faults = [...document.errors, ...document.warnings];
  const first = faults[0];
  if (first === undefined) return document;
  // The reader is recursive. When its stack is exhausted, every level reports an end of its own.
  const shown = /call stack/i.test(first.message) ? [first] : faults;
  const problems = shown.map((fault) => {
    const { line, col } = lines.linePos(fault.pos[0]);
    const isDeep = fault === first && shown.length < faults.length;
    const message = isDeep ? 'blocks within blocks, too deep to be read' : fault.message;
    return { line, column: col, key: '', message: lowerFirst(message) };
  });
  throw new ConfigError(file, problems);
}

function toValue(document: Document.Parsed, file: string): Record<string, unknown> {
  let value: unknown;
  try {
    value = document.toJS({ maxAliasCount: 100 });
  } catch (error) {
    throw new ConfigError(file, [wholeFile((error as Error).message)]);
  }
  if (value === null || value === undefined)
    throw new ConfigError(file, [wholeFile('the file is empty')]);
  if (typeof value !== 'object' || Array.isArray(value)) {
    throw new ConfigError(file, [wholeFile(`must be a block of keys, not ${show(value)}`)]);
  }
  return value as Record<string, unknown>;
}

function applyOverrides(value: object, file: string, overrides: readonly Override[]): void {
  const problems = overrides.flatMap((one) => {
    const message = override(value, one);
    return message === undefined ? [] : [{ ...nowhere, key: one.variable, message }];
  });
  if (problems.length > 0) throw new ConfigError(file, problems);
}

function wholeFile(message: string): Problem {
  return { line: 1, column: 1, key: '', message };
}

function checkSections(
  value: Record<string, unknown>,
  lineOfRule: (index: number) => number,
): {
  config: Config | undefined;
  errors: readonly Finding[];
  warnings: readonly Finding[];
} {
  const names = Object.keys(sections) as SectionName[];
  const errors: Finding[] = Object.keys(value)
    .filter((key) => !names.includes(key as SectionName))
    .map((key) => unknownKey([], key, names));
  const good: Partial<Record<SectionName, unknown>> = {};
  for (const name of names) {
    const result = sections[name].safeParse(value[name]);
    if (result.success) good[name] = result.data;
    else for (const issue of result.error.issues) errors.push(...describe(name, issue));
  }
  const known = good as Partial<Sections>;
  for (const { path, message } of crossChecks(known)) errors.push({ path, message, atKey: false });
  const firewalls = known.firewalls?.map(({ name }) => name);
  // Without one of the two, every use of a set would look wrong.
  const resolved =
    known.sets && known.rules
      ? resolveRules(known.rules, known.sets, firewalls, lineOfRule)
      : undefined;
  for (const finding of resolved?.errors ?? []) errors.push(finding);
  const rules = resolved?.rules;
  const config = errors.length > 0 || !rules ? undefined : toConfig(known as Sections, rules);
  const warnings = [
    ...(resolved?.warnings ?? []),
    ...pointlessKeys(known).map((misfit) => ({ ...misfit, atKey: true })),
  ];
  return { config, errors, warnings };
}

function toConfig(known: Sections, rules: Config['rules']): Config {
  const { group, interfaces, management, ipv6 } = known.workload;
  const { acceleratedFlows, busyPoll, flows, workers } = known.limits;
  const { control } = known;
  return {
    workload: { interfaces, management, group, ipv6 },
    firewalls: known.firewalls,
    ha: resolveHa(known.ha, known.tunnel.encapsulation),
    tunnel: known.tunnel,
    telemetry: known.telemetry,
    policy: known.policy,
    default: known.default,
    rules,
    acceleration: known.acceleration,
    limits: { flows, acceleratedFlows, busyPoll, workers },
    control: {
      socket: control.socket,
      http: control.http.listen && { ...control.http.listen, tokenFile: control.http.tokenFile },
    },
    metrics: known.metrics.listen,
    log: known.log,
  };
}

function describe(section: SectionName, issue: z.core.$ZodIssue): Finding[] {
  const path = [
    section,
    ...issue.path.map((part) => (typeof part === 'number' ? part : String(part))),
  ];
  if (issue.code === 'unrecognized_keys') {
    return issue.keys.map((key) => unknownKey(path, key, keysAt(path)));
  }
  const atKey = issue.code === 'custom' && issue.params?.atKey === true;
  const message =
    issue.code === 'invalid_type' && issue.expected === 'object'
      ? issue.message.replace(/^Invalid input.*/, 'must be a block of keys')
      : issue.message;
  return [{ path, message, atKey }];
}

function unknownKey(path: Path, key: string, known: readonly string[]): Finding {
  const meant = closest(key, known);
  const advice = meant === undefined ? `known here: ${known.join(', ')}` : `did you mean ${meant}?`;
  return { path: [...path, key], message: `unknown key: ${advice}`, atKey: true };
}

/** The keys that the schema knows at `path`: down through blocks, lists and their wrappers. */
function keysAt(path: Path): readonly string[] {
  let schema: unknown = sections[path[0] as SectionName];
  for (const part of path.slice(1)) {
    const inner = unwrap(schema);
    schema = typeof part === 'number' ? inner.element : inner.shape?.[part];
  }
  return Object.keys(unwrap(schema).shape ?? {});
}

type Shaped = { readonly shape?: Record<string, unknown>; readonly element?: unknown };

function unwrap(schema: unknown): Shaped {
  type Wrapper = { def?: { type: string; in?: unknown; out?: unknown; innerType?: unknown } };
  let current = schema as (Shaped & Wrapper) | undefined;
  while (
    current?.def !== undefined &&
    current.shape === undefined &&
    current.element === undefined
  ) {
    const { type, in: input, out, innerType } = current.def;
    // A pipe is a preprocess (its schema is `out`) or a transform (its schema is `in`).
    const next = type === 'pipe' ? (isTransform(input) ? out : input) : innerType;
    if (next === undefined) break;
    current = next as Shaped & Wrapper;
  }
  return current ?? {};
}

function isTransform(schema: unknown): boolean {
  return (schema as { def?: { type?: string } }).def?.type === 'transform';
}

function locate(
  document: Document.Parsed,
  lines: LineCounter,
  overrides: readonly Override[],
  finding: Finding,
): Problem {
  const { message } = finding;
  // One below counts when the block itself is there for its sake only.
  const isThere = document.hasIn(finding.path);
  const variables = overrides
    .filter(({ path }) => path.length <= finding.path.length || !isThere)
    .filter(({ path }) => path.every((part, depth) => part === (finding.path[depth] ?? part)))
    .map(({ variable }) => variable);
  if (variables.length > 0) {
    const key = formatPath(finding.path);
    return { ...nowhere, key, message: `${message} (from ${variables.join(', ')})` };
  }
  const offset = offsetOf(document, finding.path, finding.atKey);
  const { line, col } = lines.linePos(offset);
  return { line, column: col, key: formatPath(finding.path), message };
}

/** Where the value (or the key) at `path` begins; for what is not there, its nearest ancestor. */
function offsetOf(document: Document.Parsed, path: Path, atKey: boolean): number {
  for (let depth = path.length; depth > 0; depth--) {
    const here = path.slice(0, depth);
    const pair = pairAt(document, here);
    const key = pair && isNode(pair.key) ? pair.key.range?.[0] : undefined;
    if (atKey && depth === path.length && key !== undefined) return key;
    const node = document.getIn(here, true);
    const value = isNode(node) ? node.range?.[0] : undefined;
    // Of a missing key's parent, the key is the better place: the block begins a line below it.
    const found = depth < path.length ? (key ?? value) : (value ?? key);
    if (found !== undefined) return found;
  }
  return 0;
}

function pairAt(document: Document.Parsed, path: Path): Pair | undefined {
  const parent = path.length === 1 ? document.contents : document.getIn(path.slice(0, -1), true);
  if (!isMap(parent)) return undefined;
  const name = String(path.at(-1));
  return parent.items.find((pair) => isNode(pair.key) && String(pair.key) === name);
}

function formatPath(path: Path): string {
  return path.reduce<string>((text, part) => {
    if (typeof part === 'number') return `${text}[${part}]`;
    return text === '' ? part : `${text}.${part}`;
  }, '');
}

function lowerFirst(text: string): string {
  return text.charAt(0).toLowerCase() + text.slice(1);
}

function deepFreeze<T>(value: T): T {
  if (typeof value === 'object' && value !== null && !Object.isFrozen(value)) {
    Object.freeze(value);
    for (const inner of Object.values(value)) deepFreeze(inner);
  }
  return value;
}
