/**
 * The story: what a user wants to know of the agent, step by step, each step decided by what was
 * seen on the wire. A step's checks say what was expected and what was seen.
 */
import { gateBoundMs } from './agent.ts';
import {
  describeSightings,
  startWatch,
  type Watch,
  wentDirectly,
  wentThroughFirewall,
} from './evidence.ts';
import { countBlockedOnVxlanFirewall } from './firewalls.ts';
import { compareHostStates, readHostState } from './host-state.ts';
import { countsAgree, type JoinedFlow, joinFlows, sumFlows } from './joined-flows.ts';
import { pause, until } from './program.ts';
import type { Stage } from './stage.ts';
import { type Check, playStep, type StepListener, type StepResult, wasPlayed } from './step.ts';
import { addresses } from './topology.ts';
import { measureThroughput, type Pulse, ping, requestWeb, type WebResult } from './traffic.ts';

export type StoryOptions = StepListener & {
  /** Of bulk TCP through the firewall, each way. */
  readonly durationSeconds: number;
  readonly onThroughput: (bitsPerSecond: number, words: string) => void;
  /** Once, of a firewall that counts connections by itself. */
  readonly onFlows: (flows: readonly JoinedFlow[]) => void;
};

type Step = {
  readonly name: string;
  readonly title: string;
  readonly play: (stage: Stage, options: StoryOptions) => Promise<Check[]>;
};

const startLimitMs = 20_000;
/** A denied request is not answered at all; nobody needs to wait longer to see that. */
const deniedLimitMs = 1500;
const pings = 5;
/** How long two counts may take to agree that are asked one after the other. */
const countsLimitMs = 5000;
/** After the agent's death, traffic flows again within this. */
const recoveryMs = 1000;

const steps: readonly Step[] = [
  { name: 'direct', title: 'Traffic flows directly', play: playDirect },
  { name: 'redirect', title: 'Redirection is on', play: playRedirect },
  { name: 'blocked', title: 'The firewall blocks a request', play: playBlocked },
  { name: 'telemetry-cut', title: 'Telemetry is cut', play: playTelemetryCut },
  { name: 'telemetry-back', title: 'Telemetry is back', play: playTelemetryBack },
  { name: 'killed', title: 'The agent is killed (SIGKILL)', play: playKilled },
  { name: 'restored', title: 'The host is as it was', play: playRestored },
];

/** Plays all steps. After one that could not be played only the last is, for it cleans up. */
export async function playStory(stage: Stage, options: StoryOptions): Promise<StepResult[]> {
  const results: StepResult[] = [];
  let broken = false as boolean;
  for (const step of steps) {
    const skip: boolean = broken && step !== steps.at(-1);
    const result: StepResult = skip
      ? skipped(step, options)
      : await playStep(step, options, () => step.play(stage, options));
    broken ||= !wasPlayed(result);
    results.push(result);
  }
  return results;
}

function skipped({ name, title }: Step, { onResult }: StepListener): StepResult {
  const result: StepResult = { name, title, verdict: 'skipped', checks: [], durationMs: 0 };
  onResult(result);
  return result;
}

async function playDirect(stage: Stage, options: StoryOptions): Promise<Check[]> {
  const watch = await startWatch(stage, 'direct');
  const { egress, ingress, answered } = await exchange(stage, 'direct');
  const { url, hostHeader } = stage.forbidden('direct-forbidden');
  const forbidden = await requestWeb(
    stage.topology.workload,
    url,
    hostHeader ? { hostHeader } : {},
  );
  await watch.stop();
  const checks = [
    await directCheck(watch, 'a request out', 'direct-out', egress),
    await directCheck(watch, 'a request in', 'direct-in', ingress),
    await directCheck(
      watch,
      `a request for ${stage.forbiddenWords}`,
      'direct-forbidden',
      forbidden,
    ),
    pingCheck(answered),
  ];
  const seconds = Math.min(2, options.durationSeconds);
  checks.push(await throughputCheck(stage, options, seconds, false, 'directly'));
  return checks;
}

async function playRedirect(stage: Stage, options: StoryOptions): Promise<Check[]> {
  await stage.startAgent().reach('redirecting', startLimitMs);
  const watch = await startWatch(stage, 'redirect');
  const { egress, ingress, answered } = await exchange(stage, 'redirect');
  await watch.stop();
  const echoes = await watch.sight('icmp.type == 8');
  const faults = await watch.faults();
  return [
    await firewallCheck(watch, 'a request out', 'redirect-out', egress),
    await firewallCheck(watch, 'a request in', 'redirect-in', ingress),
    pingCheck(answered),
    {
      expected: 'pings go through the firewall, too',
      seen: describeSightings(echoes),
      holds: wentThroughFirewall(echoes),
    },
    {
      expected: 'tshark finds no fault with a tunnel packet',
      seen: `${faults} malformed or with a wrong checksum`,
      holds: faults === 0,
    },
    await throughputCheck(stage, options, options.durationSeconds, false, 'through the firewall'),
    await throughputCheck(stage, options, options.durationSeconds, true, 'through the firewall'),
  ];
}

async function playBlocked(stage: Stage, options: StoryOptions): Promise<Check[]> {
  const { workload } = stage.topology;
  const watch = await startWatch(stage, 'blocked');
  const { url, hostHeader } = stage.forbidden('blocked-bad');
  const limits = { limitMs: deniedLimitMs };
  const [bad, good] = await Promise.all([
    requestWeb(workload, url, hostHeader ? { hostHeader, ...limits } : limits),
    requestWeb(workload, `http://${addresses.server}/blocked-good`),
  ]);
  await watch.stop();
  const reached = await watch.server.count('frame contains "blocked-bad"');
  return [
    {
      expected: `a request for ${stage.forbiddenWords} is not answered`,
      seen: bad.words,
      holds: !bad.ok,
    },
    {
      expected: 'the server never sees it',
      seen: `${reached} packets with it at the server`,
      holds: reached === 0,
    },
    blockedCheck(stage),
    await firewallCheck(watch, 'another request', 'blocked-good', good),
    ...(await countsCheck(stage, options)),
  ];
}

/** What is on its way makes the counts differ for a moment: they are asked until they agree. */
async function countsCheck(stage: Stage, options: StoryOptions): Promise<Check[]> {
  const { agent, firewall } = stage;
  if (firewall.flows === undefined || agent === undefined) return [];
  let flows: JoinedFlow[] = [];
  const agree = await until('the counts agree', countsLimitMs, async () => {
    flows = joinFlows(await agent.flows(), await firewall.flows!());
    return flows.some((flow) => flow.reason !== '') && flows.every(countsAgree);
  }).then(
    () => true,
    () => false,
  );
  options.onFlows(flows);
  const [ours, theirs] = [sumFlows(flows.map((flow) => flow.agent)), sumFlows(flows)];
  return [
    {
      expected: 'agent and firewall counted the same packets on each connection',
      seen: `${flows.length} connections: agent ${ours}, firewall ${theirs}`,
      holds: agree,
    },
  ];
}

function blockedCheck(stage: Stage): Check {
  const expected = 'the firewall says that it blocked it';
  if (stage.firewall.kind === 'vxlan') {
    const count = countBlockedOnVxlanFirewall(stage.topology.firewall);
    return { expected, seen: `nftables dropped ${count} packets`, holds: count > 0 };
  }
  const said = stage.firewall.events.filter((event) => event.event === 'blocked').at(-1);
  const seen = said === undefined ? 'it said nothing' : `${said.about}: ${said.reason}`;
  return { expected, seen, holds: said !== undefined };
}

async function playTelemetryCut(stage: Stage): Promise<Check[]> {
  const watch = await startWatch(stage, 'cut');
  await stage.firewall.command('telemetry refuse');
  const cutAt = Date.now();
  await stage.agent?.reach('closed', gateBoundMs + 2000);
  await pause(Math.max(0, cutAt + gateBoundMs - Date.now()));
  const request = await requestWeb(stage.topology.workload, `http://${addresses.server}/cut-after`);
  await watch.stop();
  const times = await watch.tunnelTimes();
  const lastMs = (times.at(-1) ?? 0) - cutAt;
  const wasOn = times.some((time) => time > cutAt - 1000 && time < cutAt + gateBoundMs);
  return [
    {
      expected: `the last packet to the firewall within ${seconds(gateBoundMs)} of the cut`,
      seen: times.length === 0 ? 'none at all' : `${seconds(lastMs)} after it`,
      holds: wasOn && lastMs <= gateBoundMs,
    },
    await directCheck(watch, 'from then on, a request', 'cut-after', request),
    pulseCheck('no request is lost', stage.pulses.since(cutAt)),
  ];
}

async function playTelemetryBack(stage: Stage): Promise<Check[]> {
  const backAt = Date.now();
  await stage.firewall.command('telemetry ok');
  await stage.agent?.reach('redirecting', gateBoundMs + 2000);
  const tookMs = Date.now() - backAt;
  const watch = await startWatch(stage, 'back');
  const request = await requestWeb(
    stage.topology.workload,
    `http://${addresses.server}/back-after`,
  );
  await watch.stop();
  return [
    {
      expected: `redirection resumes within ${seconds(gateBoundMs)}`,
      seen: `after ${seconds(tookMs)}`,
      holds: tookMs <= gateBoundMs,
    },
    await firewallCheck(watch, 'a request', 'back-after', request),
    pulseCheck('no request is lost', stage.pulses.since(backAt)),
  ];
}

async function playKilled(stage: Stage): Promise<Check[]> {
  const { workload } = stage.topology;
  const watch = await startWatch(stage, 'killed');
  const killedAt = Date.now();
  stage.agent?.program.signal('SIGKILL');
  await stage.agent?.program.ended;
  await pause(2 * recoveryMs);
  const request = await requestWeb(workload, `http://${addresses.server}/killed-after`);
  await watch.stop();
  const pulses = stage.pulses.since(killedAt);
  // Not the first that was sent: its SYN may have died with the agent, and goes again after 1 s.
  const answeredMs = pulses.filter(({ ok }) => ok).map(({ ms, sentAt }) => sentAt + ms - killedAt);
  const firstMs = Math.min(...answeredMs);
  return [
    {
      expected: `a request is answered within ${seconds(recoveryMs)} of the kill`,
      seen: answeredMs.length === 0 ? 'none was answered' : `${seconds(firstMs)} after it`,
      holds: firstMs <= recoveryMs,
    },
    pulseCheck(
      'none that began later than that is lost',
      pulses.filter((pulse) => pulse.sentAt > killedAt + recoveryMs),
    ),
    await directCheck(watch, 'a request', 'killed-after', request),
  ];
}

async function playRestored(stage: Stage): Promise<Check[]> {
  const running = stage.agent?.program;
  if (running !== undefined && running.exitCode === undefined) await running.stop();
  const agent = stage.startAgent();
  let restarted = 'it redirects';
  await agent.reach('redirecting', startLimitMs).catch((error: Error) => {
    restarted = error.message;
  });
  const code = await agent.program.stop();
  await stage.pulses.stop();
  const differences = compareHostStates(stage.before, readHostState(stage.topology.workload));
  return [
    {
      expected: 'the agent starts again after its death',
      seen: restarted,
      holds: restarted === 'it redirects',
    },
    { expected: 'it stops when asked', seen: `exit code ${code}`, holds: code === 0 },
    {
      expected: 'addresses, routes, rules, links, offloads, nftables, sysctls, tc, tcx: identical',
      seen: differences.length === 0 ? 'no difference' : differences.slice(0, 5).join('\n'),
      holds: differences.length === 0,
    },
  ];
}

/** A request each way, marked `<step>-out` and `<step>-in`, and some pings. */
async function exchange(
  stage: Stage,
  step: string,
): Promise<{ egress: WebResult; ingress: WebResult; answered: number }> {
  const { workload, server } = stage.topology;
  const [egress, ingress, answered] = await Promise.all([
    requestWeb(workload, `http://${addresses.server}/${step}-out`),
    requestWeb(server, `http://${addresses.workload}/${step}-in`),
    ping(workload, addresses.server, pings),
  ]);
  return { egress, ingress, answered };
}

async function directCheck(
  watch: Watch,
  what: string,
  mark: string,
  result: WebResult,
): Promise<Check> {
  const seen = await watch.sight(`frame contains "${mark}"`);
  return {
    expected: `${what} is answered and goes directly`,
    seen: `${result.words}; ${describeSightings(seen)}`,
    holds: result.ok && wentDirectly(seen),
  };
}

async function firewallCheck(
  watch: Watch,
  what: string,
  mark: string,
  result: WebResult,
): Promise<Check> {
  const seen = await watch.sight(`frame contains "${mark}"`);
  return {
    expected: `${what} is answered and goes through the firewall`,
    seen: `${result.words}; ${describeSightings(seen)}`,
    holds: result.ok && wentThroughFirewall(seen),
  };
}

function pingCheck(answered: number): Check {
  const seen = `${answered} of ${pings}`;
  return { expected: 'every ping is answered', seen, holds: answered === pings };
}

function pulseCheck(expected: string, pulses: readonly Pulse[]): Check {
  const lost = pulses.filter((pulse) => !pulse.ok).length;
  const seen = `${lost} of ${pulses.length} lost`;
  return { expected, seen, holds: lost === 0 && pulses.length > 0 };
}

async function throughputCheck(
  stage: Stage,
  options: StoryOptions,
  durationSeconds: number,
  reverse: boolean,
  words: string,
): Promise<Check> {
  const way = `${reverse ? 'in' : 'out'} ${words}`;
  const bits = await measureThroughput(stage.topology.workload, addresses.server, {
    seconds: durationSeconds,
    reverse,
    onSecond: (now) => options.onThroughput(now, way),
  });
  options.onThroughput(0, '');
  const seen = `${(bits / 1e9).toFixed(2)} Gbit/s`;
  return { expected: `bulk TCP flows ${way}`, seen, holds: bits > 0 };
}

function seconds(ms: number): string {
  return `${(ms / 1000).toFixed(2)} s`;
}
