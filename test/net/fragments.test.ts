// Untimed: another test may run beside this one.
/**
 * Fragments out of order on the wire (needs root): a raw socket sends the last one first. What does
 * not arrive whole and unchanged has no echo.
 */
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { run } from '../../lab/program.ts';
import { addresses } from '../../lab/topology.ts';
import { startEcho } from '../support/echo.ts';
import { startHairpin } from '../support/hairpin.ts';

const { server, workload } = addresses;
const sender = fileURLToPath(new URL('./fragment-sender.js', import.meta.url));

for (const firewall of ['builtin', 'vxlan'] as const) {
  t.test(`fragments in reverse order cross whole and come back: ${firewall}`, async (t) => {
    const hairpin = await startHairpin(t, { firewall });
    const { topology } = hairpin;
    const agent = await hairpin.startAgent();
    for (const [from, to, source, target] of [
      [topology.server, topology.workload, server, workload],
      [topology.workload, topology.server, workload, server],
    ] as const) {
      const { ended } = await startEcho(to);
      const args = [sender, source, target, '7000', '9000'];
      const { output, errors } = await run(from, process.execPath, args);
      const [sent, received] = output.trim().split(' ');
      t.equal(received, sent, `from ${source}${errors}`);
      await ended;
    }
    const { counters } = (await agent.status())!;
    t.ok(counters.redirected!.packets >= 14 && counters.reinjected!.packets >= 14);
    t.notOk(counters['fragment-unmatched'] ?? counters['fragments-full'], 'nothing waited in vain');
  });
}
