/** What the metrics page tells of each firewall. */
import { Counter, Gauge, Histogram, type Registry } from 'prom-client';
import { roundTripLimitsMs } from '../engine/firewall-columns.ts';
import type { FirewallMeasurements } from './metrics.ts';

type Read = () => readonly FirewallMeasurements[];

export function addFirewalls(registry: Registry, read: Read): void {
  const labelNames = ['firewall'];
  const registers = [registry];
  const gauge = (name: string, help: string, value: (one: FirewallMeasurements) => number) =>
    new Gauge({
      name: `microperimeter_firewall_${name}`,
      help,
      labelNames,
      registers,
      collect() {
        for (const one of read()) this.set({ firewall: one.name }, value(one));
      },
    });
  const counter = (name: string, help: string, value: (one: FirewallMeasurements) => number) =>
    new Counter({
      name: `microperimeter_firewall_${name}_total`,
      help,
      labelNames,
      registers,
      // The sums are kept elsewhere; this one is told what they are.
      collect() {
        this.reset();
        for (const one of read()) this.inc({ firewall: one.name }, value(one));
      },
    });
  gauge('usable', '1 while it may take flows.', ({ usable }) => (usable ? 1 : 0));
  gauge('active', '1 while it takes new flows.', ({ active }) => (active ? 1 : 0));
  gauge('lease_seconds', 'What is left of its lease.', ({ telemetry }) => telemetry.leaseMs / 1000);
  gauge('inner_mtu_bytes', 'Largest packet on the way to it.', ({ innerMtu }) => innerMtu);
  counter('changes', 'How often it became usable or stopped being so.', ({ changes }) => changes);
  counter('sent_packets', 'Packets sent to it.', ({ traffic }) => traffic.sent.packets);
  counter('sent_bytes', 'Their bytes.', ({ traffic }) => traffic.sent.bytes);
  counter(
    'returned_packets',
    'Packets that came back from it.',
    ({ traffic }) => traffic.returned.packets,
  );
  counter('returned_bytes', 'Their bytes.', ({ traffic }) => traffic.returned.bytes);
  counter(
    'flows_taken',
    'Flows that it took from another firewall.',
    ({ traffic }) => traffic.flowsTaken,
  );
  counter('probes', 'Probes sent to it.', ({ probe }) => probe.sent);
  registry.registerMetric(new RoundTrips(read));
}

const about = {
  name: 'microperimeter_firewall_probe_seconds',
  help: 'Round trips of probes.',
} as const;

/** A histogram whose buckets are kept elsewhere. */
class RoundTrips extends Histogram<'firewall' | 'le'> {
  private readonly read: Read;

  constructor(read: Read) {
    super({ ...about, labelNames: ['firewall'], registers: [] });
    this.read = read;
  }

  /** What the registry asks a metric for, though prom-client's types do not say so. */
  async getForPromString() {
    const { help, name: metric } = about;
    const limits = [...roundTripLimitsMs.map((ms) => ms / 1000), '+Inf'];
    const values = this.read().flatMap(({ name, roundTripSumMs, roundTrips }) => {
      const row = (suffix: string, value: number, le: object = {}) => ({
        metricName: `${metric}_${suffix}`,
        exemplar: null,
        labels: { firewall: name, ...le },
        value,
      });
      return [
        ...roundTrips.map((count, bucket) => row('bucket', count, { le: limits[bucket] })),
        row('sum', roundTripSumMs / 1000),
        row('count', roundTrips.at(-1) ?? 0),
      ];
    });
    return { name: metric, help, type: 'histogram', values, aggregator: 'sum' };
  }
}
