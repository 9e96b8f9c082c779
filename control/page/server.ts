/**
 * The status page: what `status` and `flows` tell, in a browser on this host or at the other end of
 * an SSH tunnel. It listens on loopback only. Other pages in the same browser must not read it: no
 * other Host is answered (a name that is made to resolve here), nothing is allowed across origins,
 * and its own scripts come from files. It changes nothing but with a token.
 *
 *     GET /, /page.css, /page.js
 *     GET /api/status     the agent's status, and whether there is a token
 *     GET /api/flows      as control/server.ts has it, at most 200
 *     GET /api/explain    protocol, from, to, direction
 *     POST /api/reload    Authorization: Bearer TOKEN
 */
import { timingSafeEqual } from 'node:crypto';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { closeServer, listen } from '../listen.ts';
import type { ReloadAnswer } from '../server.ts';
import { html } from './html.ts';
import { script } from './script.ts';
import { style } from './style.ts';

export type PageProvider = {
  status(): object;
  /** Throws RangeError with a sentence when the question is wrong. */
  flows(query: URLSearchParams): object;
  /** Rejects with what is wrong with the question. */
  explain(words: readonly string[], direction: string): Promise<object>;
  reload(): Promise<ReloadAnswer>;
};

export type PageOptions = {
  /** Of 127.0.0.0/8. */
  readonly address: string;
  readonly port: number;
  /** Undefined: read only. */
  readonly token: string | undefined;
};

const headers: Readonly<Record<string, string>> = {
  'content-security-policy':
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src data:; " +
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
  'cross-origin-resource-policy': 'same-origin',
  'x-content-type-options': 'nosniff',
  'referrer-policy': 'no-referrer',
  'cache-control': 'no-store',
};
const files: Readonly<Record<string, readonly [type: string, text: string]>> = {
  '/': ['text/html; charset=utf-8', html],
  '/page.css': ['text/css; charset=utf-8', style],
  '/page.js': ['text/javascript; charset=utf-8', script],
};
const requestTimeoutMs = 5_000;
const maximumConnections = 16;
const maximumFlows = 200;

/** Throws a ControlError when the address or the port cannot be had. */
export async function startPage(
  options: PageOptions,
  provider: PageProvider,
): Promise<{ close(): Promise<void> }> {
  const server = createServer((request, response) => {
    request.resume();
    const host = request.headers.host ?? '';
    if (!isOurs(host, options.address)) {
      return reply(response, 421, { error: `this is not ${host}` });
    }
    answer(request, response, provider, options.token).catch((error: Error) =>
      reply(response, 400, { error: error.message }),
    );
  });
  server.requestTimeout = requestTimeoutMs;
  server.headersTimeout = requestTimeoutMs;
  server.maxConnections = maximumConnections;
  await listen(server, options.address, options.port, 'the status page', 'control.http.listen');
  return { close: () => closeServer(server) };
}

/** Whether a browser may call it so: by its address or as its own host, whatever the port. */
function isOurs(host: string, address: string): boolean {
  const name = host.toLowerCase().replace(/:\d+$/, '');
  return [address, 'localhost', '127.0.0.1', '[::1]'].includes(name);
}

async function answer(
  request: IncomingMessage,
  response: ServerResponse,
  provider: PageProvider,
  token: string | undefined,
): Promise<void> {
  const { pathname, searchParams } = new URL(request.url ?? '/', 'http://localhost');
  const { method } = request;
  const file = files[pathname];
  if (method === 'GET' && file !== undefined) return send(response, 200, ...file);
  if (method === 'GET' && pathname === '/api/status') {
    return reply(response, 200, { status: provider.status(), writable: token !== undefined });
  }
  if (method === 'GET' && pathname === '/api/flows') {
    const limit = Number(searchParams.get('limit') ?? maximumFlows);
    if (!(limit <= maximumFlows)) throw new RangeError(`limit is ${maximumFlows} at most`);
    return reply(response, 200, provider.flows(searchParams));
  }
  if (method === 'GET' && pathname === '/api/explain') {
    const of = (name: string) => (searchParams.get(name) ?? '').trim();
    const words = [of('protocol'), of('from'), 'to', of('to')];
    return reply(response, 200, await provider.explain(words, of('direction')));
  }
  if (method === 'POST' && pathname === '/api/reload') {
    if (token === undefined)
      return reply(response, 403, { error: 'control.http has no tokenFile' });
    if (!isToken(request.headers.authorization, token)) {
      return reply(response, 401, { error: 'the token is not the one in control.http.tokenFile' });
    }
    return reply(response, 200, await provider.reload());
  }
  const isKnown = files[pathname] !== undefined || pathname.startsWith('/api/');
  reply(response, isKnown ? 405 : 404, { error: `there is no ${method} ${pathname}` });
}

/** Takes as long whatever is wrong with it, but for its length. */
function isToken(header: string | undefined, token: string): boolean {
  const given = Buffer.from(/^Bearer (.*)$/i.exec(header ?? '')?.[1] ?? '');
  const wanted = Buffer.from(token);
  return given.length === wanted.length && timingSafeEqual(given, wanted);
}

function reply(response: ServerResponse, status: number, value: object): void {
  send(response, status, 'application/json', `${JSON.stringify(value)}\n`);
}

function send(response: ServerResponse, status: number, type: string, text: string): void {
  const length = Buffer.byteLength(text);
  response.writeHead(status, { ...headers, 'content-type': type, 'content-length': length });
  response.end(text);
}
