/**
 * Suricata as the firewall: a bump in the wire between two VXLAN devices of the kernel, with no
 * address, no route and no code of ours in the packets' way.
 *
 *     workload --- VNI 800 --- internal ] Suricata [ external --- VNI 801 --- workload
 *
 * What the workload sends out comes by one device and goes back by the other; what comes in to it
 * takes them the other way round. The rules and the settings stand beside this file.
 */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import {
  type Firewall,
  type FirewallEvent,
  type FirewallFlow,
  type FirewallOptions,
  startProgram,
  tunnelPorts,
} from '../firewalls.ts';
import type { Namespace } from '../namespace.ts';
import { type Program, start, until } from '../program.ts';
import { addresses, disableOffloads } from '../topology.ts';
import { askFlowPackets } from './command.ts';
import { EveReader } from './eve.ts';

/** Seen from dist/lab/suricata. */
const beside = (name: string) =>
  fileURLToPath(new URL(`../../../lab/suricata/${name}`, import.meta.url));
const configFile = beside('suricata.yaml');
const rulesFile = beside('microperimeter.rules');

/** The command socket's path has room for 107 bytes, so it is not in a deep directory. */
const startLimitMs = 15_000;
const graceMs = 3000;

const devices = [
  { name: 'internal', vni: 800, mac: '02:00:00:00:08:00' },
  { name: 'external', vni: 801, mac: '02:00:00:00:08:01' },
] as const;

export type SuricataOptions = FirewallOptions & {
  /** Where eve.json and the command socket go. */
  readonly directory: string;
};

/**
 * Ready to hair-pin, to block and to take telemetry when this returns. Throws with Suricata's words
 * when it does not start. The host's link carries only wire-sized packets (topology option
 * `offloads: 'firewall-off'`).
 */
export async function startSuricataFirewall(
  host: Namespace,
  workload: string,
  options: SuricataOptions,
): Promise<Firewall> {
  createDevices(host, options.address ?? addresses.firewall, workload);
  const firewall = await startProgram('suricata', host, options, ['--no-data-path']);
  const events = firewall.events as FirewallEvent[];
  const directory = join(options.directory, 'suricata');
  mkdirSync(directory);
  const socketPath = join(directory, 'command.sock');
  const eve = new EveReader(join(directory, 'eve.json'), workload, (event) => {
    if (event.event === 'counters') Object.assign(firewall, { counters: event });
    else events.push(event);
    options.onEvent?.(event);
  });
  const program = await startSuricata(host, directory, socketPath);
  const stopTelemetry = firewall.stop;
  return Object.assign(firewall, {
    agentSettings: {
      tunnel: {
        encapsulation: 'vxlan',
        vxlan: { egressVni: devices[0].vni, ingressVni: devices[1].vni },
      },
    },
    flows: () => readFlows(eve, socketPath),
    stop: async () => {
      await program.stop();
      eve.close();
      await stopTelemetry();
    },
  });
}

/**
 * The kernel's own stack has no part in it: no address, and MAC addresses that no frame is for.
 * Joined packets (GRO) would be larger than the device that they have to leave by.
 */
function createDevices(host: Namespace, address: string, workload: string): void {
  host.must('ethtool', ['-K', 'eth0', 'gro', 'off']);
  for (const { mac, name, vni } of devices) {
    host.ip(
      `link add ${name} address ${mac} type vxlan id ${vni} local ${address} ` +
        `remote ${workload} dstport ${tunnelPorts.vxlan} nolearning`,
    );
    host.must('sysctl', ['-qw', `net.ipv6.conf.${name}.disable_ipv6=1`]);
    disableOffloads(host, name);
    host.must('ethtool', ['-K', name, 'gro', 'off']);
    host.ip(`link set ${name} up`);
  }
}

async function startSuricata(
  host: Namespace,
  directory: string,
  socketPath: string,
): Promise<Program> {
  const args = ['-c', configFile, '-S', rulesFile, '-l', directory, '--af-packet'];
  args.push('--set', `unix-command.filename=${socketPath}`);
  const program = start(host, 'suricata', args, { graceMs });
  await until('Suricata is ready', startLimitMs, () => {
    if (program.exitCode === undefined) return program.output.includes('Engine started');
    const words = `${program.errors}\n${program.output}`.trim().split('\n').slice(-3).join(' | ');
    throw new Error(`Suricata did not start: ${words}`);
  });
  return program;
}

async function readFlows(eve: EveReader, socketPath: string): Promise<FirewallFlow[]> {
  eve.read();
  const flows = [...eve.flows.values()];
  const alive = flows.filter((flow) => flow.packets === undefined);
  const answers = await askFlowPackets(
    socketPath,
    alive.map((flow) => flow.id),
  );
  const asked = new Map(alive.map((flow, index) => [flow.id, answers[index]]));
  return flows.flatMap(({ about, id, packets, protocol, reason, source, target }) => {
    const counted = packets ?? asked.get(id);
    return counted === undefined ? [] : [{ protocol, source, target, about, reason, ...counted }];
  });
}
