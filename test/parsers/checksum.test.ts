import fc from 'fast-check';
import t from 'tap';
import {
  finishPartial,
  fold,
  pseudoHeaderSum,
  sum,
  transportChecksumOk,
  updateWord,
} from '../../parsers/checksum.ts';
import { clampMss } from '../../parsers/tcp.ts';
import {
  buildIcmp,
  buildIpv4,
  buildTcp,
  buildUdp,
  faultOf,
  hex,
  slowChecksum,
  staleMemory,
} from '../model/packet.ts';

/** Addition in ones' complement has two zeros: 0 and 0xffff mean the same. */
const same = (a: number, b: number) => a % 65535 === b % 65535;

t.test('sum and fold agree with the slow twin at every length and alignment', async () => {
  fc.assert(
    fc.property(
      fc.uint8Array({ maxLength: 200 }),
      fc.nat({ max: 17 }),
      fc.nat({ max: 0x7fffffff }),
      (payload, at, initial) => {
        const { bytes, view } = staleMemory(256);
        bytes.set(payload, at);
        if (fold(sum(bytes, view, at, payload.length, 0)) !== slowChecksum(payload)) return false;
        const before = [24, 16, 8, 0].map((shift) => (initial >>> shift) & 255);
        const total = sum(bytes, view, at, payload.length, initial);
        return fold(total) === slowChecksum(before, payload);
      },
    ),
  );
});

t.test('the largest packet of ones does not overflow', async (t) => {
  const { bytes, view } = staleMemory(65536);
  bytes.fill(0xff);
  for (const length of [65535, 65534, 65520, 65519]) {
    const total = sum(bytes, view, 1, length, 0x7fffffff);
    const words = Math.floor(length / 2) * 65535 + (length % 2) * 0xff00;
    t.equal(total, words + 0x7fffffff, `${length} bytes`);
  }
  t.equal(fold(0xffffffff), 0);
  t.equal(fold(0), 0xffff);
  t.equal(fold(0x1fffe), 0);
});

t.test('RFC 1624 section 4: the example that equation 2 gets wrong', async (t) => {
  t.equal(updateWord(0xdd2f, 0x5555, 0x3285), 0x0000);
});

t.test('updateWord equals a recomputation', async () => {
  fc.assert(
    fc.property(
      fc.uint8Array({ minLength: 20, maxLength: 20 }),
      fc.nat({ max: 9 }),
      fc.nat({ max: 0xffff }),
      (header, index, word) => {
        const before = slowChecksum(header);
        const old = header[index * 2]! * 256 + header[index * 2 + 1]!;
        header.set([word >>> 8, word & 255], index * 2);
        return same(updateWord(before, old, word), slowChecksum(header));
      },
    ),
  );
});

/** The packet with only the folded pseudo-header sum in its checksum field, as virtio has it. */
function partial(whole: Uint8Array, offset: number): Uint8Array {
  const { bytes, view } = staleMemory(whole.length);
  bytes.set(whole);
  const transportLength = whole.length - 20;
  const total = ~fold(pseudoHeaderSum(view, 0, whole[9]!, transportLength)) & 0xffff;
  view.setUint16(20 + offset, total);
  return bytes;
}

t.test('a partial checksum is completed', async () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 99 }), fc.boolean(), (payload, isTcp) => {
      const whole = isTcp ? buildTcp({ sequence: 77 }, payload) : buildUdp({}, payload);
      const { bytes, view } = staleMemory(whole.length + 40);
      bytes.set(partial(whole, isTcp ? 16 : 6), 13);
      finishPartial(bytes, view, 33, isTcp ? 16 : 6, 13 + whole.length);
      return faultOf(bytes.slice(13, 13 + whole.length)) === '';
    }),
  );
});

t.test('a UDP checksum that comes out as 0 is stored as 0xffff', async (t) => {
  // Two payload bytes that bring the sum to 0xffff.
  const zero = buildUdp({}, [0, 0]);
  const missing = zero[26]! * 256 + zero[27]!;
  const whole = buildUdp({}, [missing >>> 8, missing & 255]);
  t.equal(hex(whole.slice(26, 28)), 'ffff', 'the slow twin comes to it too');
  const bytes = partial(whole, 6);
  finishPartial(bytes, new DataView(bytes.buffer), 20, 6, bytes.length);
  t.equal(hex(bytes), hex(whole));
});

t.test('transportChecksumOk takes right packets and no packet with a flipped bit', async (t) => {
  const options = [1, 1, 1, 0];
  const rows: [name: string, bytes: Uint8Array][] = [
    ['TCP', buildTcp({}, [1, 2, 3])],
    ['TCP behind IP options', buildTcp({}, [1, 2, 3], { options })],
    ['UDP', buildUdp({}, [1, 2, 3])],
    ['ICMP', buildIcmp(8, 0, [0, 1, 0, 2, 9])],
  ];
  for (const [name, packet] of rows) {
    const { bytes, view } = staleMemory(packet.length + 8);
    bytes.set(packet, 3);
    t.equal(transportChecksumOk(bytes, view, 3), true, name);
    const transportAt = 3 + (packet[0]! & 15) * 4;
    for (let offset = transportAt; offset < 3 + packet.length; offset++) {
      bytes[offset]! ^= 0x04;
      if (transportChecksumOk(bytes, view, 3)) t.fail(`${name}: byte ${offset} was flipped`);
      bytes[offset]! ^= 0x04;
    }
  }
  const none = buildUdp({}, [1, 2, 3]);
  none.fill(0, 26, 28);
  t.equal(transportChecksumOk(none, new DataView(none.buffer), 0), true, 'UDP without checksum');
  const other = buildIpv4({ protocol: 47 }, [1, 2, 3]);
  t.equal(transportChecksumOk(other, new DataView(other.buffer), 0), true, 'an unknown protocol');
});

t.test('clampMss lowers the option wherever it stands and keeps the checksum right', async (t) => {
  const rows: [name: string, options: number[], expected: number[]][] = [
    ['alone', [2, 4, 5, 0xb4], [2, 4, 5, 0x64]],
    ['at an odd place', [1, 2, 4, 5, 0xb4, 1, 1, 0], [1, 2, 4, 5, 0x64, 1, 1, 0]],
    ['after another', [3, 3, 7, 2, 4, 5, 0xb4, 0], [3, 3, 7, 2, 4, 5, 0x64, 0]],
    ['twice', [2, 4, 5, 0xb4, 2, 4, 9, 9], [2, 4, 5, 0x64, 2, 4, 5, 0x64]],
    ['just equal', [2, 4, 5, 0x64], [2, 4, 5, 0x64]],
    ['smaller', [2, 4, 2, 0x18], [2, 4, 2, 0x18]],
    ['absent', [4, 2, 1, 1], [4, 2, 1, 1]],
    ['no options', [], []],
    ['behind the end of options', [0, 2, 4, 5, 0xb4, 0, 0, 0], [0, 2, 4, 5, 0xb4, 0, 0, 0]],
    ['of a wrong length', [2, 3, 5, 0xb4], [2, 3, 5, 0xb4]],
    ['behind an option of length 0', [9, 0, 2, 4, 5, 0xb4, 0, 0], [9, 0, 2, 4, 5, 0xb4, 0, 0]],
    ['behind one of length 1', [9, 1, 2, 4, 5, 0xb4, 0, 0], [9, 1, 2, 4, 5, 0xb4, 0, 0]],
    ['cut by the header', [1, 1, 2, 4], [1, 1, 2, 4]],
    ['one byte short', [1, 2, 4, 5], [1, 2, 4, 5]],
    ['a kind without length', [1, 1, 1, 2], [1, 1, 1, 2]],
  ];
  for (const [name, options, expected] of rows) {
    const whole = buildTcp({ flags: 0x12, options }, [0xb4, 0xb4]);
    const { bytes, view } = staleMemory(whole.length + 9);
    bytes.set(whole, 5);
    const changed = clampMss(view, 25, 1380, false);
    const result = bytes.slice(5, 5 + whole.length);
    t.equal(changed, hex(Uint8Array.from(options)) !== hex(Uint8Array.from(expected)), name);
    t.equal(hex(result.slice(40, 40 + options.length)), hex(Uint8Array.from(expected)));
    t.equal(faultOf(result), '');
    bytes.set(whole, 5);
    clampMss(view, 25, 1380, true);
    t.equal(hex(bytes.slice(41, 43)), hex(whole.slice(36, 38)), 'a partial sum stays');
  }
  const data = buildTcp({ flags: 0x10, options: [2, 4, 5, 0xb4] }, []);
  t.equal(clampMss(new DataView(data.buffer), 20, 1380, false), false, 'not a SYN');
});

t.test('clampMss on any options: right checksum, nothing changed outside them', async () => {
  const option = fc.uint8Array({ maxLength: 10 }).map((bytes) => [...bytes]);
  const mss = fc.nat({ max: 0xffff }).map((value) => [2, 4, value >>> 8, value & 255]);
  const list = fc.array(fc.oneof(option, mss, fc.constant([1])), { maxLength: 8 });
  fc.assert(
    fc.property(list, fc.integer({ min: 88, max: 0xffff }), (options, limit) => {
      const flat = options.flat().slice(0, 40);
      while (flat.length % 4 !== 0) flat.push(0);
      const whole = buildTcp({ flags: 2, options: flat }, [1, 2, 3]);
      const before = hex(whole.slice(0, 36)) + hex(whole.slice(40 + flat.length));
      clampMss(new DataView(whole.buffer), 20, limit, false);
      const after = hex(whole.slice(0, 36)) + hex(whole.slice(40 + flat.length));
      return before === after && faultOf(whole) === '';
    }),
  );
});
