/**
 * More firewalls beside the one of the topology, on one Ethernet segment with it, as a pair for
 * high availability is:
 *
 *     transit 10.9.0.1 -+- firewall    10.9.0.4
 *                       +- firewall-b  10.9.0.5
 *                       +- firewall-c  10.9.0.6
 */
import { join, Namespace } from './namespace.ts';
import type { Topology } from './topology.ts';

export const segmentAddresses = ['10.9.0.4', '10.9.0.5', '10.9.0.6'] as const;

export type FirewallSegment = {
  /** In the order of `segmentAddresses`; the first is the topology's own. */
  readonly hosts: readonly Namespace[];
  /** Removes those that were added. Programs inside must have ended. */
  remove(): void;
};

/** Put `count` firewall hosts, two or three, on one segment. */
export function createFirewallSegment(topology: Topology, count: 2 | 3): FirewallSegment {
  const { firewall, transit } = topology;
  transit.ip('link add segment type bridge');
  transit.ip('addr del 10.9.0.1/24 dev firewall');
  transit.ip('link set firewall master segment');
  const added = ['b', 'c'].slice(0, count - 1).map((letter, index) => {
    const host = new Namespace(`firewall-${letter}`);
    join(host, 'eth0', transit, `firewall-${letter}`);
    transit.ip(`link set firewall-${letter} master segment up`);
    host.ip(`addr add ${segmentAddresses[index + 1]}/24 dev eth0`);
    host.ip('link set eth0 up');
    host.ip('route add default via 10.9.0.1');
    return host;
  });
  transit.ip('addr add 10.9.0.1/24 dev segment');
  transit.ip('link set segment up');
  return {
    hosts: [firewall, ...added],
    remove: () => {
      for (const host of added) host.remove();
    },
  };
}
