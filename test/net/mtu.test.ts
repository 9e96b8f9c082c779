// Untimed: another test may run beside this one.
/**
 * What is larger than the tunnel (needs root). The tunnel carries 1452 bytes on a path of 1500:
 *
 *     container 10.4.0.10 (MTU 1500) - workload 10.1.0.10 - router - … - firewall
 *                                                             |
 *                                                        server 10.2.0.20
 */
import t from 'tap';
import { addresses } from '../../lab/topology.ts';
import { shell, startHairpin } from '../support/hairpin.ts';

const { container, server, workload } = addresses;
const blob = 'head -c 3000000 /dev/zero | tr "\\0" x';

t.test('a container at MTU 1500 behind the workload works untouched', async (t) => {
  const hairpin = await startHairpin(t, { topology: { container: true } });
  const { topology } = hairpin;
  const inside = topology.container!;
  const agent = await hairpin.startAgent();
  for (const [from, to, address] of [
    [inside, topology.server, server],
    [topology.server, inside, container],
  ] as const) {
    const received = shell(to, 'socat -u TCP-LISTEN:9000,reuseaddr - | wc -c');
    await new Promise((resolve) => setTimeout(resolve, 300));
    await shell(from, `${blob} | socat -u - TCP:${address}:9000`);
    t.equal(
      await received,
      '3000000',
      `3 MB from ${from === inside ? 'the container' : 'outside'}`,
    );
  }
  t.match(await shell(inside, `ping -n -c 2 -i 0.2 -W 1 -M dont -s 1472 ${server}`), '2 received');
  const { counters } = (await agent.status())!;
  t.ok(counters.redirected!.packets > 4000, 'all of it was redirected');
});

t.test('a 4,000-byte UDP datagram crosses in fragments, both ways', async (t) => {
  const hairpin = await startHairpin(t);
  const { topology } = hairpin;
  await hairpin.startAgent();
  for (const [from, to, address] of [
    [topology.workload, topology.server, server],
    [topology.server, topology.workload, workload],
  ] as const) {
    const echo = shell(to, 'timeout 3 socat -b8192 -T1 UDP-LISTEN:7000 EXEC:cat; true');
    await new Promise((resolve) => setTimeout(resolve, 300));
    const answer = await shell(
      from,
      `head -c 4000 /dev/zero | tr "\\0" y | socat -b8192 -t1 - UDP:${address}:7000 | wc -c`,
    );
    t.equal(answer, '4000', `to ${address} and back`);
    await echo;
  }
});

t.test('a packet with DF that is too big is answered with the MTU of the tunnel', async (t) => {
  const hairpin = await startHairpin(t);
  const { topology } = hairpin;
  const agent = await hairpin.startAgent();
  for (const [from, address] of [
    [topology.workload, server],
    [topology.server, workload],
  ] as const) {
    const words = await shell(from, `ping -n -c 2 -i 0.2 -W 1 -M do -s 1440 ${address}; true`);
    t.match(words, 'mtu = 1452', `${address}: the sender is told`);
    t.match(await shell(from, `ping -n -c 2 -i 0.2 -W 1 -M do -s 1424 ${address}`), '2 received');
  }
  const { counters } = (await agent.status())!;
  t.ok(counters['too-big']!.packets >= 2, 'and it is counted');
});

t.test('a path to the firewall that narrows is noticed by its ICMP', async (t) => {
  const hairpin = await startHairpin(t);
  const { topology } = hairpin;
  const agent = await hairpin.startAgent();
  t.match(
    await shell(topology.workload, `ping -n -c 1 -W 1 -M dont -s 1400 ${server}`),
    '1 received',
  );
  for (const [host, name] of [
    [topology.router, 'transit'],
    [topology.transit, 'router'],
  ] as const) {
    host.ip(`link set ${name} mtu 1400`);
  }
  await shell(topology.workload, `ping -n -c 3 -i 0.2 -W 1 -M dont -s 1400 ${server}; true`);
  t.equal((await agent.status())!.innerMtu, 1352, 'the inner MTU follows');
  t.match(
    await shell(topology.workload, `ping -n -c 2 -i 0.2 -W 1 -M dont -s 1400 ${server}`),
    '2 received',
  );
  const received = shell(topology.server, 'socat -u TCP-LISTEN:9000,reuseaddr - | wc -c');
  await new Promise((resolve) => setTimeout(resolve, 300));
  await shell(topology.workload, `${blob} | socat -u - TCP:${server}:9000`);
  t.equal(await received, '3000000', 'TCP too');
});
