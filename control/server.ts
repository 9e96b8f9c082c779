/**
 * The control socket of the running agent: HTTP and JSON over a Unix socket that only its owner may
 * open (mode 0600). It reads what a provider tells and asks for a stop; it never touches the path
 * of packets.
 *
 *     GET /status   200, what the provider returns
 *     GET /flows    200, the flow table; 400 when the question is wrong (control/flows.ts)
 *     GET /capture  frames of control/capture.ts until the client goes; 409 while another has them
 *     POST /reload  200 when the configuration was read again; 409 when nothing has changed since
 *                   the file is wrong or needs a restart; either way a ReloadAnswer
 *     POST /apply   as /reload, of the file `candidate` and for `seconds`: then it is rolled back
 *     POST /confirm, POST /rollback   200 when something was on trial, else 409; a ReloadAnswer
 *     GET /configuration   200, the agent's file and the text that is in force
 *     POST /stop    202, and the agent begins to stop
 *
 * The socket is also the lock: a live one at the same path means that an agent runs. A dead one,
 * left by a killed agent, is replaced; anything that is not a socket is left alone.
 */

import { chmodSync, existsSync, lstatSync, mkdirSync, unlinkSync } from 'node:fs';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { connect } from 'node:net';
import { dirname } from 'node:path';
import { pipeline, type Readable } from 'node:stream';
import { ControlError, errnoNameOf, socketError } from './errors.ts';

export type ReloadAnswer = {
  readonly ok: boolean;
  /** What is different now; empty unless `ok`. */
  readonly changed: readonly string[];
  /** Why nothing has changed; empty when `ok`. */
  readonly refused: readonly string[];
  readonly warnings: readonly string[];
};

export type ControlProvider = {
  status(): object;
  /** Throws RangeError with a sentence when the question is wrong. */
  flows(query: URLSearchParams): object;
  /** Read the configuration again, for connections that are known, too. Never rejects. */
  reload(reclassify: boolean): Promise<ReloadAnswer>;
  /** Put a file in force until `seconds` have passed, unless it is confirmed. Never rejects. */
  apply(candidate: string, seconds: number, reclassify: boolean): Promise<ReloadAnswer>;
  confirm(): Promise<ReloadAnswer>;
  rollback(): Promise<ReloadAnswer>;
  /**
   * Ends when it is destroyed; undefined while another one is open. Throws RangeError with a
   * sentence when the question is wrong.
   */
  capture(query: URLSearchParams): Readable | undefined;
  configuration(): { readonly file: string; readonly text: string };
  /** Begin to stop; returns at once. */
  stop(): void;
};

/** A local socket answers at once; whoever holds it without asking anything is cut off. */
const requestTimeoutMs = 5_000;
const maximumConnections = 16;

export class ControlServer {
  readonly path: string;
  private readonly server: Server;

  constructor(path: string, server: Server) {
    this.path = path;
    this.server = server;
  }

  /** Close and remove the socket. Idempotent. */
  close(): Promise<void> {
    return new Promise((resolve) => {
      this.server.close(() => resolve());
      this.server.closeAllConnections();
    });
  }
}

/** Throws a ControlError: already running, not permitted, or a path that cannot be a socket. */
export async function startControlServer(
  path: string,
  provider: ControlProvider,
): Promise<ControlServer> {
  try {
    makeDirectory(path);
    await removeStale(path);
    return new ControlServer(path, await listen(path, provider));
  } catch (error) {
    if (error instanceof ControlError) throw error;
    if (errnoNameOf(error) === 'EADDRINUSE') throw alreadyRunning(path);
    throw socketError(path, error);
  }
}

/** Only below /run, which is empty after each boot; elsewhere a missing directory is a slip. */
function makeDirectory(path: string): void {
  const directory = dirname(path);
  if (path.startsWith('/run/')) mkdirSync(directory, { recursive: true, mode: 0o755 });
  // Asked here, because Node reports a missing directory of a socket as EACCES.
  if (existsSync(directory)) return;
  throw new ControlError(
    'ERR_CONTROL_SOCKET',
    `the directory of the control socket ${path} does not exist`,
    'Make it, or choose another path by control.socket in the configuration.',
  );
}

async function removeStale(path: string): Promise<void> {
  const found = lstatSync(path, { throwIfNoEntry: false });
  if (found === undefined) return;
  if (!found.isSocket()) {
    const advice = 'Remove it, or choose another path by control.socket in the configuration.';
    throw new ControlError('ERR_CONTROL_SOCKET', `${path} exists and is not a socket`, advice);
  }
  if (await isLive(path)) throw alreadyRunning(path);
  unlinkSync(path);
}

function alreadyRunning(path: string): ControlError {
  return new ControlError(
    'ERR_ALREADY_RUNNING',
    `an agent is running already: ${path} answers`,
    'Stop it first (microperimeter stop), or give this one its own control.socket.',
  );
}

function isLive(path: string): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const socket = connect(path);
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', (error) => {
      const errno = errnoNameOf(error);
      if (errno === 'ECONNREFUSED' || errno === 'ENOENT') resolve(false);
      else reject(error);
    });
  });
}

function listen(path: string, provider: ControlProvider): Promise<Server> {
  return new Promise((resolve, reject) => {
    const server = createServer((request, response) => answer(request, response, provider));
    server.requestTimeout = requestTimeoutMs;
    server.headersTimeout = requestTimeoutMs;
    server.keepAliveTimeout = 1_000;
    server.maxConnections = maximumConnections;
    server.once('error', reject);
    // bind(2) makes the file by the umask, and listen() binds before it returns: no moment in
    // which others could connect.
    const umask = process.umask(0o177);
    try {
      server.listen(path, () => {
        server.removeListener('error', reject);
        resolve(server);
      });
    } finally {
      process.umask(umask);
    }
    if (server.listening) chmodSync(path, 0o600);
  });
}

function answer(
  request: IncomingMessage,
  response: ServerResponse,
  provider: ControlProvider,
): void {
  request.resume();
  const url = new URL(request.url ?? '/', 'http://localhost');
  const { method = '' } = request;
  const ways = routes[url.pathname];
  const way = ways?.[method];
  if (way !== undefined) way(response, provider, url.searchParams);
  else if (ways !== undefined) {
    reply(response, 405, { error: `${method} is not for ${url.pathname}` });
  } else {
    const known = Object.entries(routes).flatMap(([path, methods]) =>
      Object.keys(methods).map((one) => `${one} ${path}`),
    );
    reply(response, 404, { error: `there are ${known.join(', ')}` });
  }
}

type Way = (response: ServerResponse, provider: ControlProvider, query: URLSearchParams) => void;

const routes: Readonly<Record<string, Readonly<Record<string, Way>>>> = {
  '/status': { GET: (response, provider) => reply(response, 200, provider.status()) },
  '/flows': { GET: (response, provider, query) => replyFlows(response, query, provider) },
  '/capture': { GET: (response, provider, query) => replyCapture(response, query, provider) },
  '/configuration': { GET: (response, provider) => reply(response, 200, provider.configuration()) },
  '/reload': {
    POST: (response, provider, query) =>
      replyLater(response, provider.reload(query.has('reclassify'))),
  },
  '/apply': { POST: (response, provider, query) => replyApply(response, query, provider) },
  '/confirm': { POST: (response, provider) => replyLater(response, provider.confirm()) },
  '/rollback': { POST: (response, provider) => replyLater(response, provider.rollback()) },
  '/stop': {
    POST: (response, provider) => {
      reply(response, 202, { stopping: true });
      response.once('close', () => provider.stop());
    },
  },
};

function replyLater(response: ServerResponse, answer: Promise<ReloadAnswer>): void {
  answer.then((result) => reply(response, result.ok ? 200 : 409, result));
}

/** Longer than anybody needs to log in again; Node's timers end at 24 days. */
const longestTrialSeconds = 86_400;

function replyApply(
  response: ServerResponse,
  query: URLSearchParams,
  provider: ControlProvider,
): void {
  const candidate = query.get('candidate') ?? '';
  const seconds = Number(query.get('seconds'));
  if (!candidate.startsWith('/') || !(seconds >= 1 && seconds <= longestTrialSeconds)) {
    const error = `candidate is an absolute path, seconds from 1 to ${longestTrialSeconds}`;
    reply(response, 400, { error });
  } else replyLater(response, provider.apply(candidate, seconds, query.has('reclassify')));
}

function replyFlows(
  response: ServerResponse,
  query: URLSearchParams,
  provider: ControlProvider,
): void {
  try {
    reply(response, 200, provider.flows(query));
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    reply(response, 400, { error: error.message });
  }
}

/** For as long as the client stays. */
function replyCapture(
  response: ServerResponse,
  query: URLSearchParams,
  provider: ControlProvider,
): void {
  try {
    const stream = provider.capture(query);
    if (stream === undefined) {
      reply(response, 409, { error: 'somebody captures already; one at a time' });
      return;
    }
    response.writeHead(200, { 'content-type': 'application/octet-stream' });
    // Whichever ends first ends the other; nobody is left to be told.
    pipeline(stream, response, () => {});
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    reply(response, 400, { error: error.message });
  }
}

function reply(response: ServerResponse, status: number, value: object): void {
  const body = `${JSON.stringify(value)}\n`;
  response.writeHead(status, {
    'content-type': 'application/json',
    'content-length': Buffer.byteLength(body),
  });
  response.end(body);
}
