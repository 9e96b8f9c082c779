/**
 * What the story plays on: hosts, firewall, servers, traffic, and what was there before the agent.
 */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { stringify } from 'yaml';
import { type Agent, startAgent } from './agent.ts';
import { type Capture, startCapture } from './capture.ts';
import { type Certificates, createCertificates, createRunDirectory } from './certificates.ts';
import {
  blockOnVxlanFirewall,
  type Encapsulation,
  type Firewall,
  type FirewallEvent,
  type FirewallKind,
  startBuiltinFirewall,
  startVxlanFirewall,
} from './firewalls.ts';
import { type HostState, readHostState } from './host-state.ts';
import { startSuricataFirewall } from './suricata/suricata.ts';
import { addresses, createTopology, type Topology } from './topology.ts';
import { Pulses, startIperfServer, startWebServer } from './traffic.ts';

export type StageOptions = {
  readonly firewall: FirewallKind;
  readonly encapsulation: Encapsulation;
  readonly onFirewallEvent?: (event: FirewallEvent) => void;
};

const forbiddenHost = 'evil.example';
/** The kernel's firewall reads no names: there, what is denied is a port. */
const forbiddenPort = 8081;
const pulseEveryMs = 200;

export class Stage {
  readonly directory: string;
  readonly topology: Topology;
  readonly certificates: Certificates;
  readonly encapsulation: Encapsulation;
  readonly firewall: Firewall;
  readonly pulses: Pulses;
  readonly before: HostState;
  /** The latest one, running or not. */
  agent: Agent | undefined = undefined;

  constructor(
    parts: Omit<Stage, 'agent' | 'startAgent' | 'capture' | 'forbidden' | 'forbiddenWords'>,
  ) {
    this.directory = parts.directory;
    this.topology = parts.topology;
    this.certificates = parts.certificates;
    this.encapsulation = parts.encapsulation;
    this.firewall = parts.firewall;
    this.pulses = parts.pulses;
    this.before = parts.before;
  }

  startAgent(): Agent {
    this.agent = startAgent(this.topology.workload, {
      directory: this.directory,
      ca: this.certificates.ca,
      firewall: this.firewall.address,
      encapsulation: this.encapsulation,
      settings: this.firewall.agentSettings,
    });
    return this.agent;
  }

  /** On `eth0` of a host, into `<name>.pcap`. */
  capture(host: 'server' | 'firewall' | 'workload', name: string): Promise<Capture> {
    return startCapture(this.topology[host], this.directory, `${name}-${host}`);
  }

  /** A request that the firewall denies. */
  forbidden(path: string): { url: string; hostHeader?: string } {
    if (this.firewall.kind === 'vxlan') {
      return { url: `http://${addresses.server}:${forbiddenPort}/${path}` };
    }
    return { url: `http://${addresses.server}/${path}`, hostHeader: forbiddenHost };
  }

  get forbiddenWords(): string {
    return this.firewall.kind === 'vxlan' ? `port ${forbiddenPort}` : `host ${forbiddenHost}`;
  }
}

/** Everything but the agent runs when this returns. */
export async function setStage(options: StageOptions): Promise<Stage> {
  const { encapsulation } = options;
  const directory = createRunDirectory();
  const certificates = createCertificates(directory, 'firewall', addresses.firewall);
  // A kernel tunnel would pass on 64 KiB datagrams that no wire carries; see topology.ts.
  const offloads = options.firewall === 'builtin' ? 'all' : 'firewall-off';
  const topology = createTopology({ offloads });
  const [firewall] = await Promise.all([
    startFirewall(topology, directory, certificates, options),
    startWebServer(topology.server, 'server', addresses.server, [80, forbiddenPort]),
    startWebServer(topology.workload, 'workload', addresses.workload, [80]),
    startIperfServer(topology.server),
  ]);
  const before = readHostState(topology.workload);
  const pulses = new Pulses(topology.workload, `http://${addresses.server}`, pulseEveryMs);
  const parts = { directory, topology, certificates, encapsulation, firewall, pulses, before };
  return new Stage(parts);
}

async function startFirewall(
  topology: Topology,
  directory: string,
  certificates: Certificates,
  options: StageOptions,
): Promise<Firewall> {
  const common = {
    encapsulation: options.encapsulation,
    certificates,
    ...(options.onFirewallEvent === undefined ? {} : { onEvent: options.onFirewallEvent }),
  };
  if (options.firewall === 'vxlan') {
    const firewall = await startVxlanFirewall(topology.firewall, addresses.workload, common);
    blockOnVxlanFirewall(topology.firewall, addresses.server, forbiddenPort);
    return firewall;
  }
  if (options.firewall === 'suricata') {
    const parts = { ...common, directory };
    return await startSuricataFirewall(topology.firewall, addresses.workload, parts);
  }
  const policy = join(directory, 'policy.yaml');
  const deny = [{ host: forbiddenHost }, { sni: forbiddenHost }, { content: 'EICAR-STANDARD' }];
  writeFileSync(policy, stringify({ deny }));
  return await startBuiltinFirewall(topology.firewall, { ...common, policy });
}
