/**
 * What `GET /status` answers: the contract between the agent and whoever shows it (the status
 * screen, `top`, programs). Keys are stable; new ones may come.
 */
import type { GateStatus } from '../engine/gate.ts';

type Amount = { readonly packets: number; readonly bytes: number };

/** What traffic meets. */
export type AgentState = 'starting' | 'opening' | 'redirecting' | 'closed' | 'stopping';

export type InterfaceStatus = {
  readonly name: string;
  readonly index: number;
  /** Its traffic comes to the agent now. */
  readonly redirected: boolean;
  /** What the kernel has otherwise than the agent left it, a sentence each. */
  readonly drift: readonly string[];
};

/** Ages are in milliseconds; -1: never. */
export type FirewallStatus = {
  readonly name: string;
  readonly address: string;
  /** It may take flows. */
  readonly usable: boolean;
  /** New flows go here. */
  readonly active: boolean;
  /** It was lost a short while ago, so others are preferred. */
  readonly heldDown: boolean;
  /** How long it has been usable, or not. */
  readonly sinceMs: number;
  /** How often that has changed. */
  readonly changes: number;
  /** Why it is not usable; empty when it is. */
  readonly why: string;
  readonly telemetry: Pick<GateStatus, 'open' | 'cause' | 'sentence' | 'leaseMs'>;
  readonly probe: {
    /** off, tunnel, tcp, http, https */
    readonly kind: string;
    /** off, waiting, answered, lost */
    readonly state: string;
    readonly roundTripMs: number;
    readonly sent: number;
    readonly answered: number;
    readonly lastAnswerMs: number;
  };
  readonly traffic: {
    readonly sent: Amount;
    readonly returned: Amount;
    readonly lastReturnMs: number;
    /** Flows that came from a firewall that was lost. */
    readonly flowsTaken: number;
  };
  /** Largest inner packet on the way to it, bytes. */
  readonly innerMtu: number;
};

export type FailurePolicyStatus = {
  /** Its key in the configuration, below `policy`. */
  readonly key: string;
  readonly value: string;
  /** The failure is here, and traffic meets this policy. */
  readonly inForce: boolean;
  /** What it does, or why it is in force. */
  readonly words: string;
};

export type RuleStatus = {
  /** `default` for what no rule matches. */
  readonly name: string;
  /** In the file; 0 for the default. */
  readonly line: number;
  readonly action: string;
  /** Connections that it decided since the policy came into force. */
  readonly hits: number;
  /** Why it can never match; empty when it can. */
  readonly never: string;
};

/** A configuration that goes away by itself unless it is confirmed. */
export type PendingStatus = {
  readonly secondsLeft: number;
  readonly rollbackAt: string;
  readonly changed: readonly string[];
};

export type ConfigurationStatus = {
  readonly file: string;
  readonly loadedAt: string;
  /** The file has changed since, or cannot be read any more. */
  readonly differs: boolean;
  readonly pending?: PendingStatus;
};

export type AgentStatus = {
  readonly version: string;
  readonly startedAt: string;
  readonly upMs: number;
  readonly state: AgentState;
  /** Why it is in this state, a sentence. */
  readonly cause: string;
  /** Since when it is. */
  readonly since: string;
  /** What the kernel programs do: pass, redirect, drop, by rule. */
  readonly mode: string;
  readonly gate: GateStatus;
  readonly firewalls: readonly FirewallStatus[];
  readonly distribution: string;
  /** UDP ports at the firewall: one, or those of egress and ingress. */
  readonly tunnel: { readonly encapsulation: string; readonly ports: readonly number[] };
  readonly innerMtu: number;
  readonly interfaces: readonly InterfaceStatus[];
  readonly attachedBy: string;
  /** What the host has otherwise than the agent needs it, a sentence each. */
  readonly drift: readonly string[];
  /** What changed on the host and was put right since the start. */
  readonly repairs: {
    readonly count: number;
    readonly latest: readonly { readonly at: string; readonly words: string }[];
  };
  readonly policy: { readonly mode: string; readonly rolloutPercent: number };
  readonly policyGeneration: number;
  readonly failurePolicies: readonly FailurePolicyStatus[];
  readonly ipv6: { readonly policy: string; readonly leaks: boolean };
  /** Never redirected and never dropped; `ssh` for one that the agent found by itself. */
  readonly management: readonly { readonly exception: string; readonly source: string }[];
  readonly flows: { readonly count: number; readonly capacity: number; readonly evicted: number };
  /** Of the data path; packets that one gave to the one that has their flow. */
  readonly workers: { readonly count: number; readonly handedOver: number };
  /** Who carries redirected flows once they are established. */
  readonly acceleration: {
    readonly by: 'kernel' | 'agent';
    /** Why not the kernel, though it was asked for; empty otherwise. */
    readonly reason: string;
  };
  readonly flowLog?: object;
  readonly rules: readonly RuleStatus[];
  /** By fate of the packet; fates that no packet met are left out. */
  readonly counters: Readonly<
    Record<string, Amount & { readonly kind: string; readonly words: string }>
  >;
  /** What the kernel programs did by themselves. */
  readonly kernel: Readonly<Record<string, Amount>>;
  /** Packets that waited for the data path in vain. */
  readonly tunDropped: number;
  readonly configuration?: ConfigurationStatus;
};
