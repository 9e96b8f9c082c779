import { constants } from 'node:os';
import t from 'tap';
import { socketReason } from '../../linux/udp-errors.ts';
import {
  writeControlHeaders,
  writeControlValues,
  writeSocketAddress,
} from '../../linux/udp-message.ts';
import { decodeSegmentSize } from '../../linux/udp-receive.ts';
import { Reason } from '../../parsers/reason.ts';

/** A control message: cmsg_len (8), cmsg_level (4), cmsg_type (4), an int. */
function control(length: number, level: number, type: number, value: number): DataView {
  const view = new DataView(new ArrayBuffer(24));
  view.setUint32(0, length, true);
  view.setInt32(8, level, true);
  view.setInt32(12, type, true);
  view.setInt32(16, value, true);
  return view;
}

t.test('the size of joined datagrams, or the length when the kernel does not say', async (t) => {
  const gro = control(20, 17, 104, 1000);
  const rows: [name: string, view: DataView, controlLength: number, expected: number][] = [
    ['three datagrams joined', gro, 20, 1000],
    ['padded to 24', gro, 24, 1000],
    ['no control message', gro, 0, 3000],
    ['one byte short', gro, 19, 3000],
    ['a message of one byte short', control(19, 17, 104, 1000), 24, 3000],
    ['another level', control(20, 0, 104, 1000), 24, 3000],
    ['another type', control(20, 17, 103, 1000), 24, 3000],
    ['a size of 0', control(20, 17, 104, 0), 24, 3000],
    ['a negative size', control(20, 17, 104, -1), 24, 3000],
    ['a size above the length', control(20, 17, 104, 3001), 24, 3000],
  ];
  for (const [name, view, controlLength, expected] of rows) {
    t.equal(decodeSegmentSize(view, 0, controlLength, 3000), expected, name);
  }
});

t.test('control messages of a send', async (t) => {
  const bytes = new Uint8Array(48);
  const view = new DataView(bytes.buffer);
  writeControlHeaders(view, 0);
  t.equal(writeControlValues(view, 0, 0, 0), 0, 'none');
  t.equal(writeControlValues(view, 0, 0, 0x28), 24, 'TOS alone');
  t.equal(writeControlValues(view, 0, 1400, 0), 24, 'UDP_SEGMENT alone');
  t.equal(writeControlValues(view, 0, 1400, 0x28), 48, 'both');
  const zeros = (count: number) => new Array<number>(count).fill(0);
  t.same(
    [...bytes],
    [
      ...[18, 0, 0, 0, 0, 0, 0, 0], // cmsg_len: 16 + u16
      ...[17, 0, 0, 0, 103, 0, 0, 0], // SOL_UDP, UDP_SEGMENT
      ...[0x78, 0x05, ...zeros(6)], // 1400, padding
      ...[20, 0, 0, 0, 0, 0, 0, 0], // cmsg_len: 16 + int
      ...[0, 0, 0, 0, 1, 0, 0, 0], // IPPROTO_IP, IP_TOS
      ...[0x28, ...zeros(7)],
    ],
  );
});

t.test('an address as the kernel wants it', async (t) => {
  const bytes = new Uint8Array(16);
  writeSocketAddress(new DataView(bytes.buffer), 0x0a4d0001, 6081);
  t.same([...bytes.subarray(0, 8)], [2, 0, 0x17, 0xc1, 10, 77, 0, 1]);
});

t.test("what the socket's errno means for the datagram", async (t) => {
  const { EAGAIN, ENOBUFS, ENOMEM, ENETUNREACH, EHOSTUNREACH, ENETDOWN, EMSGSIZE, EPERM, EINVAL } =
    constants.errno;
  const rows: [number, Reason][] = [
    [EAGAIN, Reason.SocketFull],
    [ENOBUFS, Reason.SocketFull],
    [ENOMEM, Reason.SocketFull],
    [ENETUNREACH, Reason.SocketUnreachable],
    [EHOSTUNREACH, Reason.SocketUnreachable],
    [ENETDOWN, Reason.SocketUnreachable],
    [112, Reason.SocketUnreachable],
    [constants.errno.EDESTADDRREQ, Reason.SocketUnreachable],
    [EMSGSIZE, Reason.SocketTooBig],
    [EPERM, Reason.SocketRefused],
    [EINVAL, Reason.SocketRefused],
  ];
  for (const [code, reason] of rows) t.equal(socketReason(code), reason, `errno ${code}`);
});
