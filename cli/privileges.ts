/** What the agent gives up before it begins: every capability that it has no use for. */
import { readFileSync, realpathSync, statSync } from 'node:fs';
import { dirname } from 'node:path';
import { isSea } from 'node:sea';
import { liftMemoryLimit } from '../linux/locked-memory.ts';
import {
  type CapabilityName,
  capabilityNumbers,
  capabilitySet,
  has,
  restartWith,
} from '../linux/privileges.ts';

export const neededCapabilities: readonly CapabilityName[] = [
  'CAP_NET_ADMIN',
  'CAP_NET_RAW',
  'CAP_BPF',
];

/**
 * Starts the agent over with what it needs, in the same process; returns when it has no more. What
 * only more could find out must be known before: `ssh` says who has started it, as sshd would.
 *
 * @param config the configuration file
 * @throws SystemError when the kernel refuses
 */
export function giveUpPrivileges(config: string, ssh: string | undefined): void {
  const kept = [...neededCapabilities];
  if (mayPin(config)) kept.push('CAP_SYS_ADMIN');
  const program = isSea() ? process.execPath : process.argv[1];
  if (![program, config].every((path) => path === undefined || isOpenToRoot(path))) {
    kept.push('CAP_DAC_READ_SEARCH');
  }
  // Of no use once CAP_SYS_RESOURCE is gone, and of no harm where it is not needed.
  liftMemoryLimit();
  const environment = ssh === undefined ? process.env : { ...process.env, SSH_CONNECTION: ssh };
  restartWith(kept, environment);
}

/** Those that this process has, by name. */
export function heldCapabilities(): string[] {
  const set = capabilitySet('CapEff');
  const names = Object.keys(capabilityNumbers) as CapabilityName[];
  return names.filter((name) => has(set, name));
}

/**
 * Whether `onAgentFailure: drop` may have to mount a place for its pins, and to take it away again.
 * Asked before the file is read, which may take seconds: a word too much keeps a capability.
 */
function mayPin(config: string): boolean {
  const variable = process.env.MICROPERIMETER__POLICY__ON_AGENT_FAILURE;
  if (variable !== undefined) return variable.includes('drop');
  try {
    return /onAgentFailure["']?\s*:\s*["']?drop/.test(readFileSync(config, 'utf8'));
  } catch {
    // Whoever reads it next says why it cannot be read.
    return false;
  }
}

/** Whether root may read it as its owner, its group or anybody, and not only by privilege. */
function isOpenToRoot(path: string): boolean {
  try {
    let inner = realpathSync(path);
    if (!permits(inner, 0o4)) return false;
    for (;;) {
      const outer = dirname(inner);
      if (outer === inner) return true;
      if (!permits(outer, 0o1)) return false;
      inner = outer;
    }
  } catch {
    return true;
  }
}

/** @param bit of the permissions of others */
function permits(path: string, bit: number): boolean {
  const { gid, mode, uid } = statSync(path);
  const shift = uid === 0 ? 6 : gid === 0 ? 3 : 0;
  return ((mode >> shift) & bit) !== 0;
}
