/** The other end of the control socket: one request, one answer. */
import { request as httpRequest } from 'node:http';
import { ControlError, errnoNameOf, socketError } from './errors.ts';

export type ControlAnswer = { readonly status: number; readonly body: unknown };

/** The agent answers from its main thread, which never waits for packets. */
const answerTimeoutMs = 5_000;

/** Throws a ControlError: not running, not permitted, or no answer within `timeoutMs`. */
export function request(
  socketPath: string,
  method: string,
  path: string,
  timeoutMs = answerTimeoutMs,
): Promise<ControlAnswer> {
  return new Promise((resolve, reject) => {
    const signal = AbortSignal.timeout(timeoutMs);
    const sent = httpRequest({ socketPath, method, path, agent: false, signal }, (response) => {
      const chunks: Buffer[] = [];
      response.on('data', (chunk: Buffer) => chunks.push(chunk));
      response.on('error', (error) => reject(requestError(socketPath, error)));
      response.on('end', () => {
        try {
          const body: unknown = JSON.parse(Buffer.concat(chunks).toString());
          resolve({ status: response.statusCode ?? 0, body });
        } catch (error) {
          reject(socketError(socketPath, error));
        }
      });
    });
    sent.on('error', (error) => reject(requestError(socketPath, error)));
    sent.end();
  });
}

function requestError(socketPath: string, error: unknown): ControlError {
  const errno = errnoNameOf(error);
  if (errno === 'ENOENT' || errno === 'ECONNREFUSED') {
    return new ControlError(
      'ERR_NOT_RUNNING',
      `no agent is running: nothing answers at ${socketPath}`,
      'Start one with microperimeter run, or say by --socket where its control socket is.',
    );
  }
  if (errno === 'ABORT_ERR' || errno === 'ECONNRESET') {
    return new ControlError(
      'ERR_CONTROL_SOCKET',
      `the agent at ${socketPath} does not answer`,
      'Its log tells what it is doing.',
    );
  }
  return socketError(socketPath, error);
}
