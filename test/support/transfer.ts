/** Bytes through the hair-pin, each way, that must arrive as they were sent. */
import type { Test } from 'tap';
import { addresses } from '../../lab/topology.ts';
import { type HairpinOptions, shell, startHairpin } from './hairpin.ts';

const { server, workload } = addresses;

/** Pseudo-random bytes, the same for everyone: AES-CTR of zeros under a fixed key. */
function source(bytes: number): string {
  const cipher = `openssl enc -aes-128-ctr -nosalt -K ${'5'.repeat(32)} -iv ${'0'.repeat(32)}`;
  return `head -c ${bytes} /dev/zero | ${cipher}`;
}

/**
 * @param commands to the firewall, once all runs
 * @returns what the agent wrote to its standard error
 */
export async function transfer(
  t: Test,
  options: HairpinOptions,
  bytes: number,
  commands: readonly string[],
): Promise<string> {
  const hairpin = await startHairpin(t, options);
  const { topology } = hairpin;
  const agent = await hairpin.startAgent();
  for (const command of commands) await hairpin.firewall.command(command);
  const expected = await shell(topology.server, `${source(bytes)} | sha256sum`);
  const ways = [
    ['out of the workload, opened by it', topology.workload, topology.server, server],
    ['into the workload, opened by the server', topology.server, topology.workload, workload],
  ] as const;
  for (const [way, from, to, address] of ways) {
    const received = shell(to, 'socat -u TCP-LISTEN:9000,reuseaddr - | sha256sum');
    await new Promise((resolve) => setTimeout(resolve, 300));
    await shell(from, `${source(bytes)} | socat -u - TCP:${address}:9000`);
    t.equal(await received, expected, `${bytes} bytes ${way}`);
  }
  for (const [way, , to, address] of ways) {
    const from = to === topology.server ? topology.workload : topology.server;
    const sent = shell(to, `${source(bytes >> 2)} | socat -u - TCP-LISTEN:9001,reuseaddr`);
    await new Promise((resolve) => setTimeout(resolve, 300));
    const got = await shell(from, `socat -u TCP:${address}:9001 - | sha256sum`);
    await sent;
    t.equal(got, await shell(from, `${source(bytes >> 2)} | sha256sum`), `and back: ${way}`);
  }
  return agent.program.errors;
}
