/**
 * The flow table as a person or a program asks for it: filtered, sorted, cut to a limit. Reads the
 * shared columns; never stops the data path. One pass over the table: 10 ms for a million records.
 */
import type { FlowColumns } from '../engine/flow-columns.ts';
import { FlowState } from '../engine/flow-progress.ts';
import { Verdict } from '../engine/flows.ts';
import { tickMs } from '../engine/ticks.ts';
import { Protocol } from '../parsers/ipv4.ts';
import { formatAddress, parseAddress } from '../parsers/text.ts';

export type FlowQuery = {
  readonly sort: 'bytes' | 'packets' | 'age' | 'idle';
  readonly limit: number;
  /** Undefined: any. */
  readonly protocol?: number;
  /** At either end. */
  readonly address?: number;
  readonly port?: number;
  readonly verdict?: string;
};

export type FlowRow = {
  readonly protocol: string;
  readonly local: string;
  readonly localPort: number;
  readonly remote: string;
  readonly remotePort: number;
  readonly opener: 'egress' | 'ingress';
  readonly interface: string;
  readonly verdict: string;
  readonly rule: string;
  /** The one that holds it; empty when none does. */
  readonly firewall: string;
  readonly state: string;
  /** Who carries it now, when it is redirected; empty otherwise. */
  readonly by: '' | 'agent' | 'kernel';
  readonly ageMs: number;
  readonly idleMs: number;
  /** Read from the host's side: sent by it, and brought by the network. */
  readonly egress: { readonly packets: number; readonly bytes: number };
  readonly ingress: { readonly packets: number; readonly bytes: number };
};

export type FlowNames = {
  readonly interfaces: readonly string[];
  /** What rule `rule` of the policy of `generation` is called. */
  rule(rule: number, generation: number): string;
  /** What the firewall at this place is called; empty for none. */
  firewall(firewall: number): string;
};

const maximumFlowRows = 10_000;
const defaultFlowRows = 50;

export const verdictNames: Readonly<Record<Verdict, string>> = {
  [Verdict.Undecided]: 'undecided',
  [Verdict.Redirect]: 'redirect',
  [Verdict.Pass]: 'pass',
  [Verdict.Drop]: 'drop',
  [Verdict.PassEstablished]: 'pass-established',
  [Verdict.PassBuiltIn]: 'pass-built-in',
  [Verdict.PassRollout]: 'pass-rollout',
  [Verdict.Observe]: 'observe',
  [Verdict.PassGroup]: 'pass-group',
};
const stateNames: Readonly<Record<FlowState, string>> = {
  [FlowState.Opening]: 'opening',
  [FlowState.Open]: 'open',
  [FlowState.HalfClosed]: 'half-closed',
  [FlowState.Closed]: 'closed',
};
export const protocolNames: ReadonlyMap<number, string> = new Map([
  [Protocol.Icmp, 'icmp'],
  [Protocol.Tcp, 'tcp'],
  [Protocol.Udp, 'udp'],
]);

/** Whether a flow is redirected that a policy before `generation` decided. Reads every record. */
export function redirectsBefore(columns: FlowColumns, generation: number): boolean {
  const { used, verdict, generation: decided } = columns;
  for (let flow = 0; flow < used.length; flow++) {
    if (used[flow] === 1 && verdict[flow] === Verdict.Redirect && decided[flow] < generation) {
      return true;
    }
  }
  return false;
}

/** From the query part of a URL. Throws RangeError with a sentence about what is wrong. */
export function parseFlowQuery(parameters: URLSearchParams): FlowQuery {
  const text = (name: string) => parameters.get(name) ?? undefined;
  const sort = text('sort') ?? 'bytes';
  if (sort !== 'bytes' && sort !== 'packets' && sort !== 'age' && sort !== 'idle') {
    throw new RangeError(`sort is bytes, packets, age or idle, not ${sort}`);
  }
  const number = (name: string, least: number, most: number): number | undefined => {
    const given = text(name);
    if (given === undefined) return undefined;
    const value = Number(given);
    if (Number.isInteger(value) && value >= least && value <= most) return value;
    throw new RangeError(`${name} is a whole number from ${least} to ${most}, not ${given}`);
  };
  const verdict = text('verdict');
  if (verdict !== undefined && !Object.values(verdictNames).includes(verdict)) {
    throw new RangeError(`verdict is ${Object.values(verdictNames).join(', ')}, not ${verdict}`);
  }
  return withoutUndefined({
    sort,
    limit: number('limit', 1, maximumFlowRows) ?? defaultFlowRows,
    protocol: protocolNumber(text('protocol')),
    address: addressNumber(text('address')),
    port: number('port', 0, 65535),
    verdict,
  });
}

function withoutUndefined(query: Record<string, unknown>): FlowQuery {
  const entries = Object.entries(query).filter(([, value]) => value !== undefined);
  return Object.fromEntries(entries) as FlowQuery;
}

function protocolNumber(given: string | undefined): number | undefined {
  if (given === undefined) return undefined;
  for (const [number, name] of protocolNames) if (name === given) return number;
  const value = Number(given);
  if (Number.isInteger(value) && value >= 0 && value <= 255) return value;
  throw new RangeError(`protocol is tcp, udp, icmp or a number to 255, not ${given}`);
}

function addressNumber(given: string | undefined): number | undefined {
  if (given === undefined) return undefined;
  const value = parseAddress(given);
  if (value === undefined) throw new RangeError(`address is like 10.1.0.9, not ${given}`);
  return value;
}

/**
 * @param tables of the workers that have one each
 * @param nowTick CLOCK_MONOTONIC in ticks, as the tables'
 */
export function listFlows(
  tables: readonly FlowColumns[],
  query: FlowQuery,
  nowTick: number,
  names: FlowNames,
): { readonly matching: number; readonly flows: readonly FlowRow[] } {
  const lists = tables.map((columns) => topOf(columns, query));
  const found = lists.flatMap(({ top }) => top);
  const top = found.sort((a, b) => b.key - a.key).slice(0, query.limit);
  return {
    matching: lists.reduce((sum, { matching }) => sum + matching, 0),
    flows: top.map(({ columns, flow }) => describe(columns, flow, nowTick, names)),
  };
}

/** Of one table: how many match, and the first of them with what they are sorted by. */
function topOf(columns: FlowColumns, query: FlowQuery) {
  const found: number[] = [];
  for (let flow = 0; flow < columns.used.length; flow++) {
    if (columns.used[flow] === 1 && matches(columns, flow, query)) found.push(flow);
  }
  const matching = found.length;
  const key = sortKey(columns, query.sort);
  const top = found.sort((a, b) => key(b) - key(a)).slice(0, query.limit);
  return { matching, top: top.map((flow) => ({ columns, flow, key: key(flow) })) };
}

function matches(columns: FlowColumns, flow: number, query: FlowQuery): boolean {
  const { address, port, protocol, verdict } = query;
  if (protocol !== undefined && columns.protocol[flow] !== protocol) return false;
  if (
    address !== undefined &&
    columns.addressA[flow] !== address &&
    columns.addressB[flow] !== address
  ) {
    return false;
  }
  if (
    port !== undefined &&
    columns.ports[flow] >>> 16 !== port &&
    (columns.ports[flow] & 0xffff) !== port
  ) {
    return false;
  }
  return verdict === undefined || verdictNames[columns.verdict[flow] as Verdict] === verdict;
}

function sortKey(columns: FlowColumns, sort: FlowQuery['sort']): (flow: number) => number {
  const sum = (column: Float64Array) => (flow: number) => column[2 * flow] + column[2 * flow + 1];
  switch (sort) {
    case 'bytes':
      return sum(columns.bytes);
    case 'packets':
      return sum(columns.packets);
    case 'age':
      return (flow) => -columns.firstSeen[flow];
    case 'idle':
      return (flow) => -columns.lastSeen[flow];
  }
}

function carrierOf(columns: FlowColumns, flow: number): FlowRow['by'] {
  if (columns.verdict[flow] !== Verdict.Redirect) return '';
  return columns.carried[flow] === 1 ? 'kernel' : 'agent';
}

function describe(columns: FlowColumns, flow: number, nowTick: number, names: FlowNames): FlowRow {
  const a = { address: formatAddress(columns.addressA[flow]), port: columns.ports[flow] >>> 16 };
  const b = { address: formatAddress(columns.addressB[flow]), port: columns.ports[flow] & 0xffff };
  const [local, remote] = columns.localIsA[flow] === 1 ? [a, b] : [b, a];
  const protocol = columns.protocol[flow];
  const verdict = columns.verdict[flow] as Verdict;
  const amount = (at: number) => ({ packets: columns.packets[at], bytes: columns.bytes[at] });
  return {
    protocol: protocolNames.get(protocol) ?? String(protocol),
    local: local.address,
    localPort: local.port,
    remote: remote.address,
    remotePort: remote.port,
    opener: columns.opener[flow] === 0 ? 'egress' : 'ingress',
    interface: names.interfaces[columns.link[flow]] ?? '',
    verdict: verdictNames[verdict],
    rule: names.rule(columns.rule[flow], columns.generation[flow]),
    firewall: verdict === Verdict.Redirect ? names.firewall(columns.firewall[flow]) : '',
    state: protocol === Protocol.Tcp ? stateNames[columns.state[flow] as FlowState] : '',
    by: carrierOf(columns, flow),
    ageMs: (nowTick - columns.firstSeen[flow]) * tickMs,
    idleMs: (nowTick - columns.lastSeen[flow]) * tickMs,
    egress: amount(2 * flow),
    ingress: amount(2 * flow + 1),
  };
}
