/**
 * `microperimeter check`: is this file a good configuration, and is it what was meant? Works on any
 * host, needs no root.
 */
import { compile } from '../../engine/classifier/compile.ts';
import type { Config } from '../../engine/config.ts';
import { readConfigFile } from '../config/file.ts';
import { formatProblem } from '../config/parse.ts';
import { formatAddress } from '../config/text.ts';
import { CredentialError, loadCredentials } from '../credentials.ts';
import { ExitCode } from '../exit-codes.ts';
import { formatBytes } from '../table.ts';

/** Throws a ConfigError with every problem. Files that the agent's host must have are warnings. */
export function check(file: string): number {
  const { config, warnings } = readConfigFile(file);
  const tables = compile(config.rules);
  for (const warning of warnings) warn(formatProblem(file, warning));
  try {
    loadCredentials(config.firewalls[0]!.telemetry);
  } catch (error) {
    if (!(error instanceof CredentialError)) throw error;
    warn(`${error.message}\n  ${error.advice}`);
  }
  process.stdout.write(
    `${file} is good: ${describe(config)}\n` +
      `${describeRules(config)}; compiled to ${formatBytes(tables.words.byteLength)}\n`,
  );
  return ExitCode.Ok;
}

function warn(message: string): void {
  process.stderr.write(`microperimeter: warning: ${message}\n`);
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
