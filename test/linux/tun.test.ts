import { constants } from 'node:os';
import t from 'tap';
import { createPacketBatch, Gso } from '../../engine/io.ts';
import { decodeVirtioHeader, deviceReason, encodeVirtioHeader } from '../../linux/tun.ts';
import { Reason, reasonNames } from '../../parsers/reason.ts';

const at = 64;
/** Bytes of the virtio header: flags, gso_type, hdr_len, gso_size, csum_start, csum_offset. */
type Header = [
  flags: number,
  type: number,
  headers: number,
  size: number,
  start: number,
  offset: number,
];

/** A read of `length` bytes that begins with `header`, into columns that hold stale values. */
function decode(header: Header, length: number) {
  const bytes = new Uint8Array(1024).fill(0xa5);
  const view = new DataView(bytes.buffer);
  const headerAt = at - 10;
  view.setUint8(headerAt, header[0]);
  view.setUint8(headerAt + 1, header[1]);
  for (let i = 2; i < 6; i++) view.setUint16(headerAt + (i - 1) * 2, header[i] as number, true);
  const batch = createPacketBatch(Int32Array.of(at));
  for (const column of [batch.length, batch.gso, batch.gsoSize, batch.reason]) column.fill(77);
  batch.checksumStart.fill(77);
  batch.checksumOffset.fill(77);
  decodeVirtioHeader(view, length, batch, 0);
  return {
    reason: reasonNames[batch.reason[0]],
    length: batch.length[0],
    gso: batch.gso[0],
    gsoSize: batch.gsoSize[0],
    checksumStart: batch.checksumStart[0],
    checksumOffset: batch.checksumOffset[0],
  };
}

const plain = { reason: 'ok', length: 40, gso: 0, gsoSize: 0, checksumStart: 0, checksumOffset: 0 };
const partial = { ...plain, checksumStart: 20, checksumOffset: 16 };

t.test('a virtio header becomes columns, all of them, or a reason', async (t) => {
  const rows: [name: string, header: Header, length: number, expected: Partial<typeof plain>][] = [
    ['a plain packet', [0, 0, 0, 0, 0, 0], 50, plain],
    ['no byte of packet behind the header', [0, 0, 0, 0, 0, 0], 10, { ...plain, length: 0 }],
    [
      'one byte short of the header',
      [0, 0, 0, 0, 0, 0],
      9,
      { reason: 'virtio-too-short', length: 0, gso: 0, gsoSize: 0 },
    ],
    ['an empty read', [0, 0, 0, 0, 0, 0], 0, { reason: 'virtio-too-short', length: 0 }],
    ['a packet of 65,535', [0, 0, 0, 0, 0, 0], 65545, { ...plain, length: 65535 }],
    ['one byte more than IPv4 can have', [0, 0, 0, 0, 0, 0], 65546, { reason: 'virtio-too-short' }],
    ['a checksum to finish', [1, 0, 0, 0, 20, 16], 50, partial],
    [
      'a checksum field that ends the packet',
      [1, 0, 0, 0, 20, 18],
      50,
      {
        ...partial,
        checksumOffset: 18,
      },
    ],
    ['one byte past the end', [1, 0, 0, 0, 20, 19], 50, { reason: 'virtio-bad-checksum' }],
    ['a start in the IPv4 header', [1, 0, 0, 0, 19, 16], 50, { reason: 'virtio-bad-checksum' }],
    [
      'start and offset of 65,535',
      [1, 0, 0, 0, 65535, 65535],
      50,
      {
        reason: 'virtio-bad-checksum',
        checksumStart: 0,
      },
    ],
    ['a start without NEEDS_CSUM is stale', [0, 0, 0, 0, 20, 16], 50, plain],
    ['a verified checksum (DATA_VALID)', [2, 0, 0, 0, 0, 0], 50, plain],
    ['a TCP super-packet', [1, 1, 40, 1448, 20, 16], 50, { ...partial, gso: 1, gsoSize: 1448 }],
    ['with the ECN bit', [1, 0x81, 40, 1448, 20, 16], 50, { ...partial, gso: 1, gsoSize: 1448 }],
    [
      'a UDP super-packet',
      [1, 5, 28, 1000, 20, 6],
      50,
      {
        ...plain,
        gso: 2,
        gsoSize: 1000,
        checksumStart: 20,
        checksumOffset: 6,
      },
    ],
    [
      'whose header length claims more than there is',
      [1, 1, 9999, 1448, 20, 16],
      50,
      {
        ...partial,
        gso: 1,
        gsoSize: 1448,
      },
    ],
    [
      'a super-packet of segments of 0',
      [1, 1, 40, 0, 20, 16],
      50,
      {
        reason: 'virtio-bad-gso',
        gso: 0,
      },
    ],
    ['TCP over IPv6', [1, 4, 60, 1448, 40, 16], 80, { reason: 'virtio-bad-gso', gso: 0 }],
    ['UDP fragmentation', [1, 3, 28, 1448, 20, 6], 50, { reason: 'virtio-bad-gso' }],
    ['an unknown type', [0, 2, 0, 1448, 0, 0], 50, { reason: 'virtio-bad-gso' }],
    ['the ECN bit alone', [0, 0x80, 0, 0, 0, 0], 50, plain],
  ];
  for (const [name, header, length, expected] of rows) {
    t.match(decode(header, length), expected, name);
  }
});

t.test('every byte of a virtio header is written', async (t) => {
  const written = (...values: [Gso, number, number, number]) => {
    const bytes = new Uint8Array(10).fill(0xa5);
    encodeVirtioHeader(new DataView(bytes.buffer), ...values);
    return [...bytes];
  };
  t.same(written(Gso.None, 0, 0, 0), [0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
  t.same(written(Gso.None, 0, 20, 16), [1, 0, 0, 0, 0, 0, 20, 0, 16, 0]);
  t.same(written(Gso.Tcp4, 1448, 24, 16), [1, 1, 0, 0, 0xa8, 5, 24, 0, 16, 0]);
  t.same(written(Gso.Udp, 1000, 20, 6), [1, 5, 0, 0, 0xe8, 3, 20, 0, 6, 0]);
});

t.test("what the device's errno means for the packet", async (t) => {
  const { EAGAIN, ENOBUFS, ENOMEM, EIO, ENETDOWN, EINVAL, EFAULT } = constants.errno;
  const rows: [number, Reason][] = [
    [EAGAIN, Reason.DeviceFull],
    [ENOBUFS, Reason.DeviceFull],
    [ENOMEM, Reason.DeviceFull],
    [EIO, Reason.DeviceDown],
    [ENETDOWN, Reason.DeviceDown],
    [77, Reason.DeviceDown],
    [EINVAL, Reason.DeviceRefused],
    [EFAULT, Reason.DeviceRefused],
  ];
  for (const [code, reason] of rows) t.equal(deviceReason(code), reason, `errno ${code}`);
});
