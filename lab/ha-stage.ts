/** Two or three firewalls on one segment, and an agent that knows them; nothing runs at first. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Agent, startAgent } from './agent.ts';
import { type Certificates, createCertificates, createRunDirectory } from './certificates.ts';
import {
  createFirewallSegment,
  type FirewallSegment,
  segmentAddresses,
} from './firewall-segment.ts';
import { type Firewall, startBuiltinFirewall } from './firewalls.ts';
import type { Namespace } from './namespace.ts';
import { start, until } from './program.ts';
import { addresses, createTopology, type Topology } from './topology.ts';

export type HaAgentOptions = {
  /** Sections of the agent's configuration, over the product's own defaults. */
  readonly ha?: object;
  readonly policy?: object;
  readonly telemetry?: object;
  /** How many of the firewalls the agent knows; all by default. */
  readonly known?: number;
};

/** What of a firewall in `GET /status` is looked at. */
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

const names = ['fw-a', 'fw-b', 'fw-c'] as const;

export class HaStage {
  readonly topology: Topology;
  readonly hosts: readonly Namespace[];
  readonly directory: string;
  /** The latest of each host. */
  readonly firewalls: Firewall[] = [];
  private readonly started: Firewall[] = [];
  private readonly segment: FirewallSegment;
  private readonly certificates: readonly Certificates[];
  private readonly policyFile: string;

  constructor(count: 2 | 3) {
    this.directory = createRunDirectory();
    this.topology = createTopology();
    this.segment = createFirewallSegment(this.topology, count);
    this.hosts = this.segment.hosts;
    this.certificates = this.hosts.map((_, i) =>
      createCertificates(this.directory, names[i]!, segmentAddresses[i]!),
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
    this.started.push(firewall);
  }

  startAgent({ ha, known, policy, telemetry }: HaAgentOptions): Agent {
    const firewalls = this.hosts.slice(0, known).map((_, i) => ({
      name: names[i],
      address: segmentAddresses[i],
      telemetry: {
        url: `https://${segmentAddresses[i]}:443/v1/metrics`,
        ca: this.certificates[i]!.ca,
      },
    }));
    return startAgent(this.topology.workload, {
      directory: this.directory,
      ca: this.certificates[0]!.ca,
      firewall: segmentAddresses[0],
      encapsulation: 'geneve',
      settings: {
        ha: { ...ha },
        policy: { ...policy },
        telemetry: { interval: '5s', timeout: '2s', retries: 3, ...telemetry },
      },
      top: { firewalls },
    });
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

  /** Ends the firewalls and removes the hosts. Other programs must have ended. */
  async close(): Promise<void> {
    await Promise.all(
      this.started.map(async (firewall) => {
        firewall.program.signal('SIGCONT');
        await firewall.stop();
      }),
    );
    this.segment.remove();
    this.topology.remove();
  }
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

/** A ping every 20 ms to the server, and when it was answered. */
export class Pinging {
  /** Wall clock of each answer, ms. */
  readonly answers: number[] = [];
  private readonly program;

  constructor(host: Namespace) {
    this.program = start(host, 'ping', ['-n', '-D', '-i', '0.02', '-W', '1', addresses.server], {
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
    await this.program.stop('SIGINT');
  }
}
