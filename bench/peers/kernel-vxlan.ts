/**
 * What a user would set up by hand: the kernel's VXLAN device and policy routing on the workload,
 * against the same kernel firewall that the agent is measured with. Both ways are redirected.
 *
 *     out   lo        to server    table 100: vx0      tunnel to the firewall
 *           vx0       to server    main: eth0          what came back, forwarded
 *     in    eth0      from server  table 100: vx0      before the table `local`, which moves down
 *           vx0       to workload  local               what came back, delivered
 */
import { createCertificates, createRunDirectory } from '../../lab/certificates.ts';
import { defaultVni, startVxlanFirewall, tunnelPorts } from '../../lab/firewalls.ts';
import type { Namespace } from '../../lab/namespace.ts';
import { addresses } from '../../lab/topology.ts';
import type { Peer } from '../peer.ts';

export const kernelVxlan: Peer = {
  name: 'kernel vxlan',
  route: 'hair-pin',
  wires: ['whole', 'firewall', 'mtu'],
  start: async (topology) => {
    const directory = createRunDirectory();
    const certificates = createCertificates(directory, 'firewall', addresses.firewall);
    const firewall = await startVxlanFirewall(topology.firewall, addresses.workload, {
      encapsulation: 'vxlan',
      certificates,
    });
    // It only takes telemetry, and here nobody sends any: its idle process would be measured.
    await firewall.stop();
    hairpin(topology.workload);
    return { stop: async () => {} };
  },
};

function hairpin(workload: Namespace): void {
  const { server } = addresses;
  const neighbour = '169.254.99.2';
  workload.ip(
    `link add vx0 address 02:00:00:00:00:01 type vxlan id ${defaultVni} ` +
      `local ${addresses.workload} remote ${addresses.firewall} dstport ${tunnelPorts.vxlan} nolearning`,
  );
  const settings = [
    'net.ipv4.ip_forward=1',
    // A packet whose socket was found early is dropped by ip_forward.
    'net.ipv4.ip_early_demux=0',
    // Our own packets come back by the tunnel.
    'net.ipv4.conf.vx0.accept_local=1',
    ...['all', 'eth0', 'vx0'].map((name) => `net.ipv4.conf.${name}.rp_filter=0`),
    ...['all', 'eth0', 'vx0'].map((name) => `net.ipv4.conf.${name}.send_redirects=0`),
    'net.ipv6.conf.vx0.disable_ipv6=1',
  ];
  workload.must('sysctl', ['-qw', ...settings]);
  workload.ip('link set vx0 up');
  workload.ip(`neigh add ${neighbour} lladdr 02:00:00:00:00:02 dev vx0 nud permanent`);
  workload.ip(`route add default via ${neighbour} dev vx0 onlink table 100`);
  workload.ip(`rule add pref 10 iif lo to ${server} lookup 100`);
  workload.ip(`rule add pref 20 iif eth0 from ${server} lookup 100`);
  workload.ip('rule add pref 30 lookup local');
  workload.ip('rule del pref 0');
}
