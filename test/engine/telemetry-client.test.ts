import { once } from 'node:events';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { createServer, type ServerOptions } from 'node:https';
import { type AddressInfo, createServer as createTcpServer, type Server } from 'node:net';
import { connect } from 'node:tls';
import t from 'tap';
import { GateCause, gateCauseNames } from '../../engine/gate.ts';
import { TelemetryClient, type TelemetryCredentials } from '../../engine/telemetry-client.ts';
import { Certificates, pinOf } from './certificates.ts';

const certificates = new Certificates();
const authority = certificates.authority('authority');
const stranger = certificates.authority('stranger');
const server = certificates.leaf('server', authority, 'IP:127.0.0.1');
const elsewhere = certificates.leaf('elsewhere', authority, 'IP:127.0.0.9,DNS:localhost');
const ours = certificates.leaf('ours', authority, 'DNS:agent');
const theirs = certificates.leaf('theirs', stranger, 'DNS:agent');
t.teardown(() => certificates.remove());

const byAuthority: TelemetryCredentials = {
  ca: authority.certificate,
  pin: '',
  clientCertificate: '',
  clientKey: '',
};

type Handler = (request: IncomingMessage, response: ServerResponse) => void;
type Teardown = { teardown(what: () => void): unknown };
type Seen = { connections: number; requests: number; bodies: string[] };

async function listen(tcp: Server): Promise<string> {
  await new Promise<void>((resolve) => tcp.listen(0, '127.0.0.1', resolve));
  return `https://127.0.0.1:${(tcp.address() as AddressInfo).port}/v1/metrics`;
}

async function serve(t: Teardown, handler: Handler, options: ServerOptions = {}) {
  const seen: Seen = { connections: 0, requests: 0, bodies: [] };
  const pair = { cert: server.certificate, key: server.key };
  const https = createServer({ ...pair, ...options }, (request, response) => {
    seen.requests++;
    let body = '';
    request.on('data', (chunk) => {
      body += chunk;
    });
    request.on('end', () => {
      seen.bodies.push(body);
      handler(request, response);
    });
  });
  https.on('connection', () => seen.connections++);
  const url = await listen(https);
  t.teardown(() => {
    https.close();
    https.closeAllConnections();
  });
  return { url, seen, https };
}

const timeoutMs = 400;
const body = Buffer.from('{"resourceMetrics":[]}');

async function post(t: Teardown, url: string, credentials = byAuthority) {
  const client = new TelemetryClient(url, credentials);
  t.teardown(() => client.close());
  const startMs = performance.now();
  const failure = await client.post(body, 'application/json', timeoutMs);
  const tookMs = performance.now() - startMs;
  const cause = failure === undefined ? 'delivered' : gateCauseNames[failure.cause]!;
  return { client, failure, cause, tookMs };
}

const ok: Handler = (_request, response) => response.end('{}');

t.test('what the endpoint answers', async (t) => {
  const status =
    (code: number, headers = {}): Handler =>
    (_request, response) =>
      response.writeHead(code, headers).end('{}');
  const partial: Handler = (_request, response) =>
    response.end('{"partialSuccess":{"rejectedDataPoints":"5","errorMessage":"too old"}}');
  const chunked: Handler = (_request, response) => {
    response.write('{');
    setTimeout(() => response.end('}'), 20);
  };
  const long: Handler = (_request, response) => response.end('x'.repeat(100_000));
  const hang: Handler = () => {};
  const drip: Handler = (_request, response) => {
    response.writeHead(200);
    const timer = setInterval(() => response.write('.'), 50);
    response.on('close', () => clearInterval(timer));
  };
  const half: Handler = (_request, response) => {
    response.writeHead(200, { 'content-length': 10 });
    response.write('half', () => response.destroy());
  };
  const rows: [string, Handler, cause: string, detail: number][] = [
    ['200', ok, 'delivered', 0],
    ['204 without a body', status(204), 'delivered', 0],
    ['a partial success', partial, 'delivered', 0],
    ['an answer in chunks', chunked, 'delivered', 0],
    ['429, to be asked later', status(429, { 'retry-after': '1' }), 'telemetry-refused', 429],
    ['503, to be asked later', status(503, { 'retry-after': '3600' }), 'telemetry-refused', 503],
    ['500', status(500), 'telemetry-refused', 500],
    ['404', status(404), 'telemetry-refused', 404],
    ['a redirect', status(307, { location: 'https://127.0.0.1/' }), 'telemetry-refused', 307],
    ['100 KB of answer', long, 'telemetry-answer', 0],
    ['no answer', hang, 'telemetry-timeout', 0],
    ['an answer that drips', drip, 'telemetry-timeout', 0],
    ['half an answer', half, 'telemetry-unreachable', 0],
  ];
  for (const [name, handler, cause, detail] of rows) {
    const { url, seen } = await serve(t, handler);
    const result = await post(t, url);
    t.equal(result.cause, cause, name);
    t.equal(result.failure?.detail ?? 0, detail);
    t.ok(result.tookMs < timeoutMs + 200, `${name}: within its time`);
    t.same(seen.bodies, [body.toString()], `${name}: asked once, with the body`);
  }
});

t.test('a redirect is told, and a proxy not used', async (t) => {
  const other = await serve(t, ok);
  const location = `${other.url}/${'x'.repeat(500)}`;
  const { url } = await serve(t, (_request, response) =>
    response.writeHead(308, { location }).end(),
  );
  const { failure } = await post(t, url);
  t.match(
    failure?.message,
    /^HTTP status 308: a redirect to https:.{0,200}, which is not followed$/,
  );
  for (const name of ['HTTPS_PROXY', 'https_proxy', 'ALL_PROXY']) {
    process.env[name] = other.url;
    t.teardown(() => delete process.env[name]);
  }
  const direct = await serve(t, ok);
  t.equal((await post(t, direct.url)).cause, 'delivered');
  t.equal(direct.seen.requests, 1);
  t.equal(other.seen.connections, 0, 'nobody asked the other one');
});

t.test('who the endpoint is', async (t) => {
  const pinned = (pin: string) => ({ ...byAuthority, ca: '', pin });
  const rows: [string, TelemetryCredentials, typeof server, cause: string][] = [
    ['another authority', { ...byAuthority, ca: stranger.certificate }, server, 'certificate'],
    ['another name', byAuthority, elsewhere, 'certificate'],
    ['signed by itself', byAuthority, stranger, 'certificate'],
    ['the pinned key', pinned(pinOf(server)), server, 'delivered'],
    ['the pinned key, whatever the name', pinned(pinOf(elsewhere)), elsewhere, 'delivered'],
    ['another key than the pinned one', pinned(pinOf(stranger)), server, 'certificate'],
  ];
  process.env.NODE_TLS_REJECT_UNAUTHORIZED = '0';
  t.teardown(() => delete process.env.NODE_TLS_REJECT_UNAUTHORIZED);
  for (const [name, credentials, pair, expected] of rows) {
    const { url, seen } = await serve(t, ok, { cert: pair.certificate, key: pair.key });
    const { cause } = await post(t, url, credentials);
    t.equal(cause, expected === 'delivered' ? expected : `telemetry-${expected}`, name);
    t.equal(seen.requests, expected === 'delivered' ? 1 : 0, `${name}: nothing sent before`);
  }
});

t.test('who we are', async (t) => {
  const demanding = { ca: authority.certificate, requestCert: true, rejectUnauthorized: true };
  const as = (pair: typeof ours) => ({
    ...byAuthority,
    clientCertificate: pair.certificate,
    clientKey: pair.key,
  });
  const { url } = await serve(t, ok, demanding);
  t.equal((await post(t, url, as(ours))).cause, 'delivered');
  for (const maxVersion of ['TLSv1.2', 'TLSv1.3'] as const) {
    const { url, seen } = await serve(t, ok, { ...demanding, maxVersion });
    for (const credentials of [byAuthority, as(theirs)]) {
      const { cause, failure } = await post(t, url, credentials);
      t.match(
        cause,
        /client-certificate|protocol|unreachable/,
        `${maxVersion}: ${failure?.message}`,
      );
    }
    t.equal(seen.requests, 0);
  }
});

t.test('what is no HTTPS at all', async (t) => {
  const plain = createTcpServer((socket) => socket.end('HTTP/1.1 200 OK\r\n\r\n'));
  const silent = createTcpServer(() => {});
  const hangUp = createTcpServer((socket) => socket.destroy());
  for (const [tcp, cause] of [
    [plain, 'telemetry-protocol'],
    [silent, 'telemetry-timeout'],
    [hangUp, 'telemetry-unreachable'],
  ] as const) {
    tcp.on('connection', (socket) => {
      socket.on('error', () => {});
      t.teardown(() => socket.destroy());
    });
    const url = await listen(tcp);
    t.teardown(() => tcp.close());
    t.equal((await post(t, url)).cause, cause);
  }
  const gone = createTcpServer();
  const url = await listen(gone);
  await new Promise((resolve) => gone.close(resolve));
  const { cause, failure } = await post(t, url);
  t.equal(cause, 'telemetry-unreachable');
  t.equal(failure?.cause, GateCause.TelemetryUnreachable);
  t.match(failure?.message, /ECONNREFUSED/);
});

t.test('nothing is told over TLS 1.1', async (t) => {
  const old = { minVersion: 'TLSv1', ciphers: 'DEFAULT@SECLEVEL=0' } as const;
  const { seen, url } = await serve(t, ok, { ...old, maxVersion: 'TLSv1.1' });
  const { cause } = await post(t, url);
  t.equal(cause, 'telemetry-protocol');
  t.equal(seen.requests, 0);

  const { hostname, port } = new URL(url);
  const willing = connect({
    host: hostname,
    port: Number(port),
    ca: authority.certificate,
    ...old,
  });
  t.teardown(() => willing.destroy());
  await once(willing, 'secureConnect');
  t.equal(willing.getProtocol(), 'TLSv1.1', 'the endpoint does speak it');
});

t.test('one connection for many posts; one that went stale is replaced unnoticed', async (t) => {
  const { url, seen, https } = await serve(t, ok);
  const { client } = await post(t, url);
  const again = () => client.post(body, 'application/json', timeoutMs);
  t.equal(await again(), undefined);
  t.equal(seen.connections, 1);
  // Closed by the endpoint just as it is used: the request is on its way, then the reset comes.
  https.closeIdleConnections();
  t.equal(await again(), undefined);
  t.match(seen, { connections: 2, requests: 3 });
});

t.test('a cancelled attempt ends at once', async (t) => {
  const { url } = await serve(t, () => {});
  const client = new TelemetryClient(url, byAuthority);
  const startMs = performance.now();
  setTimeout(() => client.cancel(), 50);
  t.ok(await client.post(body, 'application/json', 5_000));
  t.ok(performance.now() - startMs < 1_000);
  client.close();
});
