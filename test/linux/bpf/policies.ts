/** Policies that programs are made of, for tests without a kernel. */
import { tunnelTemplateOf } from '../../../cli/tunnel-template.ts';
import { type Config, defaults } from '../../../engine/config.ts';
import type { SteeringPolicy } from '../../../linux/bpf/policy.ts';

const address = 0x0a4d_0002;
export const policy: SteeringPolicy = {
  interfaces: [{ name: 'eth0', index: 2, mac: Uint8Array.of(2, 0, 0, 0, 0, 1) }],
  tun: { fd: 3, index: 4 },
  firewalls: [{ address, port: 6081 }],
  tunnelPorts: [6081],
  returnFrom: [{ address, length: 24 }],
  telemetry: [{ address, port: 443 }],
  management: [{ protocol: 6, remote: { address, length: 24 }, port: 22 }],
  broadcasts: [0x0a4d_00ff],
  ipv6: 'drop',
  onAgentFailure: 'drop',
  onBoot: 'drop',
  heartbeatTimeoutMs: 1000,
  acceleration: undefined,
  pinDirectory: '/run/x',
};
export const maps = { control: 3, flows: 4, counters: 5, networks: 6, records: 7 };

const { tunnel } = defaults;
const vxlan = { ...tunnel.vxlan, egressVni: 801, ingressVni: 800, ingressPort: 4789 };
export const encapsulations = ['geneve', 'gwlb', 'gcp', 'vxlan'] as const;

/** With which the programs carry flows by themselves. */
export function carrying(encapsulation: Config['tunnel']['encapsulation']): SteeringPolicy {
  const settings = { ...tunnel, encapsulation, mtu: 0, port: tunnel.port[encapsulation], vxlan };
  return { ...policy, acceleration: { tunnel: tunnelTemplateOf(settings), flows: 1024 } };
}
