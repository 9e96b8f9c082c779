/** Probes at a firewall's own address, against servers of this machine. */
import { createServer as createHttp } from 'node:http';
import { createServer as createHttps } from 'node:https';
import { type AddressInfo, createServer as createTcp, type Server } from 'node:net';
import t, { type Test } from 'tap';
import type { ProbeConfig } from '../../engine/config.ts';
import { probeEndpoints } from '../../engine/endpoint-probe.ts';
import { firewallColumnsByteLength, openFirewallColumns } from '../../engine/firewall-columns.ts';
import { ProbeState } from '../../tunnel/firewalls.ts';
import { Certificates } from './certificates.ts';

async function listen(t: Test, server: Server): Promise<number> {
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.teardown(() => void server.close());
  return (server.address() as AddressInfo).port;
}

function watch(t: Test, parts: Partial<ProbeConfig>) {
  const memory = new SharedArrayBuffer(firewallColumnsByteLength(1));
  const columns = openFirewallColumns(memory);
  columns.probeState[0] = ProbeState.Waiting;
  const stop = new AbortController();
  const probe = { kind: 'tcp', intervalMs: 100, failures: 3, port: 1, path: '', ...parts } as const;
  const data = { probe, addresses: ['127.0.0.1'], columns: memory };
  const done = probeEndpoints(data, stop.signal);
  t.teardown(async () => {
    stop.abort();
    await done;
  });
  return {
    columns,
    async reach(state: ProbeState): Promise<number> {
      const startMs = performance.now();
      while (columns.probeState[0] !== state && performance.now() - startMs < 5000) {
        await new Promise((resolve) => setTimeout(resolve, 5));
      }
      return performance.now() - startMs;
    },
  };
}

t.test('a TCP connection is an answer, a refused one is none', async (t) => {
  const server = createTcp((socket) => socket.end());
  const port = await listen(t, server);
  const { columns, reach } = watch(t, { port });
  await reach(ProbeState.Answered);
  t.equal(columns.probeState[0], ProbeState.Answered);
  await new Promise((resolve) => setTimeout(resolve, 300));
  t.ok(columns.probesAnswered[0] >= 2);
  t.ok(columns.roundTripMs[0] > 0 && columns.roundTripMs[0] < 1000);
  server.close();
  const tookMs = await reach(ProbeState.Lost);
  t.equal(columns.probeState[0], ProbeState.Lost);
  t.ok(tookMs >= 200 && tookMs < 1500, `lost after ${Math.round(tookMs)} ms`);
});

t.test('HTTP: 2xx is an answer, whatever it says', async (t) => {
  const asked = new Set<string | undefined>();
  let status = 204;
  const port = await listen(
    t,
    createHttp((request, response) => {
      asked.add(`${request.method} ${request.url}`);
      response.writeHead(status).end(status === 200 ? Buffer.alloc(1e6) : undefined);
    }),
  );
  const { columns, reach } = watch(t, { kind: 'http', port, path: '/health?x=1' });
  await reach(ProbeState.Answered);
  t.same([...asked], ['GET /health?x=1']);
  status = 200;
  const before = columns.probesAnswered[0];
  await new Promise((resolve) => setTimeout(resolve, 300));
  t.ok(columns.probesAnswered[0] > before);
  for (const bad of [301, 404, 503]) {
    status = bad;
    await reach(ProbeState.Lost);
    t.equal(columns.probeState[0], ProbeState.Lost, String(bad));
    status = 200;
    await reach(ProbeState.Answered);
  }
});

t.test('HTTPS: a certificate of its own is good enough', async (t) => {
  const certificates = new Certificates();
  t.teardown(() => certificates.remove());
  const pair = certificates.leaf('server', certificates.authority('some'), 'DNS:other.example');
  const options = { cert: pair.certificate, key: pair.key };
  const port = await listen(
    t,
    createHttps(options, (_request, response) => response.end()),
  );
  const { columns, reach } = watch(t, { kind: 'https', port, path: '/' });
  await reach(ProbeState.Answered);
  t.equal(columns.probeState[0], ProbeState.Answered);
});

t.test('one that takes and never answers is lost, and is not flooded', async (t) => {
  let open = 0;
  let most = 0;
  const port = await listen(
    t,
    createHttp((request) => {
      open++;
      most = Math.max(most, open);
      request.once('close', () => open--);
    }),
  );
  const { columns, reach } = watch(t, { kind: 'http', port, path: '/' });
  await reach(ProbeState.Lost);
  t.equal(columns.probeState[0], ProbeState.Lost);
  await new Promise((resolve) => setTimeout(resolve, 700));
  t.ok(most >= 2 && most <= 9, `${most} at once`);
});
