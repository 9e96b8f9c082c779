/**
 * `microperimeter guard`: with `policy.onBoot: drop` the kernel drops what would be redirected from
 * before the network is up until the agent has reached its firewall. `arm` is for the service
 * manager, `disarm` for an operator; the agent disarms it by itself with its first good telemetry.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Config } from '../../engine/config.ts';
import { armGuard } from '../../linux/bpf/guard.ts';
import { findLeftovers, releaseLeftovers } from '../../linux/bpf/methods.ts';
import { SystemError } from '../../linux/errors.ts';
import {
  addressesOf,
  type Interface,
  interfaceByName,
  listInterfaces,
} from '../../linux/netlink.ts';
import { readConfigFile } from '../config/file.ts';
import { parseDuration } from '../config/text.ts';
import { ExitCode } from '../exit-codes.ts';
import { exclusionsOf, pinDirectory, tunName } from '../host-policy.ts';
import { broadcastsOf } from '../links.ts';
import { UsageError } from '../usage-error.ts';

/** How often interfaces that are not there yet are looked for. */
const pollMs = 100;

/**
 * Guard the interfaces that there are, then those that appear within `wait`. An interface that is
 * not there lets nothing through either; the exit code says that it is not guarded.
 */
export async function arm(options: { config: string; wait: string }): Promise<number> {
  const waitMs = options.wait === '0' ? 0 : parseDuration(options.wait);
  if (waitMs === undefined) throw new UsageError(`--wait is like 30s, not ${options.wait}`);
  const { config } = readConfigFile(options.config);
  if (config.policy.onBoot !== 'drop') {
    say('not armed: policy.onBoot is pass');
    return ExitCode.Ok;
  }
  const { interfaces: names } = config.workload;
  const deadline = performance.now() + waitMs;
  let armed: Interface[] = [];
  for (;;) {
    const present = listInterfaces().filter(({ name }) => names.includes(name));
    if (!sameIndexes(present, armed)) {
      armOn(present, config);
      armed = present;
      say(`armed: ${present.map(({ name }) => name).join(', ')}`);
    }
    if (armed.length === names.length) return ExitCode.Ok;
    if (performance.now() >= deadline) break;
    await sleep(pollMs);
  }
  const missing = names.filter((name) => armed.every((link) => link.name !== name));
  throw new SystemError('ERR_NO_INTERFACE', `not guarded, not there: ${missing.join(', ')}`, {
    advice: 'Arm again when they are: microperimeter guard arm.',
  });
}

function armOn(present: readonly Interface[], config: Config): void {
  // A guard behind one that redirects would drop what it lets go on.
  if (isAgentHere()) {
    const message = 'an agent is running in this network namespace: it keeps onBoot by itself';
    throw new SystemError('ERR_TUN_BUSY', message);
  }
  const interfaces = present.map(({ name }) => interfaceByName(name));
  const broadcasts = broadcastsOf(interfaces.map(({ index }) => addressesOf(index)));
  armGuard({ ...exclusionsOf(config, { broadcasts }), interfaces, pinDirectory });
}

export function disarm(): number {
  const count = releaseLeftovers(pinDirectory, 'guard');
  say(count === 0 ? 'it was not armed' : 'disarmed: traffic flows as if it had never been');
  return ExitCode.Ok;
}

export function guardStatus(options: { json: boolean }): number {
  const places = findLeftovers(pinDirectory, 'guard').map(({ name }) => name);
  if (options.json) say(JSON.stringify({ armed: places.length > 0, places, agent: isAgentHere() }));
  else say(places.length === 0 ? 'not armed' : `armed: ${places.join(', ')}`);
  return ExitCode.Ok;
}

function isAgentHere(): boolean {
  return listInterfaces().some(({ name }) => name === tunName);
}

function sameIndexes(a: readonly Interface[], b: readonly Interface[]): boolean {
  return a.map(({ index }) => index).join() === b.map(({ index }) => index).join();
}

function say(words: string): void {
  process.stdout.write(`${words}\n`);
}
