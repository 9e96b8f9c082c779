/** fastd (C) without encryption: a tunnel in user space, one packet a call, no offloads. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createRunDirectory } from '../../lab/certificates.ts';
import { must, type Namespace } from '../../lab/namespace.ts';
import { start } from '../../lab/program.ts';
import { addresses } from '../../lab/topology.ts';
import type { Peer } from '../peer.ts';
import { connected, farAddress, lacks, nearAddress, raise } from './vpn.ts';

const port = 10_000;
const device = 'fastd0';
/** Ethernet's less IPv4, UDP and fastd's null method (1 byte), rounded down. */
const mtu = 1468;

export const fastd: Peer = {
  name: 'fastd one-way',
  route: 'one-way',
  wires: ['whole', 'mtu'],
  missing: () => lacks('fastd'),
  start: async ({ workload, firewall }) => {
    const directory = createRunDirectory();
    const near = createKey();
    const far = createKey();
    const open = (host: Namespace, own: string, other: string, key: Key, otherKey: Key) => {
      const path = join(directory, `${own}.conf`);
      const lines = [
        `mode tun; interface "${device}"; method "null"; mtu ${mtu}; log level warn;`,
        `bind ${own}:${port}; secret "${key.secret}";`,
        `peer "other" { remote ${other}:${port}; key "${otherKey.open}"; }`,
      ];
      writeFileSync(path, `${lines.join('\n')}\n`, { mode: 0o600 });
      return start(host, 'fastd', ['--config', path]);
    };
    const nearProgram = open(workload, addresses.workload, addresses.firewall, near, far);
    const farProgram = open(firewall, addresses.firewall, addresses.workload, far, near);
    await raise(workload, nearProgram, device, nearAddress, mtu);
    await raise(firewall, farProgram, device, farAddress, mtu);
    return connected(workload, nearProgram, farProgram);
  },
};

type Key = { readonly secret: string; readonly open: string };

function createKey(): Key {
  const text = must('fastd', ['--generate-key']);
  const [secret, open] = ['Secret', 'Public'].map(
    (name) => new RegExp(`${name}: ([0-9a-f]{64})`).exec(text)?.[1],
  );
  if (secret === undefined || open === undefined) throw new Error(`fastd: no key in "${text}"`);
  return { secret, open };
}
