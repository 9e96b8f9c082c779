/** What tunnels in user space have in common: a device at each end, and packages that may lack. */
import { spawnSync } from 'node:child_process';
import type { Namespace } from '../../lab/namespace.ts';
import { type Program, until } from '../../lab/program.ts';
import type { Running } from '../peer.ts';

export const nearAddress = '10.77.0.1';
export const farAddress = '10.77.0.2';

const startLimitMs = 5000;

/** Why it cannot run; undefined when every command is there. */
export function lacks(...commands: readonly string[]): string | undefined {
  const absent = commands.filter((command) => spawnSync('which', [command]).status !== 0);
  return absent.length === 0 ? undefined : `not installed: ${absent.join(', ')}`;
}

/** Waits until the program has made its device, then gives it its address. */
export async function raise(
  host: Namespace,
  program: Program,
  device: string,
  address: string,
  mtu: number,
): Promise<void> {
  await until(`${program.name} makes ${device}`, startLimitMs, () => {
    if (program.exitCode !== undefined) throw new Error(`${program.name}: ${program.errors}`);
    return host.must('cat', ['/proc/self/net/dev']).includes(`${device}:`);
  });
  host.ip(`addr add ${address}/24 dev ${device}`);
  host.ip(`link set ${device} mtu ${mtu} up`);
}

/** Ready when a ping comes through: handshakes are no part of a measurement. */
export async function connected(
  workload: Namespace,
  near: Program,
  far: Program,
): Promise<Running> {
  await until('the tunnel answers', startLimitMs, () => {
    const args = [`--net=${workload.path}`, 'ping', '-c', '1', '-W', '1', farAddress];
    return spawnSync('nsenter', args).status === 0;
  });
  return {
    pid: near.pid,
    address: farAddress,
    stop: async () => void (await Promise.all([near.stop(), far.stop()])),
  };
}
