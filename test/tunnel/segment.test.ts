import fc from 'fast-check';
import t from 'tap';
import { createGeneve } from '../../tunnel/geneve.ts';
import { createPieces, Direction, Gso } from '../../tunnel/pieces.ts';
import { createCursor, wrapPacket } from '../../tunnel/segment.ts';
import { createVxlan } from '../../tunnel/vxlan.ts';
import {
  buildIpv4,
  buildTcp,
  buildUdp,
  faultOf,
  hex,
  slowChecksum,
  staleMemory,
} from '../model/packet.ts';
import { coalesceAll, complete, fragmentAll, gather, segmentAll } from '../model/tunnel.ts';

const geneve = createGeneve({
  vni: 48813,
  port: 6081,
  optionClass: 0xfff1,
  optionType: 0x20,
  inner: 'ipv4',
});
const vxlan = createVxlan({ port: 4789, egressVni: 800, ingressVni: 801 });
const tunnels = [geneve, vxlan];
const countUp = (length: number) => Uint8Array.from({ length }, (_, index) => index * 7);

const fin = 1;
const psh = 8;
const ack = 16;
const cwr = 128;

t.test('an ordinary packet is put behind a tunnel header as it is', async (t) => {
  for (const tunnel of tunnels) {
    const whole = buildTcp({}, [1, 2, 3]);
    const { bytes, view } = staleMemory(400);
    bytes.set(whole, 5);
    const cursor = createCursor(tunnel);
    Object.assign(cursor, { at: 5, length: whole.length, scratchAt: 200, direction: 1, cookie: 9 });
    const pieces = createPieces();
    wrapPacket(view, cursor, pieces);
    const expected = staleMemory(tunnel.headerLength);
    tunnel.write(expected.view, 0, Direction.Ingress, 9);
    t.equal(pieces.count, 2);
    t.equal(hex(gather(bytes, pieces)), hex(expected.bytes) + hex(whole));
    t.equal(cursor.scratchAt, 200 + tunnel.headerLength);
    t.equal(cursor.datagramSize, 0);
  }
});

t.test('a TCP super-packet is cut as the kernel cuts it', async (t) => {
  const options = [1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8];
  const tcp = { sequence: 0xfffffff0, flags: ack | psh | fin | cwr, options };
  const payload = countUp(250);
  const whole = buildTcp(tcp, payload, { id: 0xffff, tos: 0x0a });
  whole.fill(0, 36, 38);
  const sends = segmentAll(whole, Gso.Tcp4, 100, geneve, Direction.Egress);
  t.equal(sends.length, 1);
  const { datagrams, datagramSize } = sends[0]!;
  t.equal(datagramSize, 20 + 52 + 100);
  const rows = [
    { sequence: 0xfffffff0, flags: ack | cwr, id: 0xffff, from: 0, to: 100 },
    { sequence: 0x54, flags: ack, id: 0, from: 100, to: 200 },
    { sequence: 0xb8, flags: ack | psh | fin, id: 1, from: 200, to: 250 },
  ];
  t.equal(datagrams.length, rows.length);
  for (const [index, { sequence, flags, id, from, to }] of rows.entries()) {
    const header = { sequence, flags, options };
    const expected = buildTcp(header, payload.slice(from, to), { id, tos: 0x0a });
    t.equal(hex(datagrams[index]!.slice(20)), hex(expected), `segment ${index}`);
    t.equal(hex(datagrams[index]!.slice(0, 20)), '0300080000bead00fff120020001000000000007');
  }
});

t.test('a UDP super-packet: a length and a checksum for each', async (t) => {
  const payload = countUp(250);
  const whole = buildUdp({}, payload, { id: 7, dontFragment: true });
  const [send] = segmentAll(whole, Gso.Udp, 100, vxlan, Direction.Ingress);
  const expected = [0, 100, 200].map((from, index) =>
    buildUdp({}, payload.slice(from, from + 100), { id: 7 + index, dontFragment: true }),
  );
  t.same(
    send!.datagrams.map((datagram) => hex(datagram.slice(22))),
    expected.map(hex),
  );
});

t.test('a UDP checksum that comes out as 0 is sent as 0xffff', async (t) => {
  const payload = Array.from({ length: 65536 }, (_, value) => value).find(
    (value) => hex(buildUdp({}, [value >>> 8, value & 255]).slice(26, 28)) === 'ffff',
  )!;
  const whole = buildUdp({}, [payload >>> 8, payload & 255, 1]);
  const [send] = segmentAll(whole, Gso.Udp, 2, geneve, Direction.Egress);
  t.equal(hex(send!.datagrams[0]!.slice(20 + 26, 20 + 28)), 'ffff');
});

t.test('a send has at most 64 segments and 65507 bytes', async (t) => {
  const rows: [length: number, perSegment: number, expected: number[], sizes: number[]][] = [
    [64, 1, [64], [61]],
    [65, 1, [64, 1], [61, 0]],
    [6400, 100, [64], [160]],
    [6401, 100, [64, 1], [160, 0]],
    [200, 100, [2], [160]],
    [100, 100, [1], [0]],
    [1, 100, [1], [0]],
    [65000, 1400, [44, 3], [1460, 1460]],
    [65495, 32000, [2, 1], [32060, 0]],
    [65495, 65000, [1, 1], [0, 0]],
  ];
  for (const [length, perSegment, expected, sizes] of rows) {
    const whole = buildTcp({}, new Uint8Array(length));
    const sends = segmentAll(whole, Gso.Tcp4, perSegment, geneve, Direction.Egress);
    const name = `${length} by ${perSegment}`;
    t.same(
      sends.map(({ datagrams }) => datagrams.length),
      expected,
      name,
    );
    t.same(
      sends.map(({ datagramSize }) => datagramSize),
      sizes,
      name,
    );
  }
  t.same(segmentAll(buildTcp({}, [1]), Gso.Tcp4, 0, geneve, 0), [], 'nothing fits in 0 bytes');
  t.same(segmentAll(buildTcp({}, []), Gso.Tcp4, 9, geneve, 0), [], 'no payload, no segment');
});

const tcpOptions = fc.uint8Array({ maxLength: 10 }).map((bytes) => {
  const padded = [...bytes];
  while (padded.length % 4 !== 0) padded.push(1);
  return padded;
});
const superPacket = fc.record({
  length: fc.integer({ min: 1, max: 4000 }),
  perSegment: fc.integer({ min: 40, max: 1400 }),
  isTcp: fc.boolean(),
  sequence: fc.nat({ max: 0xffffffff }),
  flags: fc.constantFrom(ack, ack | psh, ack | fin, ack | psh | fin, ack | 64),
  options: tcpOptions,
  id: fc.nat({ max: 0xffff }),
  tos: fc.nat({ max: 255 }),
  ttl: fc.integer({ min: 1, max: 255 }),
  dontFragment: fc.boolean(),
  tunnel: fc.constantFrom(...tunnels),
  direction: fc.constantFrom(Direction.Egress, Direction.Ingress),
});

t.test('cut and joined again, a super-packet is what it was', async () => {
  fc.assert(
    fc.property(superPacket, (given) => {
      const { isTcp, perSegment, tunnel, options, ...ip } = given;
      const payload = countUp(given.length);
      const whole = isTcp ? buildTcp({ ...ip, options }, payload, ip) : buildUdp({}, payload, ip);
      const gso = isTcp ? Gso.Tcp4 : Gso.Udp;
      const sends = segmentAll(whole, gso, perSegment, tunnel, given.direction);
      const datagrams = sends.flatMap((send) => send.datagrams);
      const packets = datagrams.map((datagram) => datagram.slice(tunnel.headerLength));
      if (packets.some((packet) => faultOf(packet) !== '')) return false;
      // A UDP super-packet has at most 64 datagrams, a joined one 128 pieces.
      if (packets.length > 64) return true;
      const emitted = coalesceAll(packets.map((packet) => ({ packet })));
      if (emitted.length !== 1) return false;
      const [first] = emitted;
      if (first!.count !== packets.length) return false;
      if (packets.length > 1 && (first!.gso !== gso || first!.gsoSize !== perSegment)) return false;
      return hex(complete(first!)) === hex(whole);
    }),
  );
});

/** The payload that fragments make, whatever their order; throws when they are not all there. */
function reassemble(fragments: Uint8Array[]): Uint8Array {
  const payload: number[] = [];
  let last = -1;
  for (const fragment of fragments) {
    const headerLength = (fragment[0]! & 15) * 4;
    const word = fragment[6]! * 256 + fragment[7]!;
    const offset = (word & 0x1fff) * 8;
    if (slowChecksum(fragment.slice(0, headerLength)) !== 0) throw new Error('checksum');
    if (fragment[2]! * 256 + fragment[3]! !== fragment.length) throw new Error('length');
    const data = fragment.slice(headerLength);
    if ((word & 0x2000) === 0) last = offset + data.length;
    for (const [index, byte] of data.entries()) payload[offset + index] = byte;
  }
  if (last !== payload.length) throw new Error('the end is missing');
  return Uint8Array.from(payload);
}

t.test('fragments at the limits', async (t) => {
  const rows: [payload: number, mtu: number, expected: [offset: number, length: number][]][] = [
    [80, 100, [[0, 80]]],
    [
      81,
      100,
      [
        [0, 80],
        [80, 1],
      ],
    ],
    [
      80,
      99,
      [
        [0, 72],
        [72, 8],
      ],
    ],
    [
      24,
      28,
      [
        [0, 8],
        [8, 8],
        [16, 8],
      ],
    ],
    [80, 27, []],
  ];
  for (const [payload, mtu, expected] of rows) {
    const fragments = fragmentAll(buildIpv4({ protocol: 17 }, countUp(payload)), mtu, geneve);
    const seen = fragments.map((fragment) => [
      ((fragment[6]! & 0x1f) * 256 + fragment[7]!) * 8,
      fragment.length - 20,
    ]);
    t.same(seen, expected, `${payload} bytes at ${mtu}`);
    const more = fragments.map((fragment) => (fragment[6]! & 0x20) !== 0);
    t.same(
      more,
      expected.map((_, index) => index < expected.length - 1),
    );
  }
});

t.test('a fragment of a fragment keeps its place and its MF', async (t) => {
  const middle = buildIpv4({ protocol: 17, offset: 800, more: true }, countUp(160));
  const fragments = fragmentAll(middle, 100, vxlan);
  t.same(
    fragments.map((fragment) => hex(fragment.slice(6, 8))),
    ['2064', '206e'],
  );
});

t.test('options without the copied bit stay in the first fragment', async (t) => {
  // Record route (7, not copied), no-operation, loose source route (0x83, copied), end.
  const options = [7, 3, 4, 1, 0x83, 3, 4, 0];
  const whole = buildIpv4({ protocol: 17, options }, countUp(100));
  const fragments = fragmentAll(whole, 76, geneve);
  t.same(
    fragments.map((fragment) => hex(fragment.slice(20, 28))),
    ['0703040183030400', '0101010183030400', '0101010183030400'],
  );
  for (const bad of [
    [7, 0, 4, 1],
    [7, 9, 4, 1],
    [1, 1, 1, 7],
    [7, 1, 1, 1],
  ]) {
    const odd = buildIpv4({ protocol: 17, options: bad }, countUp(100));
    const last = fragmentAll(odd, 76, geneve).at(-1)!;
    t.equal(hex(last.slice(20, 24)), hex(Uint8Array.from(bad)), 'nonsense stays as it is');
  }
});

t.test('fragments put together are the packet', async () => {
  const given = fc.record({
    length: fc.integer({ min: 1, max: 3000 }),
    mtu: fc.integer({ min: 68, max: 1500 }),
    tunnel: fc.constantFrom(...tunnels),
    id: fc.nat({ max: 0xffff }),
  });
  fc.assert(
    fc.property(given, ({ length, mtu, tunnel, id }) => {
      const whole = buildUdp({}, countUp(length), { id });
      const fragments = fragmentAll(whole, mtu, tunnel);
      if (fragments.some((fragment) => fragment.length > mtu)) return false;
      if (fragments.some((fragment) => fragment[4]! * 256 + fragment[5]! !== id)) return false;
      return hex(reassemble(fragments.reverse())) === hex(whole.slice(20));
    }),
  );
});
