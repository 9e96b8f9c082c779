/**
 * Failures of the control socket, on either end, and of the metrics page. Codes are stable: exit
 * codes refer to them.
 */

export type ControlErrorCode =
  | 'ERR_NOT_RUNNING'
  | 'ERR_ALREADY_RUNNING'
  | 'ERR_CONTROL_NOT_PERMITTED'
  | 'ERR_CONTROL_SOCKET'
  | 'ERR_LISTEN_ADDRESS';

export class ControlError extends Error {
  readonly code: ControlErrorCode;
  /** What the operator can do about it; one sentence. */
  readonly advice: string;

  constructor(code: ControlErrorCode, message: string, advice: string) {
    super(message);
    this.name = 'ControlError';
    this.code = code;
    this.advice = advice;
  }
}

export function errnoNameOf(error: unknown): string {
  const code = (error as { code?: unknown }).code;
  return typeof code === 'string' ? code : '';
}

/** An error of Node's about the socket file or its directory, in our words. */
export function socketError(path: string, error: unknown): ControlError {
  const errno = errnoNameOf(error);
  if (errno === 'EACCES' || errno === 'EPERM') {
    const message = `the control socket ${path} is not open to this user (${errno})`;
    return new ControlError('ERR_CONTROL_NOT_PERMITTED', message, 'Run as root.');
  }
  const words = error instanceof Error ? error.message : String(error);
  const advice = 'Choose another path by control.socket in the configuration.';
  return new ControlError(
    'ERR_CONTROL_SOCKET',
    `the control socket ${path} fails: ${words}`,
    advice,
  );
}
