/** wireguard-go: a tunnel in user space that encrypts. Debian's has no offloads. */
import { spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createRunDirectory } from '../../lab/certificates.ts';
import { must, type Namespace } from '../../lab/namespace.ts';
import { type Program, start } from '../../lab/program.ts';
import { addresses } from '../../lab/topology.ts';
import type { Peer } from '../peer.ts';
import { connected, farAddress, lacks, nearAddress, raise } from './vpn.ts';

const port = 51_820;
/** Ethernet's less IPv4, UDP and WireGuard (32). */
const mtu = 1440;

export const wireguardGo: Peer = {
  name: 'wireguard-go one-way',
  route: 'one-way',
  wires: ['whole', 'mtu'],
  missing: () => lacks('wireguard-go', 'wg'),
  start: async ({ workload, firewall }) => {
    const directory = createRunDirectory();
    // Its control sockets are files that all namespaces share: names of their own.
    const nearName = `mpn${process.pid}`;
    const farName = `mpf${process.pid}`;
    const nearProgram = open(workload, nearName);
    const farProgram = open(firewall, farName);
    const near = createKey(join(directory, 'near.key'));
    const far = createKey(join(directory, 'far.key'));
    await raise(workload, nearProgram, nearName, nearAddress, mtu);
    await raise(firewall, farProgram, farName, farAddress, mtu);
    introduce(nearName, near, far.open, farAddress, addresses.firewall);
    introduce(farName, far, near.open, nearAddress, addresses.workload);
    return connected(workload, nearProgram, farProgram);
  },
};

type Key = { readonly path: string; readonly open: string };

/** Politely ended, it removes its control socket. */
function open(host: Namespace, name: string): Program {
  return start(host, 'wireguard-go', ['-f', name], {
    graceMs: 1000,
    environment: { WG_I_PREFER_BUGGY_USERSPACE_TO_POLISHED_KMOD: '1' },
  });
}

function createKey(path: string): Key {
  const secret = must('wg', ['genkey']);
  writeFileSync(path, secret, { mode: 0o600 });
  const { stdout } = spawnSync('wg', ['pubkey'], { input: secret, encoding: 'utf8' });
  return { path, open: stdout.trim() };
}

function introduce(name: string, key: Key, other: string, allowed: string, endpoint: string): void {
  const peer = ['peer', other, 'allowed-ips', `${allowed}/32`, 'endpoint', `${endpoint}:${port}`];
  must('wg', ['set', name, 'private-key', key.path, 'listen-port', String(port), ...peer]);
}
