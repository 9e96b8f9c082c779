/**
 * The agent: against the kernel's VXLAN firewall (the fastest there is), against the lab's own
 * GENEVE firewall, and with everything passing.
 */
import { appendFileSync, writeFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Agent, type AgentStatus, writeAgentConfig } from '../../lab/agent.ts';
import { createCertificates, createRunDirectory } from '../../lab/certificates.ts';
import {
  type Encapsulation,
  startBuiltinFirewall,
  startVxlanFirewall,
} from '../../lab/firewalls.ts';
import { start, until } from '../../lab/program.ts';
import { addresses, type Topology } from '../../lab/topology.ts';
import type { Peer, Running } from '../peer.ts';

const startLimitMs = 10_000;
const graceMs = 3000;
const agentMain = resolve(dirname(fileURLToPath(import.meta.url)), '../../cli/main.js');

/** Options of node for the agent's process, such as `--cpu-prof`; a profile run sets them. */
let nodeOptions: readonly string[] = [];

export function setAgentNodeOptions(options: readonly string[]): void {
  nodeOptions = options;
}

const engineCarries = 'acceleration: off\n';
const kernelCarries = 'acceleration: kernel\n';

/** The engine carries everything. */
export const agentVxlan: Peer = {
  name: 'agent vxlan',
  route: 'hair-pin',
  wires: ['firewall', 'mtu'],
  start: (topology) => startHairpin(topology, 'vxlan', engineCarries),
};

export const agentGeneve: Peer = {
  name: 'agent geneve',
  route: 'hair-pin',
  wires: ['whole', 'firewall', 'mtu'],
  start: (topology) => startHairpin(topology, 'geneve', engineCarries),
};

/** The programs in the kernel carry what is established. */
export const agentVxlanKernel: Peer = {
  name: 'agent vxlan, kernel',
  route: 'hair-pin',
  wires: ['whole', 'firewall', 'mtu'],
  start: (topology) => startHairpin(topology, 'vxlan', kernelCarries),
};

/** Not with whole packets: a user-space firewall cannot cut what a kernel has wrapped. */
export const agentGeneveKernel: Peer = {
  name: 'agent geneve, kernel',
  route: 'hair-pin',
  wires: ['firewall', 'mtu'],
  start: (topology) => startHairpin(topology, 'geneve', kernelCarries),
};

/**
 * A rule passes every port. No network passes as a whole then: the first packet of each connection
 * asks the agent, and the kernel remembers the answer.
 */
export const agentPassRule: Peer = {
  name: 'agent, pass by port',
  route: 'passing',
  wires: ['whole', 'mtu'],
  start: (topology) =>
    startHairpin(topology, 'geneve', 'rules: [{ remotePort: 1-65535, action: pass }]\n'),
};

/** No network is redirected, which the kernel knows by itself. */
export const agentPassDefault: Peer = {
  name: 'agent, default: pass',
  route: 'passing',
  wires: ['whole', 'mtu'],
  start: (topology) => startHairpin(topology, 'geneve', 'default: pass\n'),
};

/** The gate is closed because nobody takes telemetry, and a closed gate lets everything pass. */
export const agentPassing: Peer = {
  name: 'agent, gate closed',
  route: 'passing',
  wires: ['whole', 'mtu'],
  start: async (topology) => {
    const directory = createRunDirectory();
    const { ca } = createCertificates(directory, 'firewall', addresses.firewall);
    const settings = { policy: { onTelemetryLoss: 'pass' } };
    const agent = startAgent(topology, directory, ca, 'geneve', settings);
    // It answers before it has attached anything. The data path publishes an MTU when it runs.
    await until('the agent looks on', startLimitMs, async () => {
      const status = (await agent.status()) as Partial<AgentStatus> | undefined;
      return (status?.innerMtu ?? 0) > 0;
    });
    return running(agent, async () => {});
  },
};

/** @param rules lines of YAML for the end of the configuration */
async function startHairpin(
  topology: Topology,
  encapsulation: Encapsulation,
  rules = '',
): Promise<Running> {
  const directory = createRunDirectory();
  const certificates = createCertificates(directory, 'firewall', addresses.firewall);
  const options = { encapsulation, certificates };
  const policy = join(directory, 'policy.yaml');
  writeFileSync(policy, 'deny: []\n');
  const firewall =
    encapsulation === 'vxlan'
      ? await startVxlanFirewall(topology.firewall, addresses.workload, options)
      : await startBuiltinFirewall(topology.firewall, { ...options, policy });
  const agent = startAgent(topology, directory, certificates.ca, encapsulation, {}, rules);
  await agent.reach('redirecting', startLimitMs);
  return running(agent, () => firewall.stop());
}

function startAgent(
  topology: Topology,
  directory: string,
  ca: string,
  encapsulation: Encapsulation,
  settings: Record<string, Record<string, unknown>>,
  rules = '',
): Agent {
  const { firewall } = addresses;
  const config = writeAgentConfig({ directory, ca, firewall, encapsulation, settings });
  appendFileSync(config, rules);
  const args = [...nodeOptions, agentMain, 'run', '--config', config];
  const program = start(topology.workload, process.execPath, args, { graceMs });
  program.child.stdin?.end();
  return new Agent(program, config, join(directory, 'control.sock'));
}

function running(agent: Agent, stopFirewall: () => Promise<void>): Running {
  return {
    pid: agent.program.pid,
    agent,
    stop: async () => {
      await agent.program.stop();
      await stopFirewall();
    },
  };
}
