/**
 * Failures of the system, as a person can act on them. A packet's fate is never an error (that is
 * parsers/reason.ts); what is here stops a start, a reload or the engine, and says which call
 * failed, why, and what to do.
 */
import { constants } from 'node:os';

const nameByErrno = new Map(Object.entries(constants.errno).map(([name, value]) => [value, name]));

/** `ENODEV` for 19; `errno 4095` for what Node does not name. */
export function errnoName(errno: number): string {
  return nameByErrno.get(errno) ?? (errno === 524 ? 'ENOTSUPP' : `errno ${errno}`);
}

/** Codes are stable: documents, tests and exit codes refer to them. */
export type SystemErrorCode =
  | 'ERR_SYSTEM_CALL'
  | 'ERR_NOT_PERMITTED'
  | 'ERR_NO_TUN_DEVICE'
  | 'ERR_TUN_BUSY'
  | 'ERR_TOO_MANY_QUEUES'
  | 'ERR_NO_INTERFACE'
  | 'ERR_INTERFACE_KIND'
  | 'ERR_PORT_IN_USE'
  | 'ERR_NO_ROUTE'
  | 'ERR_UNSUPPORTED_FEATURE'
  | 'ERR_VERIFIER';

export class SystemError extends Error {
  readonly code: SystemErrorCode;
  /** The call that failed, such as `ioctl(TUNSETIFF)`; empty when no single call did. */
  readonly call: string;
  readonly errno: number;
  /** What the operator can do about it; one sentence. */
  readonly advice: string;

  constructor(
    code: SystemErrorCode,
    message: string,
    details: { call?: string; errno?: number; advice?: string } = {},
  ) {
    super(message);
    this.name = 'SystemError';
    this.code = code;
    this.call = details.call ?? '';
    this.errno = details.errno ?? 0;
    this.advice = details.advice ?? '';
  }
}

/** A failed call of which nothing better is known. EPERM and EACCES get their own code. */
export function callFailed(call: string, errno: number): SystemError {
  const permitted = errno !== constants.errno.EPERM && errno !== constants.errno.EACCES;
  if (permitted) {
    return new SystemError('ERR_SYSTEM_CALL', `${call} failed: ${errnoName(errno)}`, {
      call,
      errno,
    });
  }
  return new SystemError('ERR_NOT_PERMITTED', `${call} was not permitted (${errnoName(errno)})`, {
    call,
    errno,
    advice: 'Run as root, or with the capabilities CAP_NET_ADMIN, CAP_BPF and CAP_NET_RAW.',
  });
}

/** The kernel lacks something; found by trying, not by its version. */
export class UnsupportedFeature extends SystemError {
  readonly feature: string;
  /** First kernel that has it, such as `6.6`. */
  readonly since: string;

  constructor(feature: string, since: string, errno: number) {
    super('ERR_UNSUPPORTED_FEATURE', `this kernel has no ${feature} (${errnoName(errno)})`, {
      errno,
      advice: `It came with Linux ${since}.`,
    });
    this.name = 'UnsupportedFeature';
    this.feature = feature;
    this.since = since;
  }
}

/** The kernel's verifier refused a program: its verdict in the message, all it said in `log`. */
export class VerifierError extends SystemError {
  readonly program: string;
  readonly log: string;

  constructor(program: string, errno: number, log: string) {
    const lines = log
      .split('\n')
      .filter((line) => line.trim() !== '' && !line.startsWith('processed '));
    super(
      'ERR_VERIFIER',
      `the kernel refused the ${program} program: ${lines.at(-1) ?? errnoName(errno)}`,
      {
        call: 'bpf(BPF_PROG_LOAD)',
        errno,
        advice:
          'This is a defect of microperimeter on this kernel: please report it with the whole log.',
      },
    );
    this.name = 'VerifierError';
    this.program = program;
    this.log = log;
  }
}
