/**
 * `microperimeter release`: with `onAgentFailure: drop` the kernel goes on dropping after an agent
 * was killed. This lets traffic flow again without starting another.
 */
import { findLeftovers, releaseLeftovers } from '../../linux/bpf/methods.ts';
import { SystemError } from '../../linux/errors.ts';
import { listInterfaces } from '../../linux/netlink.ts';
import { ExitCode } from '../exit-codes.ts';
import { pinDirectory, tunName } from '../host-policy.ts';

/** Refuses while an agent runs in this network namespace: its hold is no leftover. */
export function release(): number {
  if (listInterfaces().some(({ name }) => name === tunName)) {
    const message = 'an agent is running in this network namespace';
    throw new SystemError('ERR_TUN_BUSY', message, { advice: 'Stop it: microperimeter stop.' });
  }
  const count = releaseLeftovers(pinDirectory, 'agent');
  const words = count === 0 ? 'nothing was held' : `released ${count} kernel programs`;
  process.stdout.write(`${words}\n`);
  if (findLeftovers(pinDirectory, 'guard').length > 0) {
    process.stdout.write('the boot guard is armed and drops: microperimeter guard disarm\n');
  }
  return ExitCode.Ok;
}
