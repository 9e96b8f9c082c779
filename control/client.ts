/** The other end of the control socket: one request, one answer. */
import { request as httpRequest, type IncomingMessage } from 'node:http';
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

/** An answer that comes for as long as it is read. Throws as `request`, and for other answers. */
export function openStream(socketPath: string, path: string): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    const sent = httpRequest({ socketPath, path, agent: false }, (response) => {
      if (response.statusCode === 200) return resolve(response);
      const chunks: Buffer[] = [];
      response.on('data', (chunk: Buffer) => chunks.push(chunk));
      response.on('error', (error) => reject(requestError(socketPath, error)));
      response.on('end', () => reject(refusal(Buffer.concat(chunks).toString())));
    });
    sent.on('error', (error) => reject(requestError(socketPath, error)));
    sent.end();
  });
}

/** What the agent says, in its words. */
function refusal(body: string): Error {
  const { error = 'the agent refuses' } = JSON.parse(body) as { error?: string };
  return new Error(error);
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
