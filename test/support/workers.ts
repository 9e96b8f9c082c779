/** Several data-path workers, for tests of the whole. */
import { fileURLToPath } from 'node:url';
import type { Agent } from '../../lab/agent.ts';
import { pause } from '../../lab/program.ts';
import { addresses, type Topology } from '../../lab/topology.ts';
import type { HairpinOptions } from './hairpin.ts';

const main = fileURLToPath(new URL('../../cli/main.js', import.meta.url));

/** The agent with a module loaded before it, in every thread. */
export function preloaded(module: URL, environment: Record<string, string>): HairpinOptions {
  return { command: [process.execPath, '--import', module.href, main], environment };
}

export function withWorkers(workers: number, more: HairpinOptions = {}): HairpinOptions {
  return { ...more, settings: { limits: { workers } } };
}

type Status = NonNullable<Awaited<ReturnType<Agent['status']>>>;

/** What the agent says once its workers have published. */
export async function look(agent: Agent) {
  await pause(250);
  const status = (await agent.status()) as Status & {
    workers: { count: number; handedOver: number };
  };
  const packets = (name: string) => status.counters[name]?.packets ?? 0;
  return { status, packets, handed: status.workers.handedOver };
}

/** From, to and their addresses, one way and the other. */
export function bothWays({ server, workload }: Topology) {
  return [
    [workload, server, addresses.workload, addresses.server],
    [server, workload, addresses.server, addresses.workload],
  ] as const;
}
