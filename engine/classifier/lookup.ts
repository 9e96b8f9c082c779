/**
 * The first packet of a connection to its verdict. Built-in exclusions come first, then the first
 * rule that matches, then the default. What the answer means (observe, roll-out, a connection whose
 * start was not seen) is `verdictOf`'s.
 *
 * A policy is immutable but for its hit counters, and is replaced whole.
 */
import { OnFailure, Verdict } from '../flows.ts';
import type { Direction } from '../io.ts';
import { type BuiltIns, isBuiltIn } from './built-in.ts';
import { type Group, isOthersToRedirect } from './group.ts';
import { match } from './match.ts';
import { noRule } from './rules.ts';
import type { Tables } from './tables.ts';

/** What becomes of a TCP connection whose SYN we did not see. */
export const Established = { Pass: 0, Redirect: 1, Reset: 2 } as const;
export type Established = (typeof Established)[keyof typeof Established];

/** Plain data and shared memory: it crosses from the main thread to the data path as a message. */
export type Policy = {
  /** Counts policies; flows remember which one decided them. */
  readonly generation: number;
  /** Flows that earlier policies than this one decided are decided again; 0: they never are. */
  readonly reclassifyBefore: number;
  readonly builtIns: BuiltIns;
  /** None, or all its members redirect. */
  readonly group?: Group | undefined;
  readonly tables: Tables;
  /** By rule: Verdict.Redirect, Pass or Drop. */
  readonly verdicts: Uint8Array;
  /** By rule: OnFailure. */
  readonly onFailure: Uint8Array;
  /** By rule: the set of firewalls that may take its connections, bit i for the i-th. */
  readonly firewalls: Uint16Array;
  /** The set of all firewalls, which take what no rule matches. */
  readonly allFirewalls: number;
  /** By rule, and last for what no rule decides: 1 when the flow log has its connections. */
  readonly logged: Uint8Array;
  /** Connections by rule that decided them, in shared memory; the last is the default's. */
  readonly hits: Float64Array;
  /** What no rule matches: Redirect, Pass or Drop. */
  readonly default: Verdict;
  readonly established: Established;
  /** OnFailure.Pass or OnFailure.Drop: when telemetry is lost, where no rule says otherwise. */
  readonly onTelemetryLoss: OnFailure;
  /** OnFailure.Pass or OnFailure.Drop: until a firewall has been usable once. */
  readonly onBoot: OnFailure;
  /** The same for when firewalls take telemetry and none of them is healthy. */
  readonly onFirewallDown: OnFailure;
  /** Look, count, and redirect nothing. */
  readonly observe: boolean;
  /** Percentage of new flows that is redirected. */
  readonly rolloutPercent: number;
};

/** `classify` answers an index of a rule, noRule (the default), or this. */
export const builtInRule = -2;
/** Or this: between members of a group, and the other one's agent redirects. */
export const groupRule = -3;

/** @param opener who opens the connection: egress is this host */
export function classify(
  policy: Policy,
  opener: Direction,
  local: number,
  remote: number,
  localPort: number,
  remotePort: number,
  protocol: number,
): number {
  if (isBuiltIn(policy.builtIns, opener, local, remote, localPort, remotePort, protocol)) {
    return builtInRule;
  }
  const { group } = policy;
  if (group !== undefined && isOthersToRedirect(group, opener, local, remote)) return groupRule;
  return match(policy.tables, opener, local, remote, localPort, remotePort, protocol);
}

/**
 * What `classify`'s answer means for a flow. Undecided: its start was not seen and the policy is to
 * reset it.
 *
 * @param share any number that stays the same for the flow; its remainder by 100 is compared with
 *   the roll-out
 */
export function verdictOf(
  policy: Policy,
  rule: number,
  share: number,
  midStream: boolean,
): Verdict {
  if (rule === builtInRule) return Verdict.PassBuiltIn;
  if (rule === groupRule) return Verdict.PassGroup;
  const verdict = rule === noRule ? policy.default : (policy.verdicts[rule] as Verdict);
  if (verdict !== Verdict.Redirect) return verdict;
  if (policy.observe) return Verdict.Observe;
  if (policy.rolloutPercent < 100 && (share >>> 0) % 100 >= policy.rolloutPercent) {
    return Verdict.PassRollout;
  }
  if (!midStream || policy.established === Established.Redirect) return Verdict.Redirect;
  return policy.established === Established.Reset ? Verdict.Undecided : Verdict.PassEstablished;
}

/** What the rule says for when the firewall cannot be used; Inherit for the default. */
export function onFailureOf(policy: Policy, rule: number): OnFailure {
  return rule >= 0 ? (policy.onFailure[rule] as OnFailure) : OnFailure.Inherit;
}

/** The set of firewalls that may take its connections. */
export function firewallsOf(policy: Policy, rule: number): number {
  return rule >= 0 ? policy.firewalls[rule] : policy.allFirewalls;
}

/** Whether the flow log is to have a connection that `rule` decided, as `classify` answered. */
export function isLogged({ logged }: Policy, rule: number): number {
  return logged[rule >= 0 ? rule : logged.length - 1];
}

/**
 * Whether rules have something to say while telemetry is lost: one overrides onTelemetryLoss, or
 * drops what it drops also then. The kernel alone cannot tell such connections from others.
 */
export function decidesWhileClosed(policy: Policy): boolean {
  if (policy.default === Verdict.Drop || policy.verdicts.includes(Verdict.Drop)) return true;
  for (let rule = 0; rule < policy.onFailure.length; rule++) {
    if (policy.onFailure[rule] !== OnFailure.Inherit) return true;
  }
  return false;
}
