/**
 * The whole data path over fakes: what goes in at a device comes out as datagrams, and back. The
 * datagrams are built and read with the test's own few lines, not with tunnel/.
 */
import t from 'tap';
import { Established } from '../../engine/classifier/lookup.ts';
import { Gso } from '../../engine/io.ts';
import {
  back,
  firewall,
  headerLength,
  out,
  overhead,
  startEngine,
  syn,
  workload,
} from '../support/engine.ts';
import {
  address,
  checksumsRight,
  fragments,
  mssOption,
  TCP,
  tcp,
  udp,
} from '../support/packets.ts';

t.test('a packet goes through the tunnel and comes back as it was', async (t) => {
  const path = startEngine();
  const packet = udp(out, 5000, 53, Buffer.from('question'));
  path.egress(packet);
  t.equal(path.io.socket.sent.length, 1);
  const [datagram] = path.io.socket.sent;
  t.equal(datagram.peer, address(firewall));
  t.same(path.inner(0), packet);
  t.equal(datagram.bytes.readUInt16BE(2), 0x0800, 'inner protocol');
  t.equal(datagram.bytes.readUIntBE(4, 3), 48813, 'VNI');
  t.equal(datagram.bytes[12] & 1, 0, 'direction egress');
  path.answer([datagram.bytes]);
  t.same(path.io.egress.written[0].bytes, packet, 'out at the same side');
  t.equal(path.io.ingress.written.length, 0);

  const reply = udp(back, 53, 5000, Buffer.from('answer'));
  path.ingress(reply);
  t.equal(path.io.socket.sent[1].bytes[12] & 1, 1, 'direction ingress');
  t.equal(path.io.socket.sent[1].entropy, datagram.entropy, 'one flow, one source port');
  path.answer([path.io.socket.sent[1].bytes]);
  t.same(path.io.ingress.written[0].bytes, reply);
  t.same(path.counts(), { redirected: 2, reinjected: 2 });
});

t.test('SYN and SYN-ACK are clamped to the tunnel, with right checksums', async (t) => {
  for (const partial of [false, true]) {
    const path = startEngine();
    const extra = partial ? { checksumStart: 20, checksumOffset: 16 } : {};
    path.egress(
      tcp(out, { from: 1, to: 2, flags: TCP.SYN, options: mssOption(1460), partial }),
      extra,
    );
    path.ingress(
      tcp(back, { from: 2, to: 1, flags: TCP.SYN | TCP.ACK, options: mssOption(8960), partial }),
      extra,
    );
    for (const index of [0, 1]) {
      const inner = path.inner(index);
      t.equal(inner.readUInt16BE(42), 1500 - overhead - 40, 'mss');
      t.ok(checksumsRight(inner));
    }
  }
  const small = startEngine();
  small.egress(syn(mssOption(536)));
  t.equal(small.inner(0).readUInt16BE(42), 536, 'a smaller one stays');
});

t.test('a super-packet becomes datagrams that fit, and its answers one super-packet', async (t) => {
  const path = startEngine();
  path.egress(syn());
  const payload = Buffer.alloc(60_000, 'abcdefghij');
  const whole = tcp(out, { from: 40000, to: 80, seq: 2, payload, partial: true });
  path.egress(whole, { gso: Gso.Tcp4, gsoSize: 1412, checksumStart: 20, checksumOffset: 16 });
  const datagrams = path.io.socket.sent.slice(1);
  t.equal(datagrams.length, Math.ceil(60_000 / 1412));
  let sequence = 2;
  const parts: Buffer[] = [];
  for (const { bytes } of datagrams) {
    const inner = bytes.subarray(headerLength);
    if (inner.length > 1452 || !checksumsRight(inner)) t.fail('a wrong segment');
    if (inner.readUInt32BE(24) !== sequence) t.fail('a wrong sequence number');
    parts.push(inner.subarray(40));
    sequence += inner.length - 40;
  }
  t.same(Buffer.concat(parts), payload);
  path.answer(datagrams.map(({ bytes }) => bytes));
  const joined = path.io.egress.written;
  t.same(Buffer.concat(joined.map(({ bytes }) => bytes.subarray(40))), payload);
  t.ok(joined.length <= 2, `joined into ${joined.length}`);
  t.match(path.counts(), { redirected: 1 + datagrams.length, reinjected: datagrams.length });
});

t.test('a super-packet counts as what it is on the wire', async (t) => {
  const path = startEngine({ established: Established.Redirect });
  // Timestamps, as Linux sends them: 12 bytes of options in each segment.
  const options = Buffer.from('0101080a0000000100000002', 'hex');
  const payload = Buffer.alloc(3 * 1388, 9);
  path.egress(tcp(out, { from: 1, to: 2, payload, options, partial: true }), {
    gso: Gso.Tcp4,
    gsoSize: 1388,
    checksumStart: 20,
    checksumOffset: 16,
  });
  t.equal(path.io.socket.sent.length, 3);
  t.same([path.flows.packets[0], path.flows.bytes[0]], [3, 3 * (1388 + 52)]);
});

t.test('TCP larger than the tunnel is cut, whoever set the segment size', async (t) => {
  const path = startEngine({ established: Established.Redirect });
  const payload = Buffer.alloc(1460, 7);
  path.egress(tcp(out, { from: 1, to: 2, payload }));
  path.egress(tcp(out, { from: 1, to: 2, payload: Buffer.alloc(2920, 8), partial: true }), {
    gso: Gso.Tcp4,
    gsoSize: 1460,
    checksumStart: 20,
    checksumOffset: 16,
  });
  for (const [index] of path.io.socket.sent.entries()) {
    t.ok(path.inner(index).length <= 1452 && checksumsRight(path.inner(index)));
  }
  t.equal(path.io.socket.sent.length, 2 + 3);
});

t.test('too big with DF: the sender is told the MTU, over the other direction', async (t) => {
  const path = startEngine();
  const big = udp({ ...out, df: true }, 1, 2, Buffer.alloc(1460));
  path.egress(big);
  t.equal(path.io.socket.sent.length, 0);
  const [answer] = path.io.ingress.written;
  t.same([answer.bytes[9], answer.bytes[20], answer.bytes[21]], [1, 3, 4]);
  t.equal(answer.bytes.readUInt16BE(26), 1452);
  t.equal(answer.bytes.readInt32BE(16), address(workload), 'to its sender');
  t.ok(checksumsRight(answer.bytes));
  t.same(answer.bytes.subarray(28, 56), big.subarray(0, 28), 'quotes it');
  t.same(path.counts(), { 'too-big': 1 });
});

t.test('too big without DF: fragmented, and the fragments come back', async (t) => {
  const path = startEngine();
  const payload = Buffer.alloc(4000, 'xyz');
  for (const part of fragments(udp(out, 5, 6, payload), 1500, out)) path.egress(part);
  const sent = path.io.socket.sent.map(({ bytes }) => bytes);
  t.ok(sent.length >= 3);
  const whole = Buffer.alloc(4008);
  for (const bytes of sent) {
    const inner = bytes.subarray(headerLength);
    t.ok(inner.length <= 1452);
    whole.set(inner.subarray(20), (inner.readUInt16BE(6) & 0x1fff) * 8);
  }
  t.same(whole.subarray(8), payload);
  for (const bytes of sent) path.answer([bytes]);
  t.equal(path.io.egress.written.length, sent.length);
  t.same(path.counts(), { redirected: 3, reinjected: sent.length });
});

t.test('the outer DSCP is the inner one, without ECN', async (t) => {
  const path = startEngine();
  path.egress(udp({ ...out, tos: 0xb9 }, 1, 2, Buffer.alloc(1)));
  t.equal(path.io.socket.sent[0].tos, 0xb8);
});
