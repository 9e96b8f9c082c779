/** The lab with a virtual machine in the place of its workload, on a tap where the veth was. */
import type { Test } from 'tap';
import { writeAgentConfig } from '../../lab/agent.ts';
import type { Capture } from '../../lab/capture.ts';
import { addresses } from '../../lab/topology.ts';
import { startIperfServer, startWebServer } from '../../lab/traffic.ts';
import { startHairpin } from '../support/hairpin.ts';
import type { Nic } from './machine.ts';

export type Guest = {
  /** For the machine's `eth0`, of whichever model. */
  readonly nic: Omit<Nic, 'model'>;
  /** What its `eth0` is to have, a command each. */
  readonly network: string;
  /** Has the agent's configuration and what that refers to; the control socket goes there. */
  readonly directory: string;
  readonly config: string;
  /** What is on its wire in the tunnel. */
  readonly wire: Capture;
};

/** Web on port 80 and iperf3 answer at the server. */
export async function startGuest(t: Test): Promise<Guest> {
  const hairpin = await startHairpin(t, { topology: { offloads: 'firewall-off' } });
  const { certificates, directory, topology } = hairpin;
  const { firewall, router, server, workload } = addresses;
  const servers = [
    await startWebServer(topology.server, 'server', server, [80]),
    await startIperfServer(topology.server),
  ];
  t.teardown(() => Promise.all(servers.map((one) => one.stop())));
  for (const line of [
    'link del workload',
    'tuntap add dev workload mode tap',
    `addr add ${router}/24 dev workload`,
    'link set workload up',
  ]) {
    topology.router.ip(line);
  }
  const { ca } = certificates;
  const config = writeAgentConfig({ directory, ca, firewall, encapsulation: 'geneve' });
  return {
    nic: { namespace: topology.router.path, tap: 'workload' },
    network: `ip addr add ${workload}/24 dev eth0
ip link set eth0 up
ip route add default via ${router}`,
    directory,
    config,
    wire: await hairpin.capture(topology.router, 'wire', {
      filter: 'udp port 6081',
      interface: 'workload',
    }),
  };
}
