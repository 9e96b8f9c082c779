/** Two or three firewalls and an agent for a test, all gone when the test ends. */
import type { Test } from 'tap';
import type { Agent } from '../../lab/agent.ts';
import { type HaAgentOptions, HaStage, reachFirewalls } from '../../lab/ha-stage.ts';
import type { Program } from '../../lab/program.ts';

export type HaOptions = HaAgentOptions & {
  readonly count?: 2 | 3;
  /** Called when the firewalls run, before the agent; what it starts ends with the test. */
  readonly before?: (lab: HaStage) => readonly Program[];
};

/** Firewalls and the agent, redirecting, with every firewall usable. */
export async function startHa(
  t: Test,
  options: HaOptions = {},
): Promise<{ readonly lab: HaStage; readonly agent: Agent }> {
  const lab = new HaStage(options.count ?? 2);
  t.teardown(() => lab.close());
  await Promise.all(lab.hosts.map((_, i) => lab.startFirewall(i)));
  const programs = options.before?.(lab) ?? [];
  t.teardown(() => Promise.all(programs.map((program) => program.stop())));
  const agent = lab.startAgent(options);
  t.teardown(() => agent.program.stop());
  await agent.reach('redirecting', 15_000);
  await reachFirewalls(agent, 'all are usable', (all) => all.every(({ usable }) => usable), 15_000);
  return { lab, agent };
}
