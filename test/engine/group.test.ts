/** Connections between members of a group, and packets that come again, over fakes. */
import t from 'tap';
import { groupOf } from '../../engine/classifier/group.ts';
import { KernelVerdict } from '../../engine/io.ts';
import { back, out, server, startEngine, syn, workload } from '../support/engine.ts';
import { address, tcp } from '../support/packets.ts';

const members = [
  { address: address(workload), length: 32 },
  { address: address(server), length: 32 },
];
const opened = () => tcp(back, { from: 5000, to: 443, flags: 0x02 });

t.test('exactly one of two members redirects', async (t) => {
  for (const [intraGroup, redirectsOwn, redirectsOthers] of [
    ['source', true, false],
    ['destination', false, true],
    ['both', true, true],
  ] as const) {
    const path = startEngine({ group: groupOf(members, intraGroup) });
    path.egress(syn());
    t.equal(path.io.socket.sent.length === 1, redirectsOwn, `${intraGroup}: what it opens`);
    path.ingress(opened());
    const sent = path.io.socket.sent.length - (redirectsOwn ? 1 : 0);
    t.equal(sent === 1, redirectsOthers, `${intraGroup}: what the other opens`);
    const passed = 2 - Number(redirectsOwn) - Number(redirectsOthers);
    t.equal(path.counts()['passed-group'] ?? 0, passed);
  }
});

t.test('what passes is told to the kernel, its answers with it', async (t) => {
  const path = startEngine({ group: groupOf(members, 'destination') });
  path.egress(syn());
  t.match(path.io.steering.remembered, [{ verdict: KernelVerdict.Pass }]);
  path.ingress(tcp(back, { from: 80, to: 40000, flags: 0x12 }));
  t.same(path.io.socket.sent, [], 'an answer is of the same connection');
});

t.test('one that is no member is redirected', async (t) => {
  const others = [{ address: address(workload), length: 32 }];
  const path = startEngine({ group: groupOf(others, 'destination') });
  path.egress(syn());
  t.equal(path.io.socket.sent.length, 1);
  t.equal(groupOf([], 'destination'), undefined);
});

t.test('a packet that comes again with a smaller time to live goes around', async (t) => {
  const path = startEngine();
  const packet = (id: number, timeToLive: number) =>
    tcp({ ...out, id, ttl: timeToLive }, { from: 40000, to: 443, flags: 0x02 });
  path.egress(packet(7, 64));
  path.egress(packet(7, 62));
  path.egress(packet(7, 60));
  t.equal(path.io.socket.sent.length, 1);
  path.egress(packet(8, 60));
  path.egress(packet(0, 64));
  path.egress(packet(0, 62));
  t.equal(path.io.socket.sent.length, 4, 'another packet, or one without identification, is not');
  path.io.clock.nowMs += 5000;
  path.egress(packet(7, 40));
  t.equal(path.io.socket.sent.length, 5, 'nor is one of long ago');
  t.equal(path.counts()['packet-looped'], 2);
});
