/**
 * From a configuration file to everything that a running agent needs of it. With many rules this
 * takes seconds and hundreds of megabytes, so it runs in a thread of its own that ends afterwards
 * (cli/compile-thread.ts): what comes out of it is small, or in shared memory.
 */
import { deserialize, serialize } from 'node:v8';
import type { Prefix } from '../engine/classifier/built-in.ts';
import { lint } from '../engine/classifier/lint.ts';
import type { Config, Settings } from '../engine/config.ts';
import { differenceOf } from './config/difference.ts';
import { readConfigFile } from './config/file.ts';
import { formatProblem } from './config/parse.ts';
import { verdicts } from './config/rules.ts';
import { builtInsOf } from './host-policy.ts';
import { noLinks } from './links.ts';
import { networksOf, type RulesPolicy, rulesPolicyOf } from './policy.ts';

/** What people are told of rules; what decides is in the tables. */
export type RuleList = {
  readonly names: readonly string[];
  /** Line of each in the file, from 1. */
  readonly lines: Uint32Array;
  /** By rule that no packet can match: why. */
  readonly never: ReadonlyMap<number, string>;
};

export type Compiled = {
  readonly settings: Settings;
  readonly rules: RuleList;
  readonly policy: RulesPolicy;
  /** Networks that the kernel passes by itself. */
  readonly networks: readonly Prefix[];
  /** The whole configuration, to compare the next one with. */
  readonly source: SharedArrayBuffer;
};

export type CompileAnswer = {
  /** What differs from the configuration before, and what of it needs a restart. */
  readonly changed: readonly string[];
  readonly refused: readonly string[];
  readonly warnings: readonly string[];
  /** Absent when nothing differs, or something needs a restart. */
  readonly next?: Compiled;
};

/** Some 20 ms of looking for rules that never match. */
const lintPairs = 2_000_000;

/**
 * @param before `source` of what is in force; undefined at the start
 * @throws ConfigError for a file that is wrong, RulesTooLargeError for rules that do not fit
 */
export function compileFile(file: string, before: SharedArrayBuffer | undefined): CompileAnswer {
  const { config, warnings: problems } = readConfigFile(file);
  const warnings = problems.map((problem) => formatProblem(file, problem));
  const source = serialize(config);
  if (before === undefined) {
    return { changed: [], refused: [], warnings, next: compileConfig(config, source) };
  }
  const old = Buffer.from(new Uint8Array(before));
  // A policy that is put in force again would only begin its counters anew.
  if (old.equals(source)) return { changed: [], refused: [], warnings };
  const difference = differenceOf(deserialize(old) as Config, config);
  if (difference.refused.length > 0) return { ...difference, changed: [], warnings };
  return { ...difference, warnings, next: compileConfig(config, source) };
}

function compileConfig(config: Config, source: Uint8Array): Compiled {
  const { rules, ...settings } = config;
  const shared = new SharedArrayBuffer(source.byteLength);
  new Uint8Array(shared).set(source);
  return {
    settings,
    rules: {
      names: rules.map(({ name }) => name),
      lines: Uint32Array.from(rules, ({ line }) => line),
      never: neverMatching(config),
    },
    policy: rulesPolicyOf(config),
    networks: networksOf(config),
    source: shared,
  };
}

function neverMatching(config: Config): ReadonlyMap<number, string> {
  const findings = lint(config.rules, {
    // Broadcast addresses are the host's, and no rule is wrong for what it says of them.
    builtIns: builtInsOf(config, noLinks),
    default: verdicts[config.default],
    pairsMax: lintPairs,
  });
  return new Map(
    findings
      .filter(({ kind }) => kind === 'empty' || kind === 'shadowed')
      .map(({ rule, text }) => [rule, text]),
  );
}
