/**
 * What the policy of a configuration makes of a connection, and why: decided by the tables and the
 * functions that the engine decides by, explained by looking at the rules one by one.
 */
import { contains } from '../../engine/classifier/built-in.ts';
import {
  builtInRule,
  classify,
  firewallsOf,
  groupRule,
  type Policy,
  verdictOf,
} from '../../engine/classifier/lookup.ts';
import { noRule } from '../../engine/classifier/rules.ts';
import type { Tables } from '../../engine/classifier/tables.ts';
import type { Config } from '../../engine/config.ts';
import { symmetricHash } from '../../engine/flow-hash.ts';
import { Verdict } from '../../engine/flows.ts';
import { Protocol } from '../../parsers/ipv4.ts';
import { formatAddress } from '../../parsers/text.ts';
import { innerMtu } from '../../tunnel/encapsulation.ts';
import { rendezvous } from '../../tunnel/firewalls.ts';
import type { ReadConfig } from '../config/parse.ts';
import { formatProtocol } from '../config/text.ts';
import { createEncapsulation } from '../data-path.ts';
import { builtInsOf, type Links, wantsAcceleration } from '../host-policy.ts';
import { buildPolicy, firstGeneration, networksOf } from '../policy.ts';
import { builtInReason } from './built-in-reason.ts';
import { type Connection, directionNames, type Miss, missOf } from './misses.ts';
import { hasPorts } from './tuple.ts';

export type DecidedBy = {
  readonly kind: 'rule' | 'default' | 'built-in';
  readonly name: string;
  /** Line in the file; 0 when it is not written there. */
  readonly line: number;
};

export type Explanation = {
  readonly connection: string;
  readonly direction: 'egress' | 'ingress';
  /** What the rule, the default or the exclusion says. */
  readonly verdict: 'redirect' | 'pass' | 'drop';
  readonly decidedBy: DecidedBy;
  /** What becomes of it in fact: differs from the verdict by policy.mode and policy.rollout. */
  readonly effect: string;
  /** What happens while telemetry is lost; empty when that changes nothing. */
  readonly onFailure: string;
  /** What happens while no firewall is healthy; empty when that changes nothing. */
  readonly onFirewallDown: string;
  /** What happens when it was open before the agent started; empty when that changes nothing. */
  readonly established: string;
  /** Where it is sent; empty when it is not redirected. */
  readonly firewall: string;
  readonly innerMtu: string;
  readonly laterPackets: string;
  /** How the rules are looked up, when that is slow; else empty. */
  readonly lookUp: string;
  /** The rules before the one that decides, in their order, and why each does not match. */
  readonly misses: readonly Miss[];
};

export type Decision = {
  readonly rule: number;
  /** With policy.mode; a share of less than 100% counts as all. */
  readonly verdict: Verdict;
};

const words: Partial<Record<Verdict, Explanation['verdict']>> = {
  [Verdict.Redirect]: 'redirect',
  [Verdict.Drop]: 'drop',
};

export class Decider {
  readonly config: Config;
  private readonly source: ReadConfig;
  private readonly policy: Policy;
  private readonly networks: ReturnType<typeof networksOf>;
  private readonly accelerates: boolean;

  /** @throws RulesTooLargeError when the rules do not fit */
  constructor(source: ReadConfig, links: Links) {
    this.source = source;
    this.config = source.config;
    this.policy = buildPolicy(source.config, builtInsOf(source.config, links), firstGeneration);
    this.networks = networksOf(source.config);
    this.accelerates = wantsAcceleration(source.config, links);
  }

  /** @param midStream whether it is TCP and its first packet was not seen */
  decide(connection: Connection, midStream: boolean): Decision {
    const { local, localPort, opener, protocol, remote, remotePort } = connection;
    const { policy } = this;
    const rule = classify(policy, opener, local, remote, localPort, remotePort, protocol);
    return { rule, verdict: verdictOf(policy, rule, 0, midStream) };
  }

  /** @param agentMtu of the running agent; undefined when there is none */
  explain(connection: Connection, agentMtu: number | undefined): Explanation {
    const { rule } = this.decide(connection, false);
    const verdict = this.verdictBy(rule);
    const { config } = this;
    const wanted = verdict === 'redirect';
    const redirected = wanted && config.policy.mode === 'enforce';
    return {
      connection: formatConnection(connection),
      direction: directionNames[connection.opener],
      verdict,
      decidedBy: this.decidedBy(rule, connection),
      effect: wanted ? this.effect() : '',
      onFailure: this.onFailure(rule, verdict, 'onTelemetryLoss'),
      onFirewallDown: redirected ? this.onFailure(rule, verdict, 'onFirewallDown') : '',
      established:
        redirected && connection.protocol === Protocol.Tcp
          ? `${config.policy.established} (policy.established)`
          : '',
      firewall: redirected ? this.firewall(rule, connection) : '',
      innerMtu: redirected ? this.innerMtu(agentMtu) : '',
      laterPackets: this.laterPackets(rule, verdict, connection),
      lookUp: rule < noRule ? '' : describeScan(this.policy.tables),
      misses: rule < noRule ? [] : this.misses(rule, connection),
    };
  }

  nameOf(rule: number, connection: Connection): DecidedBy {
    return this.decidedBy(rule, connection);
  }

  private verdictBy(rule: number): Explanation['verdict'] {
    if (rule < noRule) return 'pass';
    if (rule === noRule) return this.config.default;
    return words[this.config.rules[rule]!.verdict] ?? 'pass';
  }

  private decidedBy(rule: number, connection: Connection): DecidedBy {
    if (rule === noRule) {
      return { kind: 'default', name: 'default', line: this.source.placeOf(['default']).line };
    }
    if (rule === groupRule) {
      const { line } = this.source.placeOf(['workload', 'group', 'members']);
      const { intraGroup } = this.config.workload.group;
      const name = `between members of the group, the ${intraGroup}'s agent redirects`;
      return { kind: 'built-in', name, line };
    }
    if (rule !== builtInRule) {
      const { name, line } = this.config.rules[rule]!;
      return { kind: 'rule', name, line };
    }
    const reason = builtInReason(this.policy.builtIns, connection);
    const line = reason?.path === undefined ? 0 : this.source.placeOf(reason.path).line;
    return { kind: 'built-in', name: reason?.why ?? 'excluded', line };
  }

  private misses(rule: number, connection: Connection): Miss[] {
    const end = rule === noRule ? this.config.rules.length : rule;
    return this.config.rules
      .slice(0, end)
      .map((earlier) => missOf(earlier, connection))
      .filter((miss) => miss !== undefined);
  }

  private effect(): string {
    const { mode, rolloutPercent } = this.config.policy;
    if (mode === 'observe') return 'passes and is counted (policy.mode: observe)';
    if (rolloutPercent === 100) return '';
    return `passes for ${100 - rolloutPercent}% of new flows, by hash (policy.rollout)`;
  }

  private onFailure(
    rule: number,
    verdict: Explanation['verdict'],
    key: 'onTelemetryLoss' | 'onFirewallDown',
  ): string {
    if (rule < noRule) return '';
    const own = rule === noRule ? 'inherit' : this.config.rules[rule]!.onFailure;
    const loss = own === 'inherit' ? this.config.policy[key] : own;
    if (verdict === 'drop' || loss === verdict) return '';
    return `${loss} (${own === 'inherit' ? `policy.${key}` : 'onFailure of the rule'})`;
  }

  /** The firewalls that may take it, the one that does while all are healthy first. */
  private firewall(rule: number, connection: Connection): string {
    const { firewalls, ha, tunnel } = this.config;
    const set = firewallsOf(this.policy, rule);
    const names = firewalls.flatMap(({ address, name }, i) =>
      ((set >> i) & 1) === 1 ? `${name} (${formatAddress(address)})` : [],
    );
    const by = `by ${tunnel.encapsulation}`;
    if (ha.distribution === 'active-passive' || names.length === 1) {
      return `${names.join(', else ')} ${by}`;
    }
    const { local, localPort, protocol, remote, remotePort } = connection;
    const hash = symmetricHash(local, remote, localPort, remotePort, protocol);
    const seeds = firewalls.map(({ address }) => address);
    const { address, name } = firewalls[rendezvous(seeds, set, hash)]!;
    return `${name} (${formatAddress(address)}) ${by}, the hash's choice of ${names.length}`;
  }

  private innerMtu(agentMtu: number | undefined): string {
    if (agentMtu !== undefined) return `${agentMtu} (as the running agent knows it)`;
    const { tunnel } = this.config;
    const encapsulation = createEncapsulation(tunnel);
    if (tunnel.mtu !== 0) return `${innerMtu(tunnel.mtu, encapsulation)} at most (tunnel.mtu)`;
    return `the path's less ${encapsulation.overhead}: ${innerMtu(1500, encapsulation)} of 1500`;
  }

  private laterPackets(
    rule: number,
    verdict: Explanation['verdict'],
    { protocol, remote }: Connection,
  ): string {
    if (rule === builtInRule) return 'all stay in the kernel';
    if (verdict === 'redirect') {
      const { policy } = this.config;
      if (policy.mode === 'observe') return 'user space, which counts';
      return this.accelerates && hasPorts(protocol)
        ? 'the kernel, by way of the firewall, once it is established; user space until then'
        : 'user space, by way of the firewall';
    }
    if (verdict === 'pass' && this.networks.some((network) => contains(network, remote))) {
      return 'all stay in the kernel: everything with this network passes';
    }
    return hasPorts(protocol) ? 'the kernel, which remembers the verdict' : 'user space';
  }
}

/** Empty for rules that are a trie. */
export function describeScan({ ruleCount, scanRoot }: Tables): string {
  if (scanRoot < 0) return '';
  return `all ${ruleCount} rules one after the other: their ranges cross too much for a trie`;
}

/** `tcp 10.1.0.9:41000 -> 10.2.0.7:5432`, its opener first. */
export function formatConnection(connection: Connection): string {
  const { local, localPort, opener, protocol, remote, remotePort } = connection;
  const end = (address: number, port: number) =>
    `${formatAddress(address)}${hasPorts(protocol) ? `:${port}` : ''}`;
  const ends = [end(local, localPort), end(remote, remotePort)];
  return `${formatProtocol(protocol)} ${(opener === 0 ? ends : ends.reverse()).join(' -> ')}`;
}
