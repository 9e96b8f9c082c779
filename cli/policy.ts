/** From a configuration to what the data path decides by. */
import type { BuiltIns, Prefix } from '../engine/classifier/built-in.ts';
import { compile } from '../engine/classifier/compile.ts';
import { groupOf } from '../engine/classifier/group.ts';
import { Established, type Policy } from '../engine/classifier/lookup.ts';
import { passNetworks } from '../engine/classifier/networks.ts';
import type { Config, Settings } from '../engine/config.ts';
import { OnFailure, Verdict } from '../engine/flows.ts';
import { OnLoss, type PeerOptions } from '../engine/peers.ts';
import { networkCapacity } from '../linux/bpf/policy.ts';

const verdicts = { redirect: Verdict.Redirect, pass: Verdict.Pass, drop: Verdict.Drop } as const;
const failures = {
  inherit: OnFailure.Inherit,
  pass: OnFailure.Pass,
  drop: OnFailure.Drop,
} as const;
const established = {
  pass: Established.Pass,
  redirect: Established.Redirect,
  reset: Established.Reset,
} as const;

const onLoss = { rebalance: OnLoss.Move, stick: OnLoss.Stick, reset: OnLoss.Reset } as const;
const onLossUnsynced = {
  redirect: OnLoss.Move,
  pass: OnLoss.Pass,
  reset: OnLoss.Reset,
} as const;

/** The firewalls, and how the data path chooses among them. */
export function peerOptionsOf(config: Settings): PeerOptions {
  const { firewalls, ha, policy, telemetry } = config;
  const spread = ha.distribution === 'flow-hash';
  const { kind } = ha.probe;
  return {
    firewalls: firewalls.map(({ address, returnFrom }) => ({ address, returnFrom })),
    spread,
    onLoss: spread
      ? onLoss[ha.onLoss]
      : ha.sessionSync
        ? OnLoss.Move
        : onLossUnsynced[policy.established],
    follow: !spread && ha.sessionSync,
    preempt: ha.preempt,
    holdDownMs: ha.holdDownMs,
    graceMs: telemetry.startupGraceMs,
    probe: kind === 'off' || kind === 'tunnel' ? kind : 'elsewhere',
    probeIntervalMs: ha.probe.intervalMs,
    probeFailures: ha.probe.failures,
  };
}

/** Policies are counted from here; 0 is what the kernel's page holds before the first. */
export const firstGeneration = 1;

/** Networks that the kernel passes by itself; none when there are too many to tell. */
export function networksOf(config: Config): readonly Prefix[] {
  return passNetworks(config.rules, verdicts[config.default], maximumNetworks) ?? [];
}

/** Of two policies at once, while one follows the other. */
const maximumNetworks = networkCapacity / 2;

/** A policy but for what the host and the run add to it. */
export type RulesPolicy = Omit<Policy, 'builtIns' | 'generation' | 'reclassifyBefore'>;

/**
 * @param generation counts the policies of this run
 * @throws when the rules do not fit in the compiled form's limits (engine/classifier/compile.ts)
 */
export function buildPolicy(config: Config, builtIns: BuiltIns, generation: number): Policy {
  return { ...rulesPolicyOf(config), builtIns, generation, reclassifyBefore: 0 };
}

/** @throws as `buildPolicy` */
export function rulesPolicyOf(config: Config): RulesPolicy {
  const { firewalls, policy, rules, workload } = config;
  const allFirewalls = (1 << firewalls.length) - 1;
  return {
    group: groupOf(workload.group.members, workload.group.intraGroup),
    tables: compile(rules),
    verdicts: Uint8Array.from(rules, (rule) => rule.verdict),
    onFailure: Uint8Array.from(rules, (rule) => failures[rule.onFailure]),
    firewalls: Uint16Array.from(rules, (rule) => rule.firewalls & allFirewalls),
    allFirewalls,
    logged: Uint8Array.from([...rules, { log: false }], ({ log }) =>
      config.log.which === 'all' || log ? 1 : 0,
    ),
    // Of each worker: its own, and the default's behind those of the rules.
    hits: new Float64Array(new SharedArrayBuffer(8 * (rules.length + 1) * config.limits.workers)),
    default: verdicts[config.default],
    established: established[policy.established],
    onTelemetryLoss: failures[policy.onTelemetryLoss],
    onBoot: failures[policy.onBoot],
    onFirewallDown: failures[policy.onFirewallDown],
    observe: policy.mode === 'observe',
    rolloutPercent: policy.rolloutPercent,
  };
}
