/** `microperimeter check`: is this file a good configuration? Works on any host, needs no root. */
import { loadConfig } from '../config/file.ts';
import { formatAddress } from '../config/text.ts';
import { CredentialError, loadCredentials } from '../credentials.ts';
import { ExitCode } from '../exit-codes.ts';

/** Throws a ConfigError with every problem. Files that the agent's host must have are warnings. */
export function check(file: string): number {
  const config = loadConfig(file);
  const firewall = config.firewalls[0]!;
  try {
    loadCredentials(firewall.telemetry);
  } catch (error) {
    if (!(error instanceof CredentialError)) throw error;
    process.stderr.write(`microperimeter: warning: ${error.message}\n  ${error.advice}\n`);
  }
  const { interfaces } = config.workload;
  const what = interfaces.length === 0 ? "the default route's interface" : interfaces.join(', ');
  const { encapsulation, port } = config.tunnel;
  process.stdout.write(
    `${file} is good: ${what} through ${firewall.name} ` +
      `(${formatAddress(firewall.address)}) by ${encapsulation} on port ${port}\n`,
  );
  return ExitCode.Ok;
}
