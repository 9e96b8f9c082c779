/**
 * What the agent measures, for Prometheus: `GET /metrics` on an address of the operator's choice.
 * Names and units are by its conventions; values are read from shared memory when asked.
 */
import { createServer } from 'node:http';
import { Counter, Gauge, Registry } from 'prom-client';
import { addFirewalls } from './firewall-metrics.ts';
import { closeServer, listen } from './listen.ts';

export type Amount = { readonly packets: number; readonly bytes: number };

/** One firewall. */
export type FirewallMeasurements = {
  readonly name: string;
  readonly usable: boolean;
  readonly active: boolean;
  readonly changes: number;
  readonly innerMtu: number;
  readonly telemetry: { readonly open: boolean; readonly leaseMs: number };
  readonly probe: { readonly sent: number; readonly answered: number };
  readonly traffic: {
    readonly sent: Amount;
    readonly returned: Amount;
    readonly flowsTaken: number;
  };
  /** Probes by round trip, as `roundTripLimitsMs` (engine/firewall-columns.ts), added up. */
  readonly roundTrips: readonly number[];
  readonly roundTripSumMs: number;
};

/** One reading of everything. */
export type Measurements = {
  readonly version: string;
  /** By fate of the packet; `kind` is forwarded or dropped. */
  readonly reasons: readonly (Amount & { readonly reason: string; readonly kind: string })[];
  /** What the kernel programs did by themselves. */
  readonly kernel: Readonly<Record<string, Amount>>;
  readonly rules: readonly { readonly name: string; readonly hits: number }[];
  readonly gateOpen: boolean;
  readonly leaseSeconds: number;
  readonly firewalls: readonly FirewallMeasurements[];
  readonly flows: number;
  readonly flowCapacity: number;
  /** Packets that a worker of the data path gave to the one that has their flow. */
  readonly handedOver: number;
  readonly innerMtu: number;
  /** Packets that waited for the agent in vain, as the kernel counts them. */
  readonly tunDropped: number;
};

export type MetricsServer = {
  /** Idempotent. */
  close(): Promise<void>;
};

/** Throws a ControlError when the address or the port cannot be had. */
export async function startMetricsServer(
  address: string,
  port: number,
  measure: () => Measurements,
): Promise<MetricsServer> {
  const registry = createRegistry(measure);
  const server = createServer((request, response) => {
    request.resume();
    if (request.method !== 'GET' || request.url !== '/metrics') {
      response.writeHead(404, { 'content-type': 'text/plain' });
      response.end('there is GET /metrics\n');
      return;
    }
    registry.metrics().then((text) => {
      response.writeHead(200, { 'content-type': registry.contentType });
      response.end(text);
    });
  });
  await listen(server, address, port, 'metrics', 'metrics.listen');
  return { close: () => closeServer(server) };
}

function createRegistry(measure: () => Measurements): Registry {
  const registry = new Registry();
  let now = measure();
  const gauge = (name: string, help: string, value: () => number): void => {
    new Gauge({
      name: `microperimeter_${name}`,
      help,
      registers: [registry],
      collect() {
        this.set(value());
      },
    });
  };
  // The first of all: those after it use its reading.
  new Gauge({
    name: 'microperimeter_build_info',
    help: 'Version of the running agent.',
    labelNames: ['version'],
    registers: [registry],
    collect() {
      now = measure();
      this.set({ version: now.version }, 1);
    },
  });
  gauge('gate_open', '1 while traffic may be redirected.', () => (now.gateOpen ? 1 : 0));
  gauge('gate_lease_seconds', 'What is left of the lease.', () => now.leaseSeconds);
  gauge('flows', 'Flows in the table.', () => now.flows);
  gauge('flow_capacity', 'Flows at most.', () => now.flowCapacity);
  gauge('inner_mtu_bytes', 'Largest packet that the tunnel carries.', () => now.innerMtu);
  addCounters(registry, () => now);
  addFirewalls(registry, () => now.firewalls);
  return registry;
}

type Row = { readonly labels: Readonly<Record<string, string>>; readonly value: number };

function addCounters(registry: Registry, now: () => Measurements): void {
  const counter = (
    name: string,
    help: string,
    labelNames: readonly string[],
    rows: () => readonly Row[],
  ): void => {
    new Counter({
      name: `microperimeter_${name}_total`,
      help,
      labelNames,
      registers: [registry],
      // The sums are kept elsewhere; this one is told what they are.
      collect() {
        this.reset();
        for (const { labels, value } of rows()) this.inc(labels, value);
      },
    });
  };
  const reasons = (amount: keyof Amount) => (): Row[] =>
    now().reasons.map((row) => ({
      labels: { reason: row.reason, fate: row.kind },
      value: row[amount],
    }));
  const kernel = (amount: keyof Amount) => (): Row[] =>
    Object.entries(now().kernel).map(([what, row]) => ({ labels: { what }, value: row[amount] }));
  const labels = ['reason', 'fate'];
  counter('packets', 'Packets by what became of them.', labels, reasons('packets'));
  counter('bytes', 'IPv4 bytes by what became of their packets.', labels, reasons('bytes'));
  counter('kernel_packets', 'Packets that met the kernel programs.', ['what'], kernel('packets'));
  counter('kernel_bytes', 'Their bytes.', ['what'], kernel('bytes'));
  counter('rule_connections', 'Connections that a rule decided.', ['rule'], () =>
    now().rules.map(({ hits, name }) => ({ labels: { rule: name }, value: hits })),
  );
  counter('handed_over_packets', 'Packets given to the worker that has their flow.', [], () => [
    { labels: {}, value: now().handedOver },
  ]);
  counter('tun_dropped_packets', 'Packets that waited for the agent in vain.', [], () => [
    { labels: {}, value: now().tunDropped },
  ]);
}
