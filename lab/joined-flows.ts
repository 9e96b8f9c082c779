/**
 * The firewall's connections beside the agent's, joined by the 5-tuple: two programs that know
 * nothing of each other have counted the same packets, or one of them lost some.
 */
import type { AgentFlow } from './agent.ts';
import type { FirewallFlow } from './firewalls.ts';

type Packets = { readonly toServer: number; readonly toClient: number };

/** What the firewall counted and said, and what the agent counted. */
export type JoinedFlow = FirewallFlow & { readonly agent: Packets };

/** Most rows of a table that a person looks at. */
const shownFlows = 12;

/** Connections that both know, in the firewall's order. */
export function joinFlows(
  agent: readonly AgentFlow[],
  firewall: readonly FirewallFlow[],
): JoinedFlow[] {
  const known = new Map(agent.map((flow) => [keyOf(flow), packetsOf(flow)]));
  return firewall.flatMap((flow) => {
    const counted = known.get(`${flow.protocol} ${flow.source} ${flow.target}`);
    return counted === undefined ? [] : [{ ...flow, agent: counted }];
  });
}

function keyOf({ local, localPort, opener, protocol, remote, remotePort }: AgentFlow): string {
  const [ours, theirs] = [`${local}:${localPort}`, `${remote}:${remotePort}`];
  const ends = opener === 'egress' ? `${ours} ${theirs}` : `${theirs} ${ours}`;
  return `${protocol} ${ends}`;
}

function packetsOf({ egress, ingress, opener }: AgentFlow): Packets {
  const [toServer, toClient] = opener === 'egress' ? [egress, ingress] : [ingress, egress];
  return { toServer: toServer.packets, toClient: toClient.packets };
}

export function countsAgree({ agent, toClient, toServer }: JoinedFlow): boolean {
  return agent.toServer === toServer && agent.toClient === toClient;
}

/** `12 out, 9 in`: away from who opened the connection, and back. */
export function sumFlows(flows: readonly Packets[]): string {
  const sum = (side: keyof Packets) => flows.reduce((total, flow) => total + flow[side], 0);
  return `${sum('toServer')} out, ${sum('toClient')} in`;
}

/** Those that a person looks for first: blocked ones, then the latest of the others. */
export function selectFlows(flows: readonly JoinedFlow[]): JoinedFlow[] {
  const blocked = flows.filter((flow) => flow.reason !== '').slice(-shownFlows);
  const allowed = flows.filter((flow) => flow.reason === '').reverse();
  return [...blocked, ...allowed].slice(0, shownFlows);
}
