/**
 * `microperimeter check`: is this file a good configuration, and is it what was meant? Works on any
 * host, needs no root.
 */
import { compile } from '../../engine/classifier/compile.ts';
import type { Config } from '../../engine/config.ts';
import { readConfigFile } from '../config/file.ts';
import { ConfigError, formatProblem, type Problem } from '../config/parse.ts';
import { formatAddress } from '../config/text.ts';
import { CredentialError, loadCredentials } from '../credentials.ts';
import { ExitCode } from '../exit-codes.ts';
import { formatBytes } from '../table.ts';

type CheckOptions = {
  readonly json: boolean;
  /** Whether to show what may well be meant: a rule that the default makes needless, say. */
  readonly notes: boolean;
};

type Checked = {
  readonly config: Config;
  readonly warnings: readonly Problem[];
  /** Of the compiled rules. */
  readonly bytes: number;
};

/** Throws a ConfigError with every problem. Files that the agent's host must have are warnings. */
export function check(file: string, options: CheckOptions): number {
  if (options.json) return checkJson(file);
  const { config, warnings, bytes } = read(file);
  for (const warning of warnings) {
    process.stderr.write(`microperimeter: warning: ${formatProblem(file, warning)}\n`);
  }
  process.stdout.write(
    `${file} is good: ${describe(config)}\n` +
      `${describeRules(config)}; compiled to ${formatBytes(bytes)}\n`,
  );
  return ExitCode.Ok;
}

function read(file: string): Checked {
  const { config, warnings } = readConfigFile(file);
  const bytes = compile(config.rules).words.byteLength;
  return { config, warnings: [...warnings, ...credentialWarnings(config)], bytes };
}

/** The answer is JSON on standard output, also when the file is wrong. */
function checkJson(file: string): number {
  let answer: object;
  let code: ExitCode = ExitCode.Ok;
  try {
    const { config, warnings, bytes } = read(file);
    const tables = { rules: config.rules.length, bytes };
    answer = { ok: true, problems: [], warnings, tables };
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    answer = { ok: false, problems: error.problems, warnings: [] };
    code = ExitCode.Usage;
  }
  process.stdout.write(`${JSON.stringify(answer, null, 2)}\n`);
  return code;
}

/** They have no line: what is wrong is another file, perhaps on another host. */
function credentialWarnings(config: Config): readonly Problem[] {
  try {
    loadCredentials(config.firewalls[0]!.telemetry);
    return [];
  } catch (error) {
    if (!(error instanceof CredentialError)) throw error;
    const message = `${error.message}\n  ${error.advice}`;
    return [{ line: 0, column: 0, key: 'firewalls[0].telemetry', message }];
  }
}

function describe({ firewalls, tunnel, workload }: Config): string {
  const firewall = firewalls[0]!;
  const { interfaces } = workload;
  const what = interfaces.length === 0 ? "the default route's interface" : interfaces.join(', ');
  const where = `${firewall.name} (${formatAddress(firewall.address)})`;
  return `${what} through ${where} by ${tunnel.encapsulation} on port ${tunnel.port}`;
}

function describeRules({ default: action, policy, rules }: Config): string {
  const count = rules.length === 1 ? '1 rule' : `${rules.length} rules`;
  const observe = policy.mode === 'observe' ? ', observed only' : '';
  const share = policy.rolloutPercent < 100 ? ` for ${policy.rolloutPercent}% of new flows` : '';
  return `${count}, else ${action}${observe}${share}`;
}
