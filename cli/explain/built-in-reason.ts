/**
 * Which of the built-in exclusions a connection is. The list itself is the engine's: it is asked
 * again with all but one of its entries taken away, so that nothing here can disagree with it.
 */
import { type BuiltIns, isBuiltIn } from '../../engine/classifier/built-in.ts';
import { formatAddress } from '../../parsers/text.ts';
import type { Path } from '../config/parse.ts';
import type { Connection } from './misses.ts';

export type BuiltInReason = {
  readonly why: string;
  /** The key of the configuration that it comes from; undefined for what is always excluded. */
  readonly path?: Path;
};

const none: BuiltIns = {
  tunnelPorts: [],
  tunnelPeers: [],
  telemetry: [],
  management: [],
  broadcasts: [],
};

function holds(builtIns: BuiltIns, connection: Connection): boolean {
  const { opener, local, remote, localPort, remotePort, protocol } = connection;
  return isBuiltIn(builtIns, opener, local, remote, localPort, remotePort, protocol);
}

/** Undefined when the rules decide. */
export function builtInReason(all: BuiltIns, connection: Connection): BuiltInReason | undefined {
  if (!holds(all, connection)) return undefined;
  if (holds(none, connection)) return { why: always(connection) };
  const { tunnelPorts, tunnelPeers } = all;
  // Two peers a firewall: its address and the network that may answer for it.
  const tunnel = tunnelPeers.findIndex((peer) =>
    holds({ ...none, tunnelPorts, tunnelPeers: [peer] }, connection),
  );
  if (tunnel >= 0) {
    const path = ['firewalls', tunnel >> 1, tunnel % 2 === 0 ? 'address' : 'returnFrom'];
    return { why: "the tunnel's own packets", path };
  }
  const telemetry = all.telemetry.findIndex((endpoint) =>
    holds({ ...none, telemetry: [endpoint] }, connection),
  );
  // One a firewall, and after these one a firewall that is probed at its address.
  if (telemetry >= tunnelPeers.length / 2) {
    return { why: 'the probe of a firewall', path: ['ha', 'probe', 'port'] };
  }
  if (telemetry >= 0) {
    return { why: 'telemetry to the firewall', path: ['firewalls', telemetry, 'telemetry', 'url'] };
  }
  const management = all.management.findIndex((exception) =>
    holds({ ...none, management: [exception] }, connection),
  );
  if (management >= 0) {
    return { why: 'a management exception', path: ['workload', 'management', management] };
  }
  const broadcast = all.broadcasts.find((address) =>
    holds({ ...none, broadcasts: [address] }, connection),
  );
  const name = broadcast === undefined ? '' : `, ${formatAddress(broadcast)}`;
  return { why: `the broadcast address of an interface${name}` };
}

/** Of those that no configuration changes. */
function always({ local, remote }: Connection): string {
  const ends = [local, remote];
  const some = (test: (address: number) => boolean) => ends.some((address) => test(address >>> 0));
  if (some((address) => address >>> 24 === 127)) return 'loopback, 127.0.0.0/8';
  if (some((address) => address >>> 16 === 0xa9fe)) return 'link-local, 169.254.0.0/16';
  if (some((address) => address === 0)) return 'the unspecified address, 0.0.0.0';
  if (some((address) => address >>> 28 === 0xe)) return 'multicast, 224.0.0.0/4';
  if (some((address) => address === 0xffff_ffff)) return 'broadcast, 255.255.255.255';
  return 'DHCP, ports 67 and 68';
}
