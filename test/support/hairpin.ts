/**
 * The whole thing for a test: the lab's hosts, a firewall, the agent, all gone when the test ends.
 */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Test } from 'tap';
import { type Agent, type AgentOptions, startAgent } from '../../lab/agent.ts';
import { type Capture, type CaptureOptions, startCapture } from '../../lab/capture.ts';
import {
  type Certificates,
  createCertificates,
  createRunDirectory,
} from '../../lab/certificates.ts';
import {
  type Encapsulation,
  type Firewall,
  type FirewallKind,
  startBuiltinFirewall,
  startVxlanFirewall,
} from '../../lab/firewalls.ts';
import type { Namespace } from '../../lab/namespace.ts';
import { run } from '../../lab/program.ts';
import { type SuricataOptions, startSuricataFirewall } from '../../lab/suricata/suricata.ts';
import {
  addresses,
  createTopology,
  type Topology,
  type TopologyOptions,
} from '../../lab/topology.ts';

export type HairpinOptions = {
  readonly firewall?: FirewallKind;
  readonly encapsulation?: Encapsulation;
  /** How the built-in firewall answers. */
  readonly answer?: 'plain' | 'gateway';
  readonly topology?: TopologyOptions;
  /** Sections of the agent's configuration, merged over the lab's. */
  readonly settings?: AgentOptions['settings'];
  /** Rules, sets and default of the agent's configuration. */
  readonly top?: NonNullable<AgentOptions['top']>;
  /** What to start as the agent; the checkout's own otherwise. */
  readonly command?: NonNullable<AgentOptions['command']>;
  readonly environment?: Record<string, string>;
  /** The built-in firewall's allow and deny lists, YAML. */
  readonly policy?: string;
  /** How long the agent's start may take; as on a busy machine otherwise. */
  readonly startLimitMs?: number;
};

export type Hairpin = {
  readonly topology: Topology;
  /** The latest, where it was started again. */
  readonly firewall: Firewall;
  readonly certificates: Certificates;
  readonly directory: string;
  /** SIGKILL to the firewall, and another one without its memory. */
  killFirewall(): Promise<void>;
  restartFirewall(): Promise<void>;
  /** Start the agent and wait until it redirects. */
  startAgent(settings?: AgentOptions['settings']): Promise<Agent>;
  /** Start the agent and do not wait. */
  launchAgent(settings?: AgentOptions['settings'], top?: AgentOptions['top']): Agent;
  capture(host: Namespace, name: string, options?: CaptureOptions): Promise<Capture>;
};

/** How long a start may take on a busy machine: Node, the verifier, a TLS handshake. */
const startLimitMs = 10_000;

export async function startHairpin(t: Test, options: HairpinOptions = {}): Promise<Hairpin> {
  const isReal = options.firewall === 'vxlan' || options.firewall === 'suricata';
  const encapsulation = options.encapsulation ?? (isReal ? 'vxlan' : 'geneve');
  const directory = createRunDirectory();
  const certificates = createCertificates(directory, 'firewall', addresses.firewall);
  const offloads = options.firewall === 'suricata' ? 'firewall-off' : 'all';
  const topology = createTopology({ offloads, ...options.topology });
  t.teardown(() => topology.remove());
  const start = () =>
    startFirewall(topology, options, {
      encapsulation,
      certificates,
      directory,
      answer: options.answer ?? 'plain',
    });
  let firewall = await start();
  t.teardown(() => firewall.stop());
  let agents = 0;
  const launchAgent = (settings: AgentOptions['settings'] = {}, top: AgentOptions['top'] = {}) => {
    agents++;
    const agent = startAgent(topology.workload, {
      directory,
      ca: certificates.ca,
      firewall: addresses.firewall,
      encapsulation,
      settings: { ...firewall.agentSettings, ...options.settings, ...settings },
      top: { ...options.top, ...top },
      environment: options.environment ?? {},
      ...(options.command === undefined ? {} : { command: options.command }),
    });
    t.teardown(async () => {
      agent.program.signal('SIGCONT');
      await agent.program.stop();
    });
    return agent;
  };
  return {
    topology,
    get firewall() {
      return firewall;
    },
    killFirewall: async () => {
      firewall.program.signal('SIGKILL');
      await firewall.program.ended;
    },
    restartFirewall: async () => {
      firewall = await start();
    },
    certificates,
    directory,
    launchAgent,
    startAgent: async (settings) => {
      const agent = launchAgent(settings);
      await agent.reach('redirecting', options.startLimitMs ?? startLimitMs);
      return agent;
    },
    capture: async (host, name, captureOptions) => {
      const capture = await startCapture(host, directory, `${name}-${agents}`, captureOptions);
      t.teardown(() => capture.stop());
      return capture;
    },
  };
}

async function startFirewall(
  topology: Topology,
  { firewall, policy = 'deny: []\n' }: HairpinOptions,
  options: SuricataOptions,
): Promise<Firewall> {
  if (firewall === 'vxlan') {
    return await startVxlanFirewall(topology.firewall, addresses.workload, options);
  }
  if (firewall === 'suricata') {
    return await startSuricataFirewall(topology.firewall, addresses.workload, options);
  }
  const file = join(options.directory, 'policy.yaml');
  writeFileSync(file, policy);
  return await startBuiltinFirewall(topology.firewall, { ...options, policy: file });
}

/** A shell script in a host; its standard output, or an error with its words. */
export async function shell(host: Namespace, script: string): Promise<string> {
  const { code, errors, output } = await run(host, 'bash', ['-c', script]);
  if (code !== 0) throw new Error(`${script}: exit ${code}: ${errors || output}`);
  return output.trim();
}
