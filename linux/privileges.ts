/**
 * Capabilities of this process (capabilities(7)). They belong to threads, and a running Node has
 * several: so what is given up is given up by starting over, by execve(2) in the same process,
 * under a bounding set that has no more.
 */
import { readFileSync } from 'node:fs';
import { check, execve, fcntl, prctl } from './syscall.ts';

/** include/uapi/linux/capability.h */
export const capabilityNumbers = {
  CAP_DAC_READ_SEARCH: 2,
  CAP_SETPCAP: 8,
  CAP_NET_ADMIN: 12,
  CAP_NET_RAW: 13,
  CAP_SYS_ADMIN: 21,
  CAP_BPF: 39,
} as const;
export type CapabilityName = keyof typeof capabilityNumbers;

/** include/uapi/linux/prctl.h */
const PR_CAPBSET_DROP = 24;
const PR_SET_NO_NEW_PRIVS = 38;
const PR_CAP_AMBIENT = 47;
const PR_CAP_AMBIENT_CLEAR_ALL = 4;
/** include/uapi/asm-generic/fcntl.h */
const F_SETFD = 2;

/** A set as a number of 64 bits, as proc(5) shows it: `CapEff` what counts, `CapBnd` its bound. */
export function capabilitySet(name: 'CapEff' | 'CapBnd'): bigint {
  const line = new RegExp(`^${name}:\\s*([0-9a-f]+)$`, 'm').exec(
    readFileSync('/proc/self/status', 'utf8'),
  );
  return BigInt(`0x${line?.[1] ?? '0'}`);
}

export function has(set: bigint, name: CapabilityName): boolean {
  return (set >> BigInt(capabilityNumbers[name])) % 2n === 1n;
}

/** Bits of no capability that the kernel knows are not in any set. */
const highest = 63;

/**
 * Start this program over with no more than `kept`, by the same command line. Returns only when
 * that is not possible or needed: without CAP_SETPCAP, or for a user who has no more than it was
 * given.
 *
 * @param environment of the program that starts
 * @throws SystemError when the kernel refuses
 */
export function restartWith(
  kept: readonly CapabilityName[],
  environment: Readonly<Record<string, string | undefined>>,
): void {
  const bound = capabilitySet('CapBnd');
  const mask = kept.reduce((sum, name) => sum | (1n << BigInt(capabilityNumbers[name])), 0n);
  if ((bound & ~mask) === 0n || process.geteuid?.() !== 0) return;
  if (!has(capabilitySet('CapEff'), 'CAP_SETPCAP')) return;
  for (let number = 0; number <= highest; number++) {
    const bit = 1n << BigInt(number);
    if ((bound & bit) === 0n || (mask & bit) !== 0n) continue;
    check(prctl(PR_CAPBSET_DROP, number, 0, 0, 0), 'prctl(PR_CAPBSET_DROP)');
  }
  check(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0), 'prctl(PR_CAP_AMBIENT)');
  check(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 'prctl(PR_SET_NO_NEW_PRIVS)');
  // Node has its standard files closed for whoever it starts.
  for (const fd of [0, 1, 2]) fcntl(fd, F_SETFD, 0);
  const words = readFileSync('/proc/self/cmdline', 'utf8').split('\0').slice(0, -1);
  const variables = Object.entries(environment).flatMap(([name, value]) =>
    value === undefined ? [] : [`${name}=${value}`],
  );
  check(execve('/proc/self/exe', [...words, null], [...variables, null]), 'execve');
}
