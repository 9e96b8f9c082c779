/**
 * What a rule is, once its text has been read: numbers only, no names of sets, no YAML. A rule
 * speaks about a connection as this host sees it; both directions of a connection get one verdict.
 */
import type { Verdict } from '../flows.ts';

/** Both ends included. Addresses unsigned (0 to 2^32 - 1), ports 0 to 65535. */
export type Range = { readonly first: number; readonly last: number };

/** Who opens the connection. */
export const Opener = { Egress: 1, Ingress: 2, Both: 3 } as const;
export type Opener = (typeof Opener)[keyof typeof Opener];

export type Rule = {
  readonly name: string;
  /** Line of the rule in its file, from 1; 0 when it has none. */
  readonly line: number;
  readonly opener: Opener;
  /**
   * IP protocol number; -1: any. Ports are of TCP and UDP only: a rule with ports matches no other.
   */
  readonly protocol: number;
  /** Empty: any. Each list is a union. */
  readonly local: readonly Range[];
  readonly remote: readonly Range[];
  readonly localPort: readonly Range[];
  readonly remotePort: readonly Range[];
  /** Verdict.Redirect, Verdict.Pass or Verdict.Drop. */
  readonly verdict: Verdict;
  /** Overrides onTelemetryLoss and onFirewallDown for its connections. */
  readonly onFailure: 'inherit' | 'pass' | 'drop';
  /** Which firewalls may take its connections: bit i for the i-th; -1: all. */
  readonly firewalls: number;
  readonly log: boolean;
};

/** What no rule matches. */
export const noRule = -1;
