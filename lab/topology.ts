/**
 * The lab's network: five hosts as namespaces, joined by veth pairs, and on request a sixth.
 *
 *     container    -    workload    -     router     -     transit    -    firewall
 *     10.4.0.10        10.1.0.10         10.1.0.1
 *     (optional)       10.4.0.1          10.8.0.1         10.8.0.2
 *                                        10.2.0.1         10.9.0.1         10.9.0.4
 *                                           |
 *                                         server
 *                                        10.2.0.20
 *
 * The workload reaches the firewall over two routers and the server over one; the firewall is on
 * no path between workload and server, so what it sees was brought to it. The server is also the
 * client of connections that come in to the workload. The container stands for Docker on the
 * workload: an interface at MTU 1500 whose packets the workload routes, without NAT.
 *
 * Every interface towards the rest of the world is called `eth0`; the routers' interfaces are
 * called after the host at their other end. Making it all takes well under a second.
 */
import { spawnSync } from 'node:child_process';
import { join, Namespace } from './namespace.ts';

export const addresses = {
  workload: '10.1.0.10',
  router: '10.1.0.1',
  transit: '10.8.0.2',
  firewall: '10.9.0.4',
  server: '10.2.0.20',
  container: '10.4.0.10',
} as const;

export type TopologyOptions = {
  /** A host behind the workload, at MTU 1500 whatever `mtu` says. */
  readonly container?: boolean;
  /** MTU of the links, in bytes; 1500 by default. */
  readonly mtu?: number;
  /**
   * Veth passes packets on as the sender's stack made them: up to 64 KiB, checksums not filled in.
   * `all` leaves that so; `firewall-off` makes the link between transit and firewall carry only
   * what a real wire could (a kernel tunnel needs it there, and a capture of it reads like one of
   * a real wire); `none` does so on every link.
   */
  readonly offloads?: 'all' | 'firewall-off' | 'none';
};

export type Topology = {
  readonly workload: Namespace;
  readonly router: Namespace;
  readonly transit: Namespace;
  readonly firewall: Namespace;
  readonly server: Namespace;
  readonly container: Namespace | undefined;
  readonly addresses: typeof addresses;
  /** Removes the namespaces and with them the links. Programs inside must have ended. */
  remove(): void;
};

/** Makes the hosts and their links. Needs root. */
export function createTopology(options: TopologyOptions = {}): Topology {
  const mtu = options.mtu ?? 1500;
  const workload = new Namespace('workload');
  const router = new Namespace('router');
  const transit = new Namespace('transit');
  const firewall = new Namespace('firewall');
  const server = new Namespace('server');
  const container = options.container === true ? new Namespace('container') : undefined;
  const hosts = [workload, router, transit, firewall, server, container].filter(isPresent);

  for (const host of hosts) settle(host, host === router || host === transit);
  join(workload, 'eth0', router, 'workload');
  join(server, 'eth0', router, 'server');
  join(transit, 'router', router, 'transit');
  join(firewall, 'eth0', transit, 'firewall');
  configure(workload, [...link('eth0', '10.1.0.10/24', mtu), 'route add default via 10.1.0.1']);
  configure(server, [...link('eth0', '10.2.0.20/24', mtu), 'route add default via 10.2.0.1']);
  configure(firewall, [...link('eth0', '10.9.0.4/24', mtu), 'route add default via 10.9.0.1']);
  configure(router, [
    ...link('workload', '10.1.0.1/24', mtu),
    ...link('server', '10.2.0.1/24', mtu),
    ...link('transit', '10.8.0.1/24', mtu),
    'route add 10.9.0.0/24 via 10.8.0.2',
    'route add 10.4.0.0/24 via 10.1.0.10',
  ]);
  configure(transit, [
    ...link('router', '10.8.0.2/24', mtu),
    ...link('firewall', '10.9.0.1/24', mtu),
    'route add default via 10.8.0.1',
  ]);
  if (container !== undefined) {
    join(container, 'eth0', workload, 'container');
    configure(container, [...link('eth0', '10.4.0.10/24', 1500), 'route add default via 10.4.0.1']);
    configure(workload, link('container', '10.4.0.1/24', 1500));
    workload.must('sysctl', ['-qw', 'net.ipv4.ip_forward=1']);
  }
  switchOffloads(options.offloads ?? 'all', { workload, router, transit, firewall, server });
  return {
    workload,
    router,
    transit,
    firewall,
    server,
    container,
    addresses,
    remove: () => {
      for (const host of hosts) host.remove();
    },
  };
}

/**
 * Make a link carry only packets that fit its MTU, with complete checksums, as a NIC does. The
 * tunnel features are named on their own: a packet that a kernel tunnel wraps is governed by them.
 */
export function disableOffloads(host: Namespace, name: string): void {
  const features = ['tx', 'tso', 'gso', 'tx-udp-segmentation'];
  const tunnel = ['tx-udp_tnl-segmentation', 'tx-udp_tnl-csum-segmentation'];
  const off = [...features, ...tunnel].flatMap((feature) => [feature, 'off']);
  host.must('ethtool', ['-K', name, ...off]);
}

type Hosts = Pick<Topology, 'workload' | 'router' | 'transit' | 'firewall' | 'server'>;

function switchOffloads(which: 'all' | 'firewall-off' | 'none', hosts: Hosts): void {
  if (which === 'all') return;
  disableOffloads(hosts.firewall, 'eth0');
  disableOffloads(hosts.transit, 'firewall');
  if (which === 'firewall-off') return;
  disableOffloads(hosts.transit, 'router');
  for (const name of ['workload', 'server', 'transit']) disableOffloads(hosts.router, name);
  disableOffloads(hosts.workload, 'eth0');
  disableOffloads(hosts.server, 'eth0');
}

/** Without duplicate address detection, link-local addresses are final at once and nobody waits. */
function settle(host: Namespace, forwards: boolean): void {
  const settings = ['net.ipv6.conf.default.accept_dad=0', 'net.ipv6.conf.all.accept_dad=0'];
  if (forwards) settings.push('net.ipv4.ip_forward=1');
  host.must('sysctl', ['-qw', ...settings]);
}

function link(name: string, address: string, mtu: number): string[] {
  return [`addr add ${address} dev ${name}`, `link set ${name} mtu ${mtu} up`];
}

/** `ip` commands in one process: a process each would be most of the time it takes. */
function configure(host: Namespace, lines: readonly string[]): void {
  const result = spawnSync('nsenter', [`--net=${host.path}`, 'ip', '-batch', '-'], {
    input: `${lines.join('\n')}\n`,
    encoding: 'utf8',
  });
  if (result.status !== 0) throw new Error(`ip in ${host.name}: ${result.stderr.trim()}`);
}

function isPresent(host: Namespace | undefined): host is Namespace {
  return host !== undefined;
}
