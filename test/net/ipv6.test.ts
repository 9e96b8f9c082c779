// Untimed: another test may run beside this one.
/** IPv6 is not redirected: it passes with a warning, or is dropped (needs root). */
import t from 'tap';
import { type Hairpin, shell, startHairpin } from '../support/hairpin.ts';

/** The workload and its router speak IPv6 too. */
function addIpv6({ topology }: Hairpin): void {
  topology.workload.ip('addr add 2001:db8::10/64 dev eth0 nodad');
  topology.router.ip('addr add 2001:db8::1/64 dev workload nodad');
}

const ping = 'ping -6 -n -c 2 -i 0.2 -W 1 2001:db8::1; true';

t.test('pass: a warning at the start, and in status', async (t) => {
  const hairpin = await startHairpin(t);
  addIpv6(hairpin);
  const agent = await hairpin.startAgent();
  t.match(await shell(hairpin.topology.workload, ping), '2 received');
  t.match((await agent.status()) as object, { ipv6: { policy: 'pass', leaks: true } });
  t.match(agent.program.output, /has IPv6, which is not inspected/);
});

t.test('drop: only the link itself works', async (t) => {
  const hairpin = await startHairpin(t, {
    settings: { workload: { interfaces: ['eth0'], ipv6: 'drop' } },
  });
  addIpv6(hairpin);
  const agent = await hairpin.startAgent();
  t.match(await shell(hairpin.topology.workload, ping), '0 received');
  t.ok((await agent.status())!.kernel.droppedIpv6!.packets >= 2);
  t.match((await agent.status()) as object, { ipv6: { policy: 'drop', leaks: false } });
  const neighbours = await shell(hairpin.topology.workload, 'ip -6 neigh show 2001:db8::1');
  t.match(neighbours, /lladdr/, 'neighbour discovery goes on');
});
