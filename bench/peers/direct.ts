/** No firewall and no agent: what the topology itself carries. */
import type { Peer } from '../peer.ts';

export const direct: Peer = {
  name: 'direct',
  route: 'direct',
  wires: ['whole', 'mtu'],
  start: async () => ({ stop: async () => {} }),
};
