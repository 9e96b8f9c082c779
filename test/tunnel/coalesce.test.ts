import fc from 'fast-check';
import t from 'tap';
import { Gso } from '../../tunnel/pieces.ts';
import {
  buildIcmp,
  buildTcp,
  buildUdp,
  faultOf,
  hex,
  type Ipv4Fields,
  slowChecksum,
  type TcpFields,
} from '../model/packet.ts';
import { type Arrival, coalesceAll, complete, type Emitted } from '../model/tunnel.ts';

const fin = 1;
const syn = 2;
const rst = 4;
const psh = 8;
const ack = 16;
const urg = 32;
const ece = 64;
const cwr = 128;

const countUp = (length: number, from = 0) =>
  Uint8Array.from({ length }, (_, index) => (from + index) * 7);

/** Segment `index` of a stream in segments of 100 bytes. */
function segment(
  index: number,
  tcp: TcpFields = {},
  ip: Partial<Ipv4Fields> = {},
  length = 100,
): Uint8Array {
  const sequence = (0xffffff80 + index * 100) >>> 0;
  return buildTcp({ sequence, ...tcp }, countUp(length, index * 100), { id: index, ...ip });
}

const datagram = (index: number, length = 100, ip: Partial<Ipv4Fields> = {}) =>
  buildUdp({}, countUp(length, index * 100), { id: index, ...ip });

const counts = (emitted: Emitted[]) => emitted.map(({ count }) => count);
const arrive = (...packets: Uint8Array[]): Arrival[] => packets.map((packet) => ({ packet }));

t.test('a joined TCP packet is the packet that was cut', async (t) => {
  const options = [1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8];
  const packets = [0, 1, 2].map((index) =>
    segment(index, { options, flags: index === 2 ? ack | psh | fin : ack }),
  );
  const [joined, ...rest] = coalesceAll(arrive(...packets));
  t.equal(rest.length, 0);
  const { packet, ...columns } = joined!;
  const expected = { count: 3, gso: Gso.Tcp4, gsoSize: 100, checksumStart: 20, checksumOffset: 16 };
  t.same(columns, { ...expected, queue: 0 });
  const header = { sequence: 0xffffff80, options, flags: ack | psh | fin };
  const whole = buildTcp(header, countUp(300), { id: 0 });
  t.equal(hex(complete(joined!)), hex(whole));
  const pseudo = [...whole.slice(12, 20), 0, 6, 0, whole.length - 20];
  pseudo[10] = (whole.length - 20) >>> 8;
  pseudo[11] = (whole.length - 20) & 255;
  const partial = 65535 - slowChecksum(pseudo);
  t.equal(packet[36]! * 256 + packet[37]!, partial, 'the field holds the pseudo-header sum');
});

t.test('a joined UDP packet, its last datagram shorter', async (t) => {
  const [joined, ...rest] = coalesceAll(arrive(datagram(0), datagram(1), datagram(2, 7)));
  t.equal(rest.length, 0);
  const { packet, ...columns } = joined!;
  const expected = { count: 3, gso: Gso.Udp, gsoSize: 100, checksumStart: 20, checksumOffset: 6 };
  t.same(columns, { ...expected, queue: 0 });
  t.equal(hex(complete(joined!)), hex(buildUdp({}, countUp(207), { id: 0 })));
});

type Row = [name: string, arrivals: Arrival[], expected: number[]];

const rows: Row[] = [
  ['nothing', [], []],
  ['one', arrive(segment(0)), [1]],
  ['three', arrive(segment(0), segment(1), segment(2)), [3]],
  ['a last shorter one closes', arrive(segment(0), segment(1, {}, {}, 99), segment(2)), [2, 1]],
  [
    'after a shorter one a new packet begins',
    arrive(segment(0), segment(1, {}, {}, 99), segment(2), segment(3)),
    [2, 2],
  ],
  ['a longer one is not joined', arrive(segment(0), segment(1, {}, {}, 101)), [1, 1]],
  ['PSH closes', arrive(segment(0), segment(1, { flags: ack | psh }), segment(2)), [2, 1]],
  ['PSH on the first', arrive(segment(0, { flags: ack | psh }), segment(1)), [1, 1]],
  ['FIN closes', arrive(segment(0), segment(1, { flags: ack | fin }), segment(2)), [2, 1]],
  ['a gap', arrive(segment(0), segment(2)), [1, 1]],
  ['a repetition', arrive(segment(0), segment(0)), [1, 1]],
  ['exchanged', arrive(segment(1), segment(0)), [1, 1]],
  ['no payload', arrive(segment(0), segment(1, {}, {}, 0), segment(1)), [1, 1, 1]],
  ['SYN', arrive(segment(0), segment(1, { flags: ack | syn })), [1, 1]],
  ['RST', arrive(segment(0), segment(1, { flags: ack | rst })), [1, 1]],
  ['URG', arrive(segment(0), segment(1, { flags: ack | urg })), [1, 1]],
  ['CWR', arrive(segment(0), segment(1, { flags: ack | cwr })), [1, 1]],
  ['CWR on the first', arrive(segment(0, { flags: ack | cwr }), segment(1)), [1, 1]],
  ['no ACK', arrive(segment(0, { flags: 0 }), segment(1, { flags: 0 })), [1, 1]],
  ['ECE on one', arrive(segment(0), segment(1, { flags: ack | ece })), [1, 1]],
  ['ECE on both', arrive(segment(0, { flags: 0x50 }), segment(1, { flags: 0x50 })), [2]],
  ['another acknowledgment', arrive(segment(0), segment(1, { acknowledgment: 3 })), [1, 1]],
  ['another window', arrive(segment(0), segment(1, { window: 3 })), [1, 1]],
  [
    'other options',
    arrive(segment(0, { options: [1, 1, 1, 1] }), segment(1, { options: [1, 1, 1, 0] })),
    [1, 1],
  ],
  ['options on one', arrive(segment(0), segment(1, { options: [1, 1, 1, 1] })), [1, 1]],
  ['another TOS', arrive(segment(0), segment(1, {}, { tos: 3 })), [1, 1]],
  ['another TTL', arrive(segment(0), segment(1, {}, { ttl: 63 })), [1, 1]],
  ['DF on one', arrive(segment(0), segment(1, {}, { dontFragment: true })), [1, 1]],
  ['identification leaps', arrive(segment(0), segment(1, {}, { id: 9 })), [1, 1]],
  [
    'identification leaps with DF',
    arrive(
      segment(0, {}, { dontFragment: true }),
      segment(1, {}, { dontFragment: true, id: 0x7777 }),
    ),
    [2],
  ],
  ['identification wraps', arrive(segment(0, {}, { id: 0xffff }), segment(1, {}, { id: 0 })), [2]],
  ['IPv4 options', arrive(segment(0), segment(1, {}, { options: [1, 1, 1, 1] })), [1, 1]],
  ['a fragment', arrive(segment(0), segment(1, {}, { more: true })), [1, 1]],
  ['another flow', [{ packet: segment(0) }, { packet: segment(1), flow: 2 }], [1, 1]],
  ['another queue', [{ packet: segment(0) }, { packet: segment(1), queue: 1 }], [1, 1]],
  ['padding behind both', [0, 1].map((i) => ({ packet: segment(i), padding: 6 })), [2]],
  ['TCP then UDP', arrive(segment(0), datagram(0), datagram(1)), [1, 2]],
  ['ICMP between', arrive(segment(0), buildIcmp(8, 0, [0, 1, 0, 2]), segment(1)), [1, 1, 1]],
  ['UDP, second longer', arrive(datagram(0), datagram(1, 101)), [1, 1]],
  ['UDP, shorter closes', arrive(datagram(0), datagram(1, 99), datagram(2, 99)), [2, 1]],
  ['UDP without payload', arrive(datagram(0, 0), datagram(1, 0)), [1, 1]],
  ['UDP without checksum', arrive(unsummed(datagram(0)), unsummed(datagram(1))), [1, 1]],
];

function unsummed(bytes: Uint8Array): Uint8Array {
  bytes.fill(0, 26, 28);
  return bytes;
}

t.test('what joins and what does not', async (t) => {
  for (const [name, arrivals, expected] of rows) {
    const emitted = coalesceAll(arrivals);
    t.same(counts(emitted), expected, name);
    let index = 0;
    for (const one of emitted) {
      const first = arrivals[index]!;
      if (one.count === 1) {
        const { packet, ...columns } = one;
        const text = hex(packet.slice(0, first.packet.length));
        t.equal(text, hex(first.packet), `${name}: untouched`);
        const plain = { count: 1, gso: 0, gsoSize: 0, checksumStart: 0, checksumOffset: 0 };
        t.same(columns, { ...plain, queue: first.queue ?? 0 });
      } else {
        t.equal(faultOf(complete(one)), '', name);
      }
      index += one.count;
    }
  }
});

t.test('UDP is left alone where the device cannot take it', async (t) => {
  const emitted = coalesceAll(arrive(datagram(0), datagram(1)), (coalescer) => {
    coalescer.joinUdp = false;
  });
  t.same(counts(emitted), [1, 1]);
});

t.test('a corrupted packet goes on as it is and is never repaired', async (t) => {
  for (const bad of [0, 1, 2]) {
    for (const offset of [10, 15, 36, 60, 139]) {
      const packets = [0, 1, 2].map((index) => segment(index));
      packets[bad]![offset]! ^= 0x20;
      const emitted = coalesceAll(arrive(...packets));
      const alone = emitted.filter(({ packet }) => hex(packet) === hex(packets[bad]!));
      t.equal(alone.length, 1, `byte ${offset} of packet ${bad}`);
      t.equal(alone[0]!.gso, Gso.None);
      t.same(
        counts(emitted),
        [
          [1, 2],
          [1, 1, 1],
          [2, 1],
        ][bad],
      );
    }
  }
});

t.test('no more than a packet, its pieces and its segments hold', async (t) => {
  const stream = (count: number, length: number) =>
    Array.from({ length: count }, (_, index) => ({
      packet: buildTcp({ sequence: index * length }, countUp(length), { id: index }),
    }));
  t.same(counts(coalesceAll(stream(130, 10))), [128, 2], 'pieces');
  t.same(counts(coalesceAll(stream(47, 1400))), [46, 1], '65535 bytes');
  t.same(counts(coalesceAll(stream(2, 32748))), [1, 1], 'one byte too many: 65536 in all');
  const even = [
    ...stream(1, 32748),
    { packet: buildTcp({ sequence: 32748 }, countUp(32747), { id: 1 }) },
  ];
  t.same(counts(coalesceAll(even)), [2], 'just 65535');
  const small = Array.from({ length: 70 }, (_, index) => ({ packet: datagram(index, 10) }));
  t.same(counts(coalesceAll(small)), [64, 6], 'UDP datagrams');
});

t.test('whatever arrives leaves once, in order, with its bytes', async () => {
  const mutation = fc.constantFrom<Partial<Ipv4Fields & TcpFields>>(
    {},
    {},
    {},
    {},
    { ttl: 9 },
    { flags: ack | psh },
    { window: 1 },
    { options: [1, 1, 1, 0] },
    { dontFragment: true },
  );
  const arrival = fc.record({
    advance: fc.constantFrom(0, 1, 1, 1, 1, 2),
    length: fc.constantFrom(100, 100, 100, 50),
    change: mutation,
    flow: fc.constantFrom(1, 1, 1, 2),
    corrupt: fc.constantFrom(false, false, false, false, true),
  });
  fc.assert(
    fc.property(fc.array(arrival, { maxLength: 12 }), (list) => {
      let index = 0;
      const arrivals = list.map(({ advance, length, change, flow, corrupt }) => {
        index += advance;
        const { options, ...ip } = change;
        const tcp = { ...ip, ...(options ? { options } : {}) };
        const packet = segment(index, tcp, ip, length);
        if (corrupt) packet[packet.length - 1]! ^= 1;
        return { packet, flow };
      });
      const emitted = coalesceAll(arrivals);
      let next = 0;
      for (const one of emitted) {
        const parts = arrivals.slice(next, next + one.count);
        next += one.count;
        if (one.count === 1) {
          if (hex(one.packet) !== hex(parts[0]!.packet)) return false;
          continue;
        }
        if (faultOf(complete(one)) !== '') return false;
        if (parts.some(({ packet }) => faultOf(packet) !== '')) return false;
        if (new Set(parts.map(({ flow }) => flow)).size !== 1) return false;
        const headers = 20 + (parts[0]!.packet[32]! >> 4) * 4;
        const payload = parts.map(({ packet }) => hex(packet.slice(headers))).join('');
        if (hex(one.packet.slice(headers)) !== payload) return false;
      }
      return next === arrivals.length;
    }),
  );
});
