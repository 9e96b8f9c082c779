/**
 * The body of one telemetry POST: an OTLP metrics export in JSON or protobuf, as any OpenTelemetry
 * collector takes it at /v1/metrics. Counters are cumulative since the start of the agent; a reason
 * that never happened has no data point. Only the telemetry worker uses this file.
 */
import { type Attributes, type HrTime, ValueType } from '@opentelemetry/api';
import { JsonMetricsSerializer, ProtobufMetricsSerializer } from '@opentelemetry/otlp-transformer';
import { type Resource, resourceFromAttributes } from '@opentelemetry/resources';
import {
  AggregationTemporality,
  type DataPoint,
  DataPointType,
  type MetricData,
} from '@opentelemetry/sdk-metrics';
import { reasonCount, reasonKinds, reasonNames } from '../parsers/reason.ts';
import type { TelemetryFormat } from './config.ts';
import { type Counters, Gauge } from './counters.ts';
import type { GateStatus } from './gate.ts';

type Encoding = TelemetryFormat['encoding'];

/** OTLP specification, "OTLP/HTTP Request". */
export const contentTypes: Readonly<Record<Encoding, string>> = {
  json: 'application/json',
  protobuf: 'application/x-protobuf',
};

const serializers = { json: JsonMetricsSerializer, protobuf: ProtobufMetricsSerializer } as const;

/** A request without metrics, which a collector takes and forgets. */
export function emptyReport(encoding: Encoding): Uint8Array {
  return Buffer.from(encoding === 'json' ? '{"resourceMetrics":[]}' : '');
}

export type AgentIdentity = {
  readonly version: string;
  /** The host's name. */
  readonly host: string;
  /** Unique to this run of the agent. */
  readonly instance: string;
  /** Name of the firewall that the report goes to. */
  readonly firewall: string;
  /** Wall clock at the start, in milliseconds. */
  readonly startedMs: number;
};

/** What each report tells of every firewall. */
export type FirewallReport = {
  readonly name: string;
  readonly usable: boolean;
  readonly active: boolean;
  readonly sentPackets: number;
  readonly returnedPackets: number;
};

/** Events told with the next report, until one is delivered. */
export type AgentEvent = 'start' | 'stop';

export class TelemetryReport {
  private readonly identity: AgentIdentity;
  private readonly encoding: Encoding;
  private readonly resource: Resource;
  private readonly startTime: HrTime;

  constructor(identity: AgentIdentity, encoding: Encoding) {
    this.identity = identity;
    this.encoding = encoding;
    this.startTime = toHrTime(identity.startedMs);
    this.resource = resourceFromAttributes({
      'service.name': 'microperimeter',
      'service.version': identity.version,
      'service.instance.id': identity.instance,
      'host.name': identity.host,
    });
  }

  /** `nowMs` is the wall clock. */
  build(
    counters: Counters,
    gate: GateStatus,
    events: readonly AgentEvent[],
    nowMs: number,
    firewalls: readonly FirewallReport[] = [],
  ): Uint8Array {
    const time = toHrTime(nowMs);
    const metrics = [
      this.sum('microperimeter.packets', '{packet}', this.byReason(counters.packets, time)),
      this.sum('microperimeter.bytes', 'By', this.byReason(counters.bytes, time)),
      this.gauge('microperimeter.gate.open', '1', [
        this.point(gate.open ? 1 : 0, time, {
          cause: gate.cause,
          firewall: this.identity.firewall,
        }),
      ]),
      this.gauge('microperimeter.flows', '{flow}', [
        this.point(counters.gauges[Gauge.Flows], time, {}),
      ]),
      this.gauge('microperimeter.agent.uptime', 's', [
        this.point(Math.max(0, (nowMs - this.identity.startedMs) / 1000), time, {}),
      ]),
    ];
    if (firewalls.length > 0) metrics.push(...this.ofFirewalls(firewalls, time));
    if (events.length > 0) {
      const points = events.map((event) => this.point(1, time, { event }));
      metrics.push(this.gauge('microperimeter.agent.event', '{event}', points));
    }
    const body = serializers[this.encoding].serializeRequest({
      resource: this.resource,
      scopeMetrics: [
        { scope: { name: 'microperimeter', version: this.identity.version }, metrics },
      ],
    });
    if (body === undefined) throw new Error('the OTLP serializer returned nothing');
    return body;
  }

  private ofFirewalls(all: readonly FirewallReport[], time: HrTime): MetricData[] {
    const points = (value: (one: FirewallReport) => number) =>
      all.map((one) => this.point(value(one), time, { firewall: one.name }));
    const isUsable = points(({ usable }) => (usable ? 1 : 0));
    const isActive = points(({ active }) => (active ? 1 : 0));
    const sent = points(({ sentPackets }) => sentPackets);
    const returned = points(({ returnedPackets }) => returnedPackets);
    return [
      this.gauge('microperimeter.firewall.usable', '1', isUsable),
      this.gauge('microperimeter.firewall.active', '1', isActive),
      this.sum('microperimeter.firewall.sent', '{packet}', sent),
      this.sum('microperimeter.firewall.returned', '{packet}', returned),
    ];
  }

  private byReason(column: Float64Array, time: HrTime): DataPoint<number>[] {
    const points: DataPoint<number>[] = [];
    for (let reason = 0; reason < reasonCount; reason++) {
      const value = column[reason]!;
      if (value === 0) continue;
      const attributes = { reason: reasonNames[reason]!, fate: reasonKinds[reason]! };
      points.push(this.point(value, time, attributes));
    }
    return points;
  }

  private point(value: number, time: HrTime, attributes: Attributes): DataPoint<number> {
    return { startTime: this.startTime, endTime: time, attributes, value };
  }

  private sum(name: string, unit: string, dataPoints: DataPoint<number>[]): MetricData {
    return {
      descriptor: { name, unit, description: '', valueType: ValueType.INT },
      aggregationTemporality: AggregationTemporality.CUMULATIVE,
      dataPointType: DataPointType.SUM,
      isMonotonic: true,
      dataPoints,
    };
  }

  private gauge(name: string, unit: string, dataPoints: DataPoint<number>[]): MetricData {
    return {
      descriptor: { name, unit, description: '', valueType: ValueType.DOUBLE },
      aggregationTemporality: AggregationTemporality.CUMULATIVE,
      dataPointType: DataPointType.GAUGE,
      dataPoints,
    };
  }
}

function toHrTime(ms: number): HrTime {
  const seconds = Math.floor(ms / 1000);
  return [seconds, Math.round((ms - seconds * 1000) * 1e6)];
}
