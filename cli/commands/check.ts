/**
 * `microperimeter check`: is this file a good configuration, and is it what was meant? Works on any
 * host, needs no root.
 */
import { compile } from '../../engine/classifier/compile.ts';
import { type Finding, lint } from '../../engine/classifier/lint.ts';
import type { Config } from '../../engine/config.ts';
import { formatAddress } from '../../parsers/text.ts';
import { readConfigFile } from '../config/file.ts';
import { ConfigError, formatProblem, type Problem } from '../config/parse.ts';
import { verdicts } from '../config/rules.ts';
import { CredentialError, loadCredentials } from '../credentials.ts';
import { ExitCode } from '../exit-codes.ts';
import { describeScan } from '../explain/decide.ts';
import { builtInsOf } from '../host-policy.ts';
import { noLinks } from '../links.ts';
import { formatBytes } from '../table.ts';

type CheckOptions = {
  readonly json: boolean;
  /** Whether to show what may well be meant: a rule that the default makes needless, say. */
  readonly notes: boolean;
};

type Checked = {
  readonly config: Config;
  readonly warnings: readonly Problem[];
  /** Worth a look, and perhaps meant. */
  readonly notes: readonly Problem[];
  /** Of the compiled rules. */
  readonly bytes: number;
  /** How they are looked up, when that is slow; else empty. */
  readonly lookUp: string;
};

/** Throws a ConfigError with every problem. Files that the agent's host must have are warnings. */
export function check(file: string, options: CheckOptions): number {
  if (options.json) return checkJson(file);
  const { config, warnings, notes, bytes, lookUp } = read(file);
  print('warning', file, warnings);
  if (options.notes) print('note', file, notes);
  else if (notes.length > 0) {
    const count = notes.length === 1 ? 'a note' : `${notes.length} notes`;
    process.stderr.write(`microperimeter: ${count} on the rules: check --notes shows them\n`);
  }
  process.stdout.write(
    `${file} is good: ${describe(config)}\n` +
      `${describeRules(config)}; compiled to ${formatBytes(bytes)}\n` +
      (lookUp === '' ? '' : `new connections are looked up in ${lookUp}\n`),
  );
  return ExitCode.Ok;
}

/** A generated file may have as many as it has rules. */
const shownLines = 50;

function print(kind: string, file: string, problems: readonly Problem[]): void {
  const lines = problems
    .slice(0, shownLines)
    .map((problem) => `microperimeter: ${kind}: ${formatProblem(file, problem)}\n`);
  const more = problems.length - lines.length;
  if (more > 0) lines.push(`microperimeter: and ${more} more (--json has all)\n`);
  process.stderr.write(lines.join(''));
}

function read(file: string): Checked {
  const source = readConfigFile(file);
  const { config, warnings } = source;
  const compiled = compile(config.rules);
  const found = lint(config.rules, {
    // Broadcast addresses are the host's, and no rule is wrong for what it says of them.
    builtIns: builtInsOf(config, noLinks),
    default: verdicts[config.default],
  });
  const problemsOf = (severity: Finding['severity']) =>
    found
      .filter((finding) => finding.severity === severity)
      .map(({ rule, text }): Problem => {
        const { line, column } = source.placeOf(['rules', rule]);
        return { line, column, key: `rules[${rule}]`, message: text };
      });
  const all = [...warnings, ...problemsOf('warning'), ...credentialWarnings(config)];
  const bytes = compiled.words.byteLength;
  return {
    config,
    warnings: all,
    notes: problemsOf('note'),
    bytes,
    lookUp: describeScan(compiled),
  };
}

/** The answer is JSON on standard output, also when the file is wrong. */
function checkJson(file: string): number {
  let answer: object;
  let code: ExitCode = ExitCode.Ok;
  try {
    const { config, warnings, notes, bytes, lookUp } = read(file);
    const tables = { rules: config.rules.length, bytes, lookUp };
    answer = { ok: true, problems: [], warnings, notes, tables };
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    answer = { ok: false, problems: error.problems, warnings: [], notes: [] };
    code = ExitCode.Usage;
  }
  process.stdout.write(`${JSON.stringify(answer, null, 2)}\n`);
  return code;
}

/** They have no line: what is wrong is another file, perhaps on another host. */
function credentialWarnings(config: Config): readonly Problem[] {
  return config.firewalls.flatMap(({ telemetry }, index): Problem[] => {
    try {
      loadCredentials(telemetry);
      return [];
    } catch (error) {
      if (!(error instanceof CredentialError)) throw error;
      const message = `${error.message}\n  ${error.advice}`;
      return [{ line: 0, column: 0, key: `firewalls[${index}].telemetry`, message }];
    }
  });
}

function describe({ firewalls, ha, tunnel, workload }: Config): string {
  const { interfaces } = workload;
  const what = interfaces.length === 0 ? "the default route's interface" : interfaces.join(', ');
  const names = firewalls.map(({ address, name }) => `${name} (${formatAddress(address)})`);
  const where = names.join(ha.distribution === 'flow-hash' ? ' and ' : ', else ');
  return `${what} through ${where} by ${tunnel.encapsulation} on port ${tunnel.port}`;
}

function describeRules({ default: action, policy, rules }: Config): string {
  const count = rules.length === 1 ? '1 rule' : `${rules.length} rules`;
  const observe = policy.mode === 'observe' ? ', observed only' : '';
  const share = policy.rolloutPercent < 100 ? ` for ${policy.rolloutPercent}% of new flows` : '';
  return `${count}, else ${action}${observe}${share}`;
}
