/** Exit codes: documented, stable, and the only place where an error becomes a number. */
import type { ControlErrorCode } from '../control/errors.ts';
import type { RulesTooLargeError } from '../engine/classifier/tables.ts';
import type { SystemErrorCode } from '../linux/errors.ts';
import { ConfigError } from './config/parse.ts';
import { CredentialError } from './credentials.ts';

export const ExitCode = {
  /** All went well. */
  Ok: 0,
  /** Something that nobody foresaw. */
  Unexpected: 1,
  /** The command line, the configuration, or a file that it names, is wrong. */
  Usage: 2,
  /** Root, or some capabilities, are needed. */
  NotPermitted: 3,
  /** The system lacks something: /dev/net/tun, TCX or clsact, a program that the kernel accepts. */
  Unsupported: 4,
  /** An interface, a port, a route or the TUN device: missing, of the wrong kind, or taken. */
  Network: 5,
  /** There is no agent to speak to. */
  NotRunning: 6,
  /** An agent with this control socket runs already. */
  AlreadyRunning: 7,
  /** The agent runs and does not redirect. */
  NotRedirecting: 8,
  /** Something is broken: `doctor` says what. */
  Unhealthy: 9,
} as const;
export type ExitCode = (typeof ExitCode)[keyof typeof ExitCode];

const codes: Readonly<
  Record<SystemErrorCode | ControlErrorCode | 'ERR_USAGE' | RulesTooLargeError['code'], ExitCode>
> = {
  ERR_USAGE: ExitCode.Usage,
  // More rules than the compiled form has room for, or the compiler time.
  RULES_TOO_LARGE: ExitCode.Usage,
  RULES_TOO_SLOW: ExitCode.Usage,
  ERR_SYSTEM_CALL: ExitCode.Unexpected,
  ERR_NOT_PERMITTED: ExitCode.NotPermitted,
  ERR_NO_TUN_DEVICE: ExitCode.Unsupported,
  ERR_UNSUPPORTED_FEATURE: ExitCode.Unsupported,
  ERR_VERIFIER: ExitCode.Unsupported,
  ERR_TUN_BUSY: ExitCode.Network,
  ERR_TOO_MANY_QUEUES: ExitCode.Usage,
  ERR_NO_INTERFACE: ExitCode.Network,
  ERR_INTERFACE_KIND: ExitCode.Network,
  ERR_PORT_IN_USE: ExitCode.Network,
  ERR_NO_ROUTE: ExitCode.Network,
  ERR_NOT_RUNNING: ExitCode.NotRunning,
  ERR_ALREADY_RUNNING: ExitCode.AlreadyRunning,
  ERR_CONTROL_NOT_PERMITTED: ExitCode.NotPermitted,
  ERR_CONTROL_SOCKET: ExitCode.Unexpected,
  ERR_LISTEN_ADDRESS: ExitCode.Network,
};

export function exitCodeOf(error: unknown): ExitCode {
  if (error instanceof ConfigError || error instanceof CredentialError) return ExitCode.Usage;
  const code = (error as { code?: unknown } | null)?.code;
  const known = typeof code === 'string' && Object.hasOwn(codes, code);
  return known ? codes[code as keyof typeof codes] : ExitCode.Unexpected;
}

/** For `--help`. */
export const exitCodeHelp = `
Exit codes:
  0  all went well
  1  something unexpected
  2  the command line, the configuration or a file that it names is wrong
  3  not permitted: root or capabilities are needed
  4  the system lacks something (TUN, TCX or clsact)
  5  an interface, port or route is missing or taken
  6  no agent is running
  7  an agent is running already
  8  the agent runs and does not redirect (status, health_check)
  9  something is broken (doctor)`;
