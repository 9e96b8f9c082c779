/**
 * The second story, `--scenario ha`: two firewalls, and what the agent does when one of them, or
 * both, are lost. Each step is decided by a ping every 20 ms and by what the agent says.
 */
import type { Agent } from './agent.ts';
import { activeOf, type FirewallState, HaStage, Pinging, reachFirewalls } from './ha-stage.ts';
import { compareHostStates, readHostState } from './host-state.ts';
import { pause } from './program.ts';
import { type Check, playStep, type StepListener, type StepResult } from './step.ts';

const startLimitMs = 20_000;
/** `interval` x `failures` and half a second, by the defaults. */
const failoverLimitMs = 3500;
const holdDownMs = 2000;

type Scene = { readonly stage: HaStage; readonly agent: Agent; readonly pinging: Pinging };
type Step = {
  readonly name: string;
  readonly title: string;
  readonly play: (scene: Scene) => Promise<Check[]>;
};

const steps: readonly Step[] = [
  { name: 'healthy', title: 'Two firewalls are healthy', play: playHealthy },
  { name: 'killed', title: 'The active one is killed (SIGKILL)', play: playKilled },
  { name: 'back', title: 'It is back', play: playBack },
  { name: 'cut', title: "The other's tunnel is cut, telemetry is not", play: playCut },
  { name: 'none', title: 'Both hang (SIGSTOP)', play: playNone },
  { name: 'again', title: 'Both go on', play: playAgain },
];

/** Plays all steps; one that cannot be played ends the story. */
export async function playHaStory(listener: StepListener): Promise<StepResult[]> {
  listener.onStep('Setting the stage');
  const stage = new HaStage(2);
  const before = readHostState(stage.topology.workload);
  await Promise.all([stage.startFirewall(0), stage.startFirewall(1)]);
  const agent = stage.startAgent({ ha: { holdDown: `${holdDownMs}ms` } });
  const pinging = new Pinging(stage.topology.workload);
  const results: StepResult[] = [];
  for (const step of steps) {
    const result = await playStep(step, listener, () => step.play({ stage, agent, pinging }));
    results.push(result);
    if (result.verdict === 'failed') break;
  }
  const restored = { name: 'restored', title: 'The host is as it was' };
  const last = await playStep(restored, listener, async () => {
    await pinging.stop();
    await agent.program.stop();
    const differences = compareHostStates(before, readHostState(stage.topology.workload));
    return [check('no difference', differences.join('; ') || 'none', differences.length === 0)];
  });
  await stage.close();
  return [...results, last];
}

function check(expected: string, seen: string, holds: boolean): Check {
  return { expected, seen, holds };
}

function isActive(name: string): (all: readonly FirewallState[]) => boolean {
  return (all) => activeOf(all).join() === name;
}

function within(what: string, tookMs: number, limitMs: number): Check {
  return check(`${what} within ${limitMs} ms`, `${tookMs} ms`, tookMs <= limitMs);
}

async function playHealthy({ agent }: Scene): Promise<Check[]> {
  await agent.reach('redirecting', startLimitMs);
  const both = (all: readonly FirewallState[]) => all.every(({ usable }) => usable);
  await reachFirewalls(agent, 'both are usable', both, startLimitMs);
  await pause(1000);
  const all = await reachFirewalls(agent, 'fw-a is active', isActive('fw-a'), 1000);
  const [a, b] = all.map(({ traffic }) => traffic.returned.packets);
  return [
    check(
      'both take telemetry and return the probe',
      all.map((one) => one.probe.state).join(),
      true,
    ),
    check('traffic goes by fw-a alone', `${a} packets by fw-a, ${b} by fw-b`, a! > 0 && b === 0),
  ];
}

async function playKilled({ agent, pinging, stage }: Scene): Promise<Check[]> {
  const lostMs = Date.now();
  stage.firewalls[0]!.program.signal('SIGKILL');
  const outMs = await pinging.recovery(lostMs, 10_000);
  const all = await reachFirewalls(agent, 'fw-b is active', isActive('fw-b'), 2000);
  return [
    within('the first packet by fw-b', outMs, failoverLimitMs),
    check('the agent says why', `fw-a: ${all[0]!.why}`, /probe/.test(all[0]!.why)),
    check('flows moved', `${all[1]!.traffic.flowsTaken}`, all[1]!.traffic.flowsTaken > 0),
  ];
}

async function playBack({ agent, pinging, stage }: Scene): Promise<Check[]> {
  const backMs = Date.now();
  await stage.startFirewall(0);
  await reachFirewalls(agent, 'fw-a is usable', ([a]) => a!.usable, startLimitMs);
  await pause(holdDownMs + 500);
  const all = await reachFirewalls(
    agent,
    'somebody is active',
    (all) => activeOf(all).length > 0,
    0,
  );
  const gapMs = pinging.longestGap(backMs);
  return [
    check('traffic stays with fw-b (preempt: false)', activeOf(all).join(), isActive('fw-b')(all)),
    check('no packet is missed', `longest silence ${gapMs} ms`, gapMs < 300),
  ];
}

async function playCut({ agent, pinging, stage }: Scene): Promise<Check[]> {
  const cutMs = Date.now();
  stage.cut('ip saddr 10.9.0.5 udp dport 6081');
  const outMs = await pinging.recovery(cutMs, 10_000);
  const all = await reachFirewalls(agent, 'fw-a is active', isActive('fw-a'), 2000);
  stage.heal();
  await reachFirewalls(agent, 'fw-b is usable', (all) => all[1]!.usable, 5000);
  return [
    within('the first packet by fw-a', outMs, failoverLimitMs),
    check('the agent says why', `fw-b: ${all[1]!.why}`, /tunnel/.test(all[1]!.why)),
  ];
}

async function playNone({ agent, pinging, stage }: Scene): Promise<Check[]> {
  const lostMs = Date.now();
  for (const { program } of stage.firewalls) program.signal('SIGSTOP');
  const outMs = await pinging.recovery(lostMs, 10_000);
  const { cause, gate } = await agent.reach('closed', 3000);
  return [
    within('traffic flows directly (onFirewallDown: pass)', outMs, failoverLimitMs + 500),
    check('the agent says why', cause, gate.cause === 'firewall-down'),
  ];
}

async function playAgain({ agent, pinging, stage }: Scene): Promise<Check[]> {
  const backMs = Date.now();
  for (const { program } of stage.firewalls) program.signal('SIGCONT');
  await agent.reach('redirecting', 5000);
  const tookMs = Date.now() - backMs;
  await pause(500);
  const gapMs = pinging.longestGap(backMs);
  return [
    within('traffic goes by a firewall again', tookMs, 2000),
    check('no packet is missed', `longest silence ${gapMs} ms`, gapMs < 300),
  ];
}
