/**
 * Packets that no honest kernel or neighbour makes, each of which once broke something. What the
 * virtio header says may come from a guest; fragments, from anybody.
 */
import t from 'tap';
import { Established } from '../../engine/classifier/lookup.ts';
import { Gso } from '../../engine/io.ts';
import { out, startEngine } from '../support/engine.ts';
import { fragments, icmp, ipv4, TCP, tcp, udp } from '../support/packets.ts';

const redirecting = () => startEngine({ established: Established.Redirect });
const partial = { checksumStart: 20, checksumOffset: 16 };
const superTcp = { gso: Gso.Tcp4, gsoSize: 1000, ...partial };

t.test('a corrupted packet that must be cut is not repaired', async (t) => {
  const path = redirecting();
  const packet = tcp(out, { from: 1, to: 2, payload: Buffer.alloc(1460, 7) });
  packet[1000] ^= 1;
  path.egress(packet);
  path.egress(packet, { gso: Gso.Tcp4, gsoSize: 1000 });
  t.equal(path.io.socket.sent.length, 0);
  t.same(path.counts(), { 'checksum-wrong': 3 }, 'one packet, and one of two segments');
});

t.test('a super-packet without payload is counted', async (t) => {
  const path = redirecting();
  path.egress(tcp(out, { from: 1, to: 2, partial: true }), superTcp);
  t.same(path.counts(), { 'virtio-bad-gso': 1 });
});

t.test('neither fragments nor ICMP errors are cut as super-packets', async (t) => {
  const path = redirecting();
  const packet = tcp(out, { from: 1, to: 2, payload: Buffer.alloc(1400, 7) });
  for (const part of fragments(packet, 800, out)) {
    path.egress(part, { gso: Gso.Tcp4, gsoSize: 1000 });
  }
  const quoted = tcp({ source: out.target, target: out.source }, { from: 2, to: 1 });
  const error = icmp(out, 3, 3, Buffer.concat([Buffer.alloc(4), quoted]));
  path.egress(error, { gso: Gso.Tcp4, gsoSize: 1000 });
  t.equal(path.io.socket.sent.length, 0);
  t.same(path.counts(), { 'gso-unsupported': 3 });
});

t.test('a partial checksum over what was decided by is refused', async (t) => {
  const path = redirecting();
  const query = udp(out, 1000, 53, Buffer.alloc(8));
  const rows: [name: string, checksumStart: number, checksumOffset: number][] = [
    ['the source port', 20, 0],
    ['the UDP length', 20, 4],
    ['behind the total length', 40, 0],
  ];
  for (const [name, checksumStart, checksumOffset] of rows) {
    path.egress(Buffer.concat([query, Buffer.alloc(20)]), { checksumStart, checksumOffset });
    t.equal(path.io.socket.sent.length, 0, name);
  }
  const withOptions = tcp({ ...out, options: Buffer.alloc(20, 1) }, { from: 1, to: 2 });
  path.egress(withOptions, partial);
  const pinged = icmp(out, 8, 0, Buffer.from([0, 1, 0, 1]));
  path.egress(pinged, { checksumStart: 20, checksumOffset: 4 });
  t.same(path.counts(), { 'virtio-bad-checksum': 5 });
});

t.test('the checksum of a packet within a tunnel may lie behind the UDP header', async (t) => {
  const path = redirecting();
  path.egress(udp(out, 1000, 4789, Buffer.alloc(100)), { checksumStart: 78, checksumOffset: 16 });
  t.same(path.counts(), { redirected: 1 });
});

t.test(
  'a fragment that reaches past the largest packet is not cut to lie over its start',
  async (t) => {
    const path = redirecting();
    const id = 7;
    for (const part of fragments(udp(out, 5, 6, Buffer.alloc(3000)), 1500, { ...out, id })) {
      path.egress(part);
    }
    const before = path.io.socket.sent.length;
    path.egress(ipv4({ ...out, id, offset: 65528 }, 17, Buffer.alloc(1460)));
    t.equal(path.io.socket.sent.length, before);
    path.answer([
      Buffer.concat([
        path.io.socket.sent[0].bytes.subarray(0, 20),
        ipv4({ ...out, id, offset: 65528 }, 17, Buffer.alloc(40)),
      ]),
    ]);
    t.same(path.counts(), { redirected: 3, 'fragment-past-end': 2 });
  },
);

t.test('a path too narrow for IPv4 leaves the MSS of a SYN positive', async (t) => {
  const path = startEngine();
  path.io.socket.mtu = 68;
  path.io.clock.nowMs += 11_000;
  path.loop.breathe();
  const options = Buffer.from([2, 4, 0x05, 0xb4]);
  path.egress(tcp(out, { from: 1, to: 2, flags: TCP.SYN, options }));
  t.equal(path.inner(0).readUInt16BE(42), 28, 'of the 68 bytes that every link carries');
});

t.test(
  'an ICMP error too big for the tunnel is not cut: its parts could not come back',
  async (t) => {
    const path = startEngine();
    path.egress(udp(out, 1, 2, Buffer.alloc(8)));
    const quoted = udp({ source: out.target, target: out.source }, 2, 1, Buffer.alloc(1500));
    path.egress(icmp(out, 3, 3, Buffer.concat([Buffer.alloc(4), quoted])));
    t.equal(path.io.socket.sent.length, 1);
    t.same(path.counts(), { redirected: 1, 'too-big-silent': 1 });
  },
);
