/**
 * A peer is one way for the workload's traffic to go: directly, by the kernel's tunnel, by the
 * agent, by a VPN. `bench/peers/` has one file for each; this one says what they have in common,
 * among it the proof that traffic went the way its row claims.
 */
import type { Agent, AgentStatus } from '../lab/agent.ts';
import type { Namespace } from '../lab/namespace.ts';
import { addresses, createTopology, type Topology } from '../lab/topology.ts';
import { parseLinkBytes } from './parse.ts';

/**
 * What the links carry: packets as the sender's stack made them, up to 64 KiB (`whole`); the same
 * but on the firewall's link (`firewall`), without which a kernel tunnel hands a user-space
 * receiver packets that no wire has; packets of at most the MTU everywhere (`mtu`).
 */
export type Wire = 'whole' | 'firewall' | 'mtu';

/**
 * direct     workload - router - server
 * passing    the same, with the agent looking on
 * hair-pin   workload - firewall - workload - server
 * one-way    workload - firewall, where the server is then
 */
export type Route = 'direct' | 'passing' | 'hair-pin' | 'one-way';

export type Peer = {
  /** Name of the row, such as `agent geneve`. */
  readonly name: string;
  readonly route: Route;
  readonly wires: readonly Wire[];
  /** Why it cannot run here: a sentence; undefined when it can. */
  missing?(): string | undefined;
  /** Everything runs when this returns. */
  start(topology: Topology): Promise<Running>;
};

export type Running = {
  /** Whose processor time and memory count as the peer's own; undefined in the kernel. */
  readonly pid?: number;
  /** Given, its counters are part of the proof. */
  readonly agent?: Agent;
  /** Where the server of the measurements is reached, when it is not the topology's server. */
  readonly address?: string;
  stop(): Promise<void>;
};

/** A peer at work. */
export type Path = {
  readonly peer: Peer;
  readonly wire: Wire;
  readonly client: Namespace;
  readonly server: Namespace;
  /** Of the server. */
  readonly address: string;
  readonly pid: number | undefined;
  readonly agent: Agent | undefined;
  /** See `startProof`. */
  proof(): Promise<(bytes: number) => Promise<void>>;
};

/** A hair-pin's payload must be seen on the firewall's link; a little of it may be on its way. */
const seenShare = 0.95;
/**
 * Of a payload that should not come near the firewall, what may: telemetry, neighbour discovery.
 */
const strayShare = 0.02;
const strayBytes = 50_000;
/** The agent publishes its counters every 100 ms. */
const publishMs = 150;
const statusAttempts = 5;

const topologyOffloads = { whole: 'all', firewall: 'firewall-off', mtu: 'none' } as const;

/** Hosts, peer, work, and all of it removed again, whatever happens. */
export async function withPath<T>(
  peer: Peer,
  wire: Wire,
  work: (path: Path) => Promise<T>,
): Promise<T> {
  const topology = createTopology({ offloads: topologyOffloads[wire] });
  try {
    const running = await peer.start(topology);
    try {
      const path: Path = {
        peer,
        wire,
        client: topology.workload,
        server: peer.route === 'one-way' ? topology.firewall : topology.server,
        address: running.address ?? addresses.server,
        pid: running.pid,
        agent: running.agent,
        proof: () => startProof(topology, peer.route, running.agent),
      };
      return await work(path);
    } finally {
      await running.stop();
    }
  } finally {
    topology.remove();
  }
}

type Sight = {
  readonly received: number;
  readonly sent: number;
  readonly status: AgentStatus | undefined;
};

/**
 * Looks at the firewall's link and at the agent's counters. The function it returns looks again
 * and throws unless `bytes` of payload, in either direction, went where the route claims.
 */
async function startProof(topology: Topology, route: Route, agent: Agent | undefined) {
  const look = async (): Promise<Sight> => {
    const status = agent === undefined ? undefined : await statusOf(agent);
    const links = topology.firewall.must('cat', ['/proc/self/net/dev']);
    return { ...parseLinkBytes(links, 'eth0'), status };
  };
  const before = await look();
  return async (bytes: number): Promise<void> => {
    const after = await look();
    const words = judge(route, bytes, before, after);
    if (words !== undefined) throw new Error(`not the path it claims: ${words}`);
  };
}

/** A busy machine may keep it waiting; an agent that does not answer at all is no proof. */
async function statusOf(agent: Agent): Promise<AgentStatus> {
  await new Promise((resolve) => setTimeout(resolve, publishMs));
  for (let attempt = 0; attempt < statusAttempts; attempt++) {
    const status = await agent.status();
    if (status !== undefined) return status;
  }
  throw new Error('the agent does not tell its counters');
}

/** Why the traffic did not go the way it should have; undefined when it did. */
function judge(route: Route, bytes: number, before: Sight, after: Sight): string | undefined {
  const received = after.received - before.received;
  const sent = after.sent - before.sent;
  const seen = `the firewall received ${received} and sent ${sent} bytes of ${bytes}`;
  const enough = bytes * seenShare;
  if (bytes <= 0) return 'nothing arrived';
  if (route === 'hair-pin' && Math.min(received, sent) < enough) return seen;
  if (route === 'one-way' && Math.max(received, sent) < enough) return seen;
  const isDirect = route === 'direct' || route === 'passing';
  if (isDirect && received + sent > bytes * strayShare + strayBytes) return seen;
  if (after.status === undefined) return undefined;
  const counted = (place: 'counters' | 'kernel', name: string) =>
    (after.status?.[place][name]?.bytes ?? 0) - (before.status?.[place][name]?.bytes ?? 0);
  if (route === 'passing') {
    const names = ['passedMode', 'passedNetwork', 'passedVerdict'];
    const passed = names.reduce((sum, name) => sum + counted('kernel', name), 0);
    return passed < enough ? `the agent's programs passed ${passed} bytes of ${bytes}` : undefined;
  }
  for (const name of ['redirected', 'reinjected']) {
    const share = counted('counters', name);
    if (share < enough) return `the agent counts ${share} bytes ${name} of ${bytes}`;
  }
  return undefined;
}
