/** A record of the flow log (engine/flow-log.ts) as it stands in the file. */
import { FlowEnd, FlowEvent, type FlowRecord } from '../engine/flow-log.ts';
import { Verdict } from '../engine/flows.ts';
import { tickMs } from '../engine/ticks.ts';
import { formatAddress } from '../parsers/text.ts';
import { type FlowNames, protocolNames, verdictNames } from './flows.ts';

const endNames: Readonly<Record<FlowEnd, string>> = {
  [FlowEnd.None]: '',
  [FlowEnd.Fin]: 'fin',
  [FlowEnd.Rst]: 'rst',
  [FlowEnd.Idle]: 'idle',
  [FlowEnd.Evicted]: 'evicted',
  [FlowEnd.Replaced]: 'replaced',
  [FlowEnd.Stop]: 'stop',
  [FlowEnd.Reclassified]: 'reclassified',
};

/** @param bootMs what CLOCK_MONOTONIC's 0 is in milliseconds since 1970 */
export function describeFlow(record: FlowRecord, bootMs: number, names: FlowNames): object {
  const a = { address: formatAddress(record.addressA), port: record.ports >>> 16 };
  const b = { address: formatAddress(record.addressB), port: record.ports & 0xffff };
  const [local, remote] = record.localIsA === 1 ? [a, b] : [b, a];
  const isEnd = record.event === FlowEvent.End;
  const tick = isEnd ? record.lastSeen : record.firstSeen;
  const verdict = record.verdict as Verdict;
  return {
    time: new Date(bootMs + tick * tickMs).toISOString(),
    event: isEnd ? 'end' : 'start',
    protocol: protocolNames.get(record.protocol) ?? String(record.protocol),
    local: local.address,
    localPort: local.port,
    remote: remote.address,
    remotePort: remote.port,
    opener: record.opener === 0 ? 'egress' : 'ingress',
    interface: names.interfaces[record.link] ?? '',
    verdict: verdictNames[verdict],
    rule: names.rule(record.rule, record.generation),
    ...(verdict === Verdict.Redirect ? { firewall: names.firewall(record.firewall) } : {}),
    ...(isEnd
      ? {
          ended: endNames[record.end as FlowEnd],
          durationMs: (record.lastSeen - record.firstSeen) * tickMs,
          egress: { packets: record.egressPackets, bytes: record.egressBytes },
          ingress: { packets: record.ingressPackets, bytes: record.ingressBytes },
        }
      : {}),
  };
}
