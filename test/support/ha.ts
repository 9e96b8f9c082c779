/** Two or three firewalls on one segment, and an agent that knows them all. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Test } from 'tap';
import { type Agent, startAgent } from '../../lab/agent.ts';
import {
  type Certificates,
  createCertificates,
  createRunDirectory,
} from '../../lab/certificates.ts';
import { createFirewallSegment, segmentAddresses } from '../../lab/firewall-segment.ts';
import { type Firewall, startBuiltinFirewall } from '../../lab/firewalls.ts';
import type { Namespace } from '../../lab/namespace.ts';
import { type Program, pause, start, until } from '../../lab/program.ts';
import { addresses, createTopology, type Topology } from '../../lab/topology.ts';

export type HaOptions = {
  readonly count?: 2 | 3;
  /** How many of them the agent knows; all by default. */
  readonly known?: number;
  /** The sections of the agent's configuration. */
  readonly ha?: object;
  readonly policy?: object;
  /** Default: the product's own times, so that the probe is what tells first. */
  readonly telemetry?: object;
  readonly top?: object;
  /** Called when the firewalls run, before the agent; what it starts ends with the test. */
  readonly before?: (lab: HaLab) => readonly Program[];
};

/** What of `GET /status` the tests look at. */
export type FirewallState = {
  readonly name: string;
  readonly usable: boolean;
  readonly active: boolean;
  readonly why: string;
  readonly changes: number;
  readonly probe: { readonly state: string; readonly sent: number; readonly answered: number };
  readonly traffic: {
    readonly sent: { readonly packets: number };
    readonly returned: { readonly packets: number };
    readonly flowsTaken: number;
  };
};

const firewallNames = ['fw-a', 'fw-b', 'fw-c'] as const;

class HaLab {
  readonly topology: Topology;
  readonly hosts: readonly Namespace[];
  readonly directory: string;
  readonly certificates: readonly Certificates[];
  readonly firewalls: Firewall[] = [];
  private readonly policyFile: string;
  private readonly t: Test;

  constructor(t: Test, count: 2 | 3) {
    this.t = t;
    this.directory = createRunDirectory();
    this.topology = createTopology();
    const segment = createFirewallSegment(this.topology, count);
    t.teardown(() => {
      segment.remove();
      this.topology.remove();
    });
    this.hosts = segment.hosts;
    this.certificates = this.hosts.map((_, i) =>
      createCertificates(this.directory, firewallNames[i]!, segmentAddresses[i]!),
    );
    this.policyFile = join(this.directory, 'policy.yaml');
    writeFileSync(this.policyFile, 'deny: []\n');
  }

  /** Start, or start again with nothing remembered, the firewall at `index`. */
  async startFirewall(index: number, address: string = segmentAddresses[index]!): Promise<void> {
    const firewall = await startBuiltinFirewall(this.hosts[index]!, {
      encapsulation: 'geneve',
      certificates: this.certificates[address === segmentAddresses[0] ? 0 : index]!,
      policy: this.policyFile,
      address,
    });
    this.firewalls[index] = firewall;
    this.t.teardown(async () => {
      firewall.program.signal('SIGCONT');
      await firewall.stop();
    });
  }

  startAgent({ ha, known, policy, telemetry, top }: HaOptions): Agent {
    const firewalls = this.hosts.slice(0, known).map((_, i) => ({
      name: firewallNames[i],
      address: segmentAddresses[i],
      telemetry: {
        url: `https://${segmentAddresses[i]}:443/v1/metrics`,
        ca: this.certificates[i]!.ca,
      },
    }));
    const agent = startAgent(this.topology.workload, {
      directory: this.directory,
      ca: this.certificates[0]!.ca,
      firewall: segmentAddresses[0],
      encapsulation: 'geneve',
      settings: {
        ha: { ...ha },
        policy: { ...policy },
        telemetry: { interval: '5s', timeout: '2s', retries: 3, ...telemetry },
      },
      top: { firewalls, ...top },
    });
    this.t.teardown(() => agent.program.stop());
    return agent;
  }

  /** Drop packets of the tunnel in the router, by nftables' words; undone by `heal`. */
  cut(match: string): void {
    this.topology.router.must('nft', [
      'add table ip cut; ' +
        'add chain ip cut forward { type filter hook forward priority 0; }; ' +
        `add rule ip cut forward ${match} counter drop`,
    ]);
  }

  heal(): void {
    this.topology.router.must('nft', ['delete table ip cut']);
  }
}

/** Firewalls and the agent, redirecting, with every firewall usable. */
export async function startHa(t: Test, options: HaOptions = {}) {
  const lab = new HaLab(t, options.count ?? 2);
  await Promise.all(lab.hosts.map((_, i) => lab.startFirewall(i)));
  const programs = options.before?.(lab) ?? [];
  t.teardown(() => Promise.all(programs.map((program) => program.stop())));
  const agent = lab.startAgent(options);
  await agent.reach('redirecting', 15_000);
  await reachFirewalls(agent, 'all are usable', (all) => all.every(({ usable }) => usable), 15_000);
  return { lab, agent };
}

export async function firewallsOf(agent: Agent): Promise<readonly FirewallState[]> {
  const status = (await agent.status()) as unknown as { firewalls?: readonly FirewallState[] };
  return status?.firewalls ?? [];
}

/** Wait until the firewalls, as the agent sees them, are so. */
export async function reachFirewalls(
  agent: Agent,
  what: string,
  holds: (all: readonly FirewallState[]) => boolean,
  limitMs: number,
): Promise<readonly FirewallState[]> {
  let seen: readonly FirewallState[] = [];
  await until(what, limitMs, async () => {
    seen = await firewallsOf(agent);
    return seen.length > 0 && holds(seen);
  }).catch((error: Error) => {
    const words = seen.map(({ active, name, probe, usable, why }) =>
      [name, active ? 'active' : '', usable ? 'usable' : why, probe.state].join(' '),
    );
    throw new Error(`${error.message}: ${words.join('; ')}`);
  });
  return seen;
}

/** The names of those that take new flows. */
export function activeOf(all: readonly FirewallState[]): string[] {
  return all.filter(({ active }) => active).map(({ name }) => name);
}

/** A ping every 20 ms to the server, and what became of it. */
export class Pinging {
  /** Wall clock of each answer, ms. */
  readonly answers: number[] = [];
  private readonly program;
  private ended = false;

  constructor(host: Namespace, everyMs = 20, target: string = addresses.server) {
    const every = String(everyMs / 1000);
    this.program = start(host, 'ping', ['-n', '-D', '-i', every, '-W', '1', target], {
      onLine: (line) => {
        const time = /^\[([\d.]+)\].*icmp_seq/.exec(line)?.[1];
        if (time !== undefined) this.answers.push(Number(time) * 1000);
      },
    });
  }

  /** How long nothing came back from `sinceMs` (wall clock) on, in ms. */
  async recovery(sinceMs: number, limitMs: number): Promise<number> {
    // What was on its way at that moment may still come back.
    const first = () => this.answers.find((time) => time > sinceMs + 60);
    await until('an answer comes', limitMs, () => first() !== undefined);
    return Math.round(first()! - sinceMs);
  }

  /** The longest silence after `sinceMs`, in ms. */
  longestGap(sinceMs: number): number {
    const times = this.answers.filter((time) => time >= sinceMs);
    const gaps = times.slice(1).map((time, i) => Math.round(time - times[i]!));
    return Math.max(0, ...gaps);
  }

  async stop(): Promise<void> {
    if (this.ended) return;
    this.ended = true;
    await this.program.stop('SIGINT');
    await pause(50);
  }
}
