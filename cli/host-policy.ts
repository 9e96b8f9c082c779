/**
 * What a configuration means on this host: its interfaces and addresses, what is never redirected,
 * and what the kernel programs are made from.
 */
import type { BuiltIns } from '../engine/classifier/built-in.ts';
import { type Settings, tunnelPortsOf } from '../engine/config.ts';
import type {
  Acceleration,
  Exclusions,
  SteeringPolicy,
  SteeringSpread,
} from '../linux/bpf/policy.ts';
import type { Interface } from '../linux/netlink.ts';
import type { Tun } from '../linux/tun.ts';

/** One per network namespace: the name is the lock, since the kernel gives it out once. */
export const tunName = 'microperimeter';
/** On bpffs; holds what must outlive the agent with `onAgentFailure: drop`. */
export const pinDirectory = '/run/microperimeter/bpf';
/** The engine breathes at least every 100 ms; several missed breaths are a failure. */
const heartbeatTimeoutMs = 700;
export type Links = {
  readonly interfaces: readonly Interface[];
  /** Directed broadcast addresses of the interfaces. */
  readonly broadcasts: readonly number[];
  /** The host has an IPv6 address that others can reach. */
  readonly globalIpv6: boolean;
};

/** Never redirected, whatever the rules say. */
export function builtInsOf(config: Settings, links: Pick<Links, 'broadcasts'>): BuiltIns {
  return {
    tunnelPorts: tunnelPortsOf(config.tunnel),
    tunnelPeers: config.firewalls.flatMap(({ address, returnFrom }) => [
      { address, length: 32 },
      returnFrom,
    ]),
    telemetry: ownEndpoints(config),
    management: config.workload.management.map(({ protocol, prefix, port }) => ({
      protocol,
      remote: prefix,
      port,
    })),
    broadcasts: links.broadcasts,
  };
}

/** As the kernel programs of the agent and of the boot guard have it. */
export function exclusionsOf(config: Settings, links: Pick<Links, 'broadcasts'>): Exclusions {
  const builtIns = builtInsOf(config, links);
  return {
    firewalls: config.firewalls.flatMap(({ address }) =>
      tunnelPortsOf(config.tunnel).map((port) => ({ address, port })),
    ),
    tunnelPorts: tunnelPortsOf(config.tunnel),
    returnFrom: config.firewalls.map(({ returnFrom }) => returnFrom),
    telemetry: builtIns.telemetry,
    management: builtIns.management,
    broadcasts: builtIns.broadcasts,
    ipv6: config.workload.ipv6,
  };
}

/** Whether the kernel is to carry flows where the workload's interfaces are these. */
export function wantsAcceleration({ acceleration }: Settings, { interfaces }: Links): boolean {
  if (acceleration !== 'auto') return acceleration === 'kernel';
  return interfaces.length > 0 && interfaces.every(({ kind }) => kind !== 'veth');
}

/** Where the agent itself connects to: telemetry, and probes that do not go through the tunnel. */
function ownEndpoints({ firewalls, ha }: Settings): BuiltIns['telemetry'] {
  const { kind, port } = ha.probe;
  const probed = kind === 'off' || kind === 'tunnel' ? [] : firewalls;
  return [
    ...firewalls.map(({ telemetry }) => telemetry),
    ...probed.map(({ address }) => ({ address, port })),
  ];
}

/** What the kernel programs are made from. */
export function steeringPolicyOf(
  config: Settings,
  links: Links,
  tun: Tun,
  acceleration: Acceleration | undefined,
  spread?: SteeringSpread,
): SteeringPolicy {
  return {
    ...exclusionsOf(config, links),
    interfaces: links.interfaces.map(({ index, mac, name }) => ({
      index,
      name,
      mac: Buffer.from(mac.replaceAll(':', ''), 'hex'),
    })),
    spread,
    tun: { fd: tun.fds[0], index: tun.index },
    onAgentFailure: config.policy.onAgentFailure,
    onBoot: config.policy.onBoot,
    heartbeatTimeoutMs,
    acceleration,
    pinDirectory,
  };
}
