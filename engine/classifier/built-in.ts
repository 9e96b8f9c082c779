/**
 * What is never redirected, whatever the rules say (docs/rules.md lists it for operators): the
 * tunnel's own packets, telemetry, loopback, multicast and broadcast, DHCP, link-local addresses
 * and the operator's management exceptions. The steering programs in the kernel make the same
 * decision first; this is the same list for what they cannot see, such as the packet that an ICMP
 * error quotes or the ports of a first fragment.
 */
import { Protocol } from '../../parsers/ipv4.ts';
import { Direction } from '../../tunnel/pieces.ts';

export type Endpoint = { readonly address: number; readonly port: number };
export type Prefix = { readonly address: number; readonly length: number };
export type Exception = {
  /** 0: any. */
  readonly protocol: number;
  readonly remote: Prefix;
  /** Port at either end; 0: any. */
  readonly port: number;
};

export type BuiltIns = {
  /** UDP ports of the tunnel, at both ends. */
  readonly tunnelPorts: readonly number[];
  /** The firewalls and the subnets that may answer for them. */
  readonly tunnelPeers: readonly Prefix[];
  readonly telemetry: readonly Endpoint[];
  readonly management: readonly Exception[];
  /** Directed broadcast addresses of the workload's interfaces. */
  readonly broadcasts: readonly number[];
};

const dhcpServerPort = 67;
const dhcpClientPort = 68;

/** @returns whether `address` lies in the prefix; length 0 holds everything */
export function contains(prefix: Prefix, address: number): boolean {
  return prefix.length === 0 || (address ^ prefix.address) >>> (32 - prefix.length) === 0;
}

/** A packet that travels in `direction`, its ends as the host sees them. */
export function isBuiltIn(
  builtIns: BuiltIns,
  direction: Direction,
  local: number,
  remote: number,
  localPort: number,
  remotePort: number,
  protocol: number,
): boolean {
  const destination = direction === Direction.Egress ? remote : local;
  if (isSpecial(local) || isSpecial(remote) || isGroup(builtIns, destination)) return true;
  if (protocol === Protocol.Udp && isDhcpOrTunnel(builtIns, remote, localPort, remotePort))
    return true;
  if (protocol === Protocol.Tcp) {
    for (let i = 0; i < builtIns.telemetry.length; i++) {
      const endpoint = builtIns.telemetry[i];
      if (remote === endpoint.address && remotePort === endpoint.port) return true;
    }
  }
  for (let i = 0; i < builtIns.management.length; i++) {
    const exception = builtIns.management[i];
    if (
      (exception.protocol === 0 || exception.protocol === protocol) &&
      (exception.port === 0 || exception.port === localPort || exception.port === remotePort) &&
      contains(exception.remote, remote)
    ) {
      return true;
    }
  }
  return false;
}

/** Loopback 127/8, link-local 169.254/16, and 0.0.0.0. */
function isSpecial(address: number): boolean {
  return address >>> 24 === 127 || address >>> 16 === 0xa9fe || address === 0;
}

/** Multicast and broadcast, which are destinations only: as a source they are forged. */
function isGroup(builtIns: BuiltIns, destination: number): boolean {
  if (destination >>> 28 === 0xe || destination === -1) return true;
  for (let i = 0; i < builtIns.broadcasts.length; i++) {
    if (destination === builtIns.broadcasts[i]) return true;
  }
  return false;
}

function isDhcpOrTunnel(
  builtIns: BuiltIns,
  remote: number,
  localPort: number,
  remotePort: number,
): boolean {
  if (isDhcpPort(localPort) && isDhcpPort(remotePort)) return true;
  const { tunnelPorts } = builtIns;
  if (!tunnelPorts.includes(localPort) && !tunnelPorts.includes(remotePort)) return false;
  for (let i = 0; i < builtIns.tunnelPeers.length; i++) {
    if (contains(builtIns.tunnelPeers[i], remote)) return true;
  }
  return false;
}

function isDhcpPort(port: number): boolean {
  return port === dhcpServerPort || port === dhcpClientPort;
}
