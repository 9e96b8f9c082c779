import { createServer, type Server } from 'node:https';
import type { AddressInfo } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import t from 'tap';
import { leaseMs } from '../../engine/config.ts';
import { countersByteLength, openPublishedCounters } from '../../engine/counters.ts';
import { createGates } from '../../engine/gate.ts';
import type { StateChange } from '../../engine/telemetry.ts';
import { TelemetryThread, type TelemetryWorkerData } from '../../engine/telemetry-thread.ts';
import { Reason } from '../../parsers/reason.ts';
import { Certificates } from './certificates.ts';

const certificates = new Certificates();
const authority = certificates.authority('authority');
const pair = certificates.leaf('server', authority, 'IP:127.0.0.1');
t.teardown(() => certificates.remove());

const schedule = { intervalMs: 400, timeoutMs: 400, retries: 2, startupGraceMs: 0 };
const boundMs = leaseMs(schedule);
/** What a busy test machine may add. */
const marginMs = 500;

/** The parts of OTLP's JSON form that are looked at, as the specification spells them. */
type Value = { stringValue?: string; doubleValue?: number };
type Attribute = { key: string; value: Value };
type Point = {
  attributes: Attribute[];
  asInt?: number | string;
  asDouble?: number;
  timeUnixNano: string;
  startTimeUnixNano: string;
};
type Metric = {
  name: string;
  unit: string;
  sum?: { aggregationTemporality: number; isMonotonic: boolean; dataPoints: Point[] };
  gauge?: { dataPoints: Point[] };
};
type Body = {
  resourceMetrics: {
    resource: { attributes: Attribute[] };
    scopeMetrics: { scope: { name: string; version: string }; metrics: Metric[] }[];
  }[];
};

function now(): number {
  const [seconds, nanoseconds] = process.hrtime();
  return seconds * 1000 + nanoseconds / 1e6;
}

async function until(condition: () => boolean, limitMs: number): Promise<number> {
  const startMs = now();
  while (!condition() && now() - startMs < limitMs) await sleep(5);
  return now() - startMs;
}

async function firewall(mode: { hang: boolean; status: number }) {
  const bodies: Body[] = [];
  const server: Server = createServer(
    { cert: pair.certificate, key: pair.key },
    (request, response) => {
      let text = '';
      request.on('data', (chunk) => {
        text += chunk;
      });
      request.on('end', () => {
        bodies.push(JSON.parse(text) as Body);
        if (!mode.hang) response.writeHead(mode.status).end('{}');
      });
    },
  );
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const kill = () => {
    server.close();
    server.closeAllConnections();
  };
  const { port } = server.address() as AddressInfo;
  return { url: `https://127.0.0.1:${port}/v1/metrics`, bodies, kill };
}

function target(url: string, firewall: string): TelemetryWorkerData['targets'][number] {
  return {
    url,
    credentials: { ca: authority.certificate, pin: '', clientCertificate: '', clientKey: '' },
    identity: {
      version: '0.1.0',
      host: 'workload',
      instance: 'instance-1',
      firewall,
      startedMs: 1_700_000_000_000,
    },
  };
}

function start(url: string, overrides: Partial<TelemetryWorkerData> = {}) {
  const [gate] = createGates(1);
  const counters = new SharedArrayBuffer(countersByteLength);
  const changes: StateChange[] = [];
  const deaths: string[] = [];
  const data: TelemetryWorkerData = {
    targets: [target(url, 'fw-a')],
    schedule,
    gates: gate.shared,
    counters,
    ...overrides,
  };
  const thread = new TelemetryThread(data, [gate], {
    change: (_firewall, change) => changes.push(change),
    died: (message) => deaths.push(message),
    failed: (message) => deaths.push(`failed: ${message}`),
  });
  return { gate, thread, changes, deaths, counters: openPublishedCounters(counters) };
}

function metric(body: Body, name: string): Metric | undefined {
  return body.resourceMetrics[0]?.scopeMetrics[0]?.metrics.find((entry) => entry.name === name);
}

function attributes(list: Attribute[]): Record<string, Value | string> {
  return Object.fromEntries(list.map(({ key, value }) => [key, value.stringValue ?? value]));
}

t.test('a server that takes telemetry keeps the gate open, and is told OTLP', async (t) => {
  const { url, bodies, kill } = await firewall({ hang: false, status: 200 });
  const { gate, thread, changes, counters } = start(url);
  counters.packets[Reason.Redirected] = 7;
  counters.bytes[Reason.Redirected] = 9_000_000_000;
  await until(() => gate.isOpen(now()), 5_000);
  const closedFor = await until(() => !gate.isOpen(now()), 4 * boundMs);
  t.ok(closedFor >= 4 * boundMs, 'the lease is renewed before it runs out');
  t.equal(await thread.stop(), '');
  kill();
  t.match(changes, [{ state: 'open', level: 'info' }]);
  t.match(gate.status(now()), { open: false, cause: 'stopping' });

  const [first, second, last] = [bodies[0]!, bodies[1]!, bodies.at(-1)!];
  t.match(attributes(first.resourceMetrics[0]!.resource.attributes), {
    'service.name': 'microperimeter',
    'service.version': '0.1.0',
    'service.instance.id': 'instance-1',
    'host.name': 'workload',
  });
  const events = bodies.map((body) =>
    metric(body, 'microperimeter.agent.event')?.gauge?.dataPoints.map((p) =>
      attributes(p.attributes),
    ),
  );
  t.same(events[0], [{ event: 'start' }], 'the first report tells the start');
  t.equal(events[1], undefined, 'once');
  t.same(events.at(-1), [{ event: 'stop' }], 'the last one the stop');
  const packets = metric(second, 'microperimeter.packets')!;
  t.match(packets, { unit: '{packet}', sum: { aggregationTemporality: 2, isMonotonic: true } });
  t.equal(packets.sum!.dataPoints.length, 1, 'reasons that never happened are not there');
  const point = packets.sum!.dataPoints[0]!;
  t.same(attributes(point.attributes), { reason: 'redirected', fate: 'forwarded' });
  t.equal(Number(point.asInt), 7);
  t.equal(point.startTimeUnixNano, '1700000000000000000');
  t.ok(Math.abs(Number(point.timeUnixNano) / 1e6 - Date.now()) < 60_000);
  const bytes = metric(second, 'microperimeter.bytes')!.sum!.dataPoints[0]!;
  t.equal(Number(bytes.asInt), 9_000_000_000);
  const open = metric(last, 'microperimeter.gate.open')!.gauge!.dataPoints[0]!;
  t.equal(open.asDouble, 0);
  t.match(attributes(open.attributes), { cause: 'stopping', firewall: 'fw-a' });
});

t.test('what goes wrong closes the gate within the bound, with its cause', async (t) => {
  const rows: [
    string,
    (mode: { hang: boolean; status: number }, kill: () => void) => void,
    string,
  ][] = [
    ['killed', (_mode, kill) => kill(), 'telemetry-unreachable'],
    ['hanging', (mode) => (mode.hang = true), 'telemetry-timeout'],
    ['answering 500', (mode) => (mode.status = 500), 'telemetry-refused'],
  ];
  for (const [name, breakIt, cause] of rows) {
    const mode = { hang: false, status: 200 };
    const { url, kill } = await firewall(mode);
    const { gate, thread, changes } = start(url);
    await until(() => gate.isOpen(now()), 5_000);
    breakIt(mode, kill);
    const tookMs = await until(() => !gate.isOpen(now()), 5_000);
    t.ok(tookMs <= boundMs + marginMs, `${name}: closed after ${Math.round(tookMs)} ms`);
    await until(() => changes.length > 1, 1_000);
    t.equal(gate.status(now()).cause, cause, name);
    t.match(changes, [{ state: 'open' }, { state: 'closed', level: 'error' }]);
    if (name === 'answering 500') {
      mode.status = 200;
      await until(() => gate.isOpen(now()), 2_000);
      t.equal(gate.isOpen(now()), true, 'and a good answer opens it again');
    }
    const startMs = now();
    const failure = await thread.stop();
    t.equal(failure === '', name === 'answering 500', `${name}: stop event: ${failure}`);
    t.ok(now() - startMs < schedule.timeoutMs + marginMs, 'stopped within the timeout');
    kill();
  }
});

t.test('a worker that dies closes the gate and is restarted, three times a minute', async (t) => {
  const { gate, deaths, thread } = start('not an address');
  await until(() => deaths.length === 3, 10_000);
  t.match(deaths, [/Invalid URL/, /Invalid URL/, /^failed: Invalid URL/]);
  t.match(gate.status(now()), { open: false, cause: 'worker-dead' });
  t.match(await thread.stop(), /dead/);
});
