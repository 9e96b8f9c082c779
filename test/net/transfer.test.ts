/**
 * A gigabyte each way through the hair-pin arrives as it was sent, on a clean path and on one that
 * loses, duplicates and reorders (needs root). The kernel here may have no netem, so the lab's
 * firewall does that.
 */
import t, { type Test } from 'tap';
import { addresses } from '../../lab/topology.ts';
import { type HairpinOptions, shell, startHairpin } from '../support/hairpin.ts';

const { server, workload } = addresses;
const gigabyte = 1 << 30;
const impairments = ['tunnel seed 7', 'tunnel loss 1', 'tunnel duplicate 1', 'tunnel reorder 5'];

/** Pseudo-random bytes, the same for everyone: AES-CTR of zeros under a fixed key. */
function source(bytes: number): string {
  return `head -c ${bytes} /dev/zero | openssl enc -aes-128-ctr -nosalt -K 00112233445566778899aabbccddeeff -iv 00000000000000000000000000000001`;
}

async function transfer(t: Test, options: HairpinOptions, bytes: number, commands: string[]) {
  const hairpin = await startHairpin(t, options);
  const { topology } = hairpin;
  await hairpin.startAgent();
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
}

t.test('clean, geneve', (t) => transfer(t, {}, gigabyte, []));

t.test("clean, the kernel's vxlan", (t) =>
  transfer(t, { firewall: 'vxlan', topology: { offloads: 'firewall-off' } }, gigabyte >> 2, []),
);

t.test('1 % lost, 1 % duplicated, 5 % reordered', (t) =>
  transfer(t, {}, gigabyte >> 5, impairments),
);
