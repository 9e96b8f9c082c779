/** From a configuration to what the data path decides by. */
import type { BuiltIns, Prefix } from '../engine/classifier/built-in.ts';
import { compile } from '../engine/classifier/compile.ts';
import { Established, type Policy } from '../engine/classifier/lookup.ts';
import { passNetworks } from '../engine/classifier/networks.ts';
import type { Config } from '../engine/config.ts';
import { OnFailure, Verdict } from '../engine/flows.ts';
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

/** Policies are counted from here; 0 is what the kernel's page holds before the first. */
export const firstGeneration = 1;

/** Networks that the kernel passes by itself; none when there are too many to tell. */
export function networksOf(config: Config): readonly Prefix[] {
  return passNetworks(config.rules, verdicts[config.default], maximumNetworks) ?? [];
}

/** Of two policies at once, while one follows the other. */
const maximumNetworks = networkCapacity / 2;

/**
 * @param generation counts the policies of this run
 * @throws when the rules do not fit in the compiled form's limits (engine/classifier/compile.ts)
 */
export function buildPolicy(config: Config, builtIns: BuiltIns, generation: number): Policy {
  const { policy, rules } = config;
  return {
    generation,
    builtIns,
    tables: compile(rules),
    verdicts: Uint8Array.from(rules, (rule) => rule.verdict),
    onFailure: Uint8Array.from(rules, (rule) => failures[rule.onFailure]),
    hits: new Float64Array(new SharedArrayBuffer(8 * (rules.length + 1))),
    default: verdicts[config.default],
    established: established[policy.established],
    onTelemetryLoss: failures[policy.onTelemetryLoss],
    onBoot: failures[policy.onBoot],
    observe: policy.mode === 'observe',
    rolloutPercent: policy.rolloutPercent,
  };
}
