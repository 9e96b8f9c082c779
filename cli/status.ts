/** What a running agent says about itself: one reading of everything, for `GET /status`. */
import type {
  AgentState,
  AgentStatus,
  FailurePolicyStatus,
  InterfaceStatus,
  RuleStatus,
} from '../control/status.ts';
import { type Settings, tunnelPortsOf } from '../engine/config.ts';
import { type Counters, Gauge } from '../engine/counters.ts';
import { Verdict } from '../engine/flows.ts';
import type { GateStatus } from '../engine/gate.ts';
import { SteeringMode } from '../engine/io.ts';
import { type Interface, listInterfaces } from '../linux/netlink.ts';
import type { AttachedSteering } from '../linux/steering.ts';
import { reasonKinds, reasonNames, reasonSentences } from '../parsers/reason.ts';
import type { AccelerationPlan } from './acceleration.ts';
import { formatException } from './config/text.ts';
import { hitsOf } from './data-paths.ts';
import type { FirewallWatch } from './firewalls.ts';
import type { Links } from './host-policy.ts';
import type { InForce } from './policy-in-force.ts';
import type { Pulse } from './pulse.ts';
import { version } from './version.ts';

export type StatusSources = {
  readonly inForce: InForce;
  readonly links: Links;
  readonly firewalls: FirewallWatch;
  readonly steering: AttachedSteering;
  readonly plan: AccelerationPlan;
  readonly tunIndex: number;
  /** Of the management exceptions, the last ones: not the file's. */
  readonly foundExceptions: number;
  readonly counters: Counters;
  readonly pulse: Pulse;
  readonly startedMs: number;
  /** The same by `performance.now`, which no clock that is set can change. */
  readonly startedAt: number;
};

const modeNames: Readonly<Record<SteeringMode, string>> = {
  [SteeringMode.Pass]: 'pass',
  [SteeringMode.Redirect]: 'redirect',
  [SteeringMode.Drop]: 'drop',
  [SteeringMode.RedirectAll]: 'by rule',
};

export function describeStatus(sources: StatusSources): Omit<AgentStatus, 'drift' | 'repairs'> {
  const { counters, firewalls, inForce, links, pulse, startedMs, steering } = sources;
  const { policy, settings: config } = inForce;
  const { gauges } = counters;
  const gateStatus = firewalls.gate(gauges[Gauge.Availability]);
  const mode = modeNames[gauges[Gauge.SteeringMode] as SteeringMode];
  const state = stateOf(gateStatus, counters);
  const present = listInterfaces();
  return {
    version,
    startedAt: new Date(startedMs).toISOString(),
    upMs: Math.round(performance.now() - sources.startedAt),
    state,
    cause: gateStatus.sentence,
    since: new Date(pulse.since(state)).toISOString(),
    mode,
    gate: gateStatus,
    firewalls: firewalls.status(),
    distribution: config.ha.distribution,
    tunnel: {
      encapsulation: config.tunnel.encapsulation,
      ports: tunnelPortsOf(config.tunnel),
    },
    innerMtu: gauges[Gauge.InnerMtu],
    interfaces: interfacesOf(links, steering, present, state === 'redirecting'),
    attachedBy: steering.method,
    policy: config.policy,
    policyGeneration: policy.generation,
    failurePolicies: failurePoliciesOf(config, gateStatus, pulse, firewalls.everUsable),
    ipv6: { policy: config.workload.ipv6, leaks: leaksIpv6(config, links) },
    management: config.workload.management.map((exception, index, { length }) => ({
      exception: formatException(exception),
      source: index >= length - sources.foundExceptions ? 'ssh' : 'configuration',
    })),
    flows: {
      count: gauges[Gauge.Flows],
      capacity: config.limits.flows,
      evicted: gauges[Gauge.FlowsEvicted],
    },
    workers: { count: config.limits.workers, handedOver: gauges[Gauge.HandedOver] },
    acceleration: {
      by: sources.plan.acceleration === undefined ? 'agent' : 'kernel',
      reason: sources.plan.reason,
    },
    rules: rulesOf(inForce),
    counters: counted(counters),
    kernel: steering.readCounters(),
    tunDropped: tunDroppedOf(present, sources.tunIndex),
  };
}

/** What traffic meets: an open gate redirects once the data path has seen it. */
export function stateOf({ cause, open }: GateStatus, { gauges }: Counters): AgentState {
  if (open) return gauges[Gauge.SteeringMode] === SteeringMode.Redirect ? 'redirecting' : 'opening';
  return cause === 'starting' || cause === 'stopping' ? cause : 'closed';
}

/** IPv6 goes past inspection: the host has it, and it is let through. */
export function leaksIpv6(config: Settings, links: Links): boolean {
  return links.globalIpv6 && config.workload.ipv6 === 'pass';
}

/** Packets that waited for the data path in vain: the device's queue was full. */
export function tunDroppedOf(present: readonly Interface[], tunIndex: number): number {
  return present.find(({ index }) => index === tunIndex)?.sendDropped ?? 0;
}

function interfacesOf(
  links: Links,
  steering: AttachedSteering,
  present: readonly Interface[],
  redirecting: boolean,
): InterfaceStatus[] {
  const missing = steering.missing();
  return links.interfaces.map((link) => {
    const now = present.find(({ index }) => index === link.index);
    const drift = missing
      .filter(({ interfaceName }) => interfaceName === link.name)
      .map(({ hook }) => `its ${hook} hook has no program of ours any more`);
    if (now === undefined) drift.push('it is gone, or moved to another namespace');
    else if (now.mac !== link.mac) drift.push(`its address is ${now.mac}, was ${link.mac}`);
    else if (now.name !== link.name) drift.push(`it is called ${now.name} now`);
    else if (!now.up) drift.push('it is down');
    const { index, name } = link;
    return { name, index, redirected: redirecting && drift.length === 0, drift };
  });
}

const passes = { pass: 'traffic flows directly', drop: 'only management exceptions flow' } as const;
const establishedWords = {
  pass: 'connections that began elsewhere pass until they end',
  redirect: 'connections that began elsewhere are redirected',
  reset: 'connections that began elsewhere are reset at both ends',
} as const;

function failurePoliciesOf(
  { policy }: Settings,
  gate: GateStatus,
  pulse: Pulse,
  everUsable: boolean,
): FailurePolicyStatus[] {
  const isDown = !gate.open && gate.cause === 'firewall-down';
  const lost = !gate.open && !isDown && gate.cause !== 'starting' && gate.cause !== 'stopping';
  const silentMs = pulse.silentMs();
  const hangs = silentMs > hangMs;
  const holdsBoot = policy.onBoot === 'drop' && !everUsable && gate.cause !== 'stopping';
  return [
    {
      key: 'onBoot',
      value: policy.onBoot,
      inForce: everUsable ? false : holdsBoot || gate.cause === 'starting',
      words: everUsable
        ? 'over: a firewall was usable'
        : `${passes[policy.onBoot]} until a firewall is usable`,
    },
    {
      key: 'onTelemetryLoss',
      value: policy.onTelemetryLoss,
      inForce: lost && !holdsBoot,
      words: lost
        ? `${passes[policy.onTelemetryLoss]}, because ${gate.sentence}`
        : `then ${passes[policy.onTelemetryLoss]}`,
    },
    {
      key: 'onFirewallDown',
      value: policy.onFirewallDown,
      inForce: isDown && !holdsBoot,
      words: isDown
        ? `${passes[policy.onFirewallDown]}, because ${gate.sentence}`
        : `then ${passes[policy.onFirewallDown]}`,
    },
    {
      key: 'onAgentFailure',
      value: policy.onAgentFailure,
      inForce: hangs,
      words: hangs
        ? `${passes[policy.onAgentFailure]}, because the data path has been silent for ${Math.round(silentMs / 1000)} s`
        : `then ${passes[policy.onAgentFailure]}`,
    },
    {
      key: 'established',
      value: policy.established,
      inForce: true,
      words: establishedWords[policy.established],
    },
  ];
}

/** The kernel programs wait for 0.7 s; the pulse is felt every half a second. */
const hangMs = 1_500;

const actions: Partial<Record<Verdict, string>> = {
  [Verdict.Redirect]: 'redirect',
  [Verdict.Pass]: 'pass',
  [Verdict.Drop]: 'drop',
};

export function rulesOf({ policy, rules, settings }: InForce): RuleStatus[] {
  const rows = rules.names.map((name, rule) => ({
    name,
    line: rules.lines[rule],
    action: actions[policy.verdicts[rule] as Verdict] ?? '',
    hits: hitsOf(policy, rule),
    never: rules.never.get(rule) ?? '',
  }));
  const hits = hitsOf(policy, policy.verdicts.length);
  return [...rows, { name: 'default', line: 0, action: settings.default, hits, never: '' }];
}

function counted(counters: Counters): AgentStatus['counters'] {
  const entries = reasonNames.map((name, reason) => [
    name,
    {
      kind: reasonKinds[reason],
      words: reasonSentences[reason],
      packets: counters.packets[reason],
      bytes: counters.bytes[reason],
    },
  ]);
  return Object.fromEntries(entries.filter((_, reason) => counters.packets[reason] > 0));
}
