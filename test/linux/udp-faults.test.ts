/** What the sender does when the kernel refuses: faults that no kernel here makes on demand. */
import { constants } from 'node:os';
import t from 'tap';
import { createArena } from '../../engine/arena.ts';
import * as net from '../../linux/abi/net.ts';
import { viewAt } from '../../linux/syscall.ts';
import { DatagramSender, type SendCalls } from '../../linux/udp-send.ts';
import { Reason } from '../../parsers/reason.ts';
import { addPiece, createPieces } from '../../tunnel/pieces.ts';

const { EAGAIN, ECONNREFUSED, EIO, EINVAL, EMSGSIZE, ENETDOWN, ENOBUFS } = constants.errno;
const peer = 0x0a09_0004;
const arena = createArena(4, 4);

/** A sender whose kernel answers each sendmmsg by `answers`: how many it took, or -errno. */
function start(answers: number[]) {
  const singles: { length: number; controlLength: number }[] = [];
  let calls = 0;
  let code = 0;
  const kernel: SendCalls = {
    errno: () => code,
    sendmmsg(_fd, _messages, count) {
      calls++;
      const answer = answers.shift() ?? count;
      if (answer >= 0) return Math.min(answer, count);
      code = -answer;
      return -1;
    },
    sendmsg(_fd, address) {
      const view = new DataView(viewAt(address, net.msghdr.size));
      const parts = view.getUint32(net.msghdr.msg_iovlen, true);
      const at = Number(view.getBigUint64(net.msghdr.msg_iov, true));
      const vectors = new DataView(viewAt(at, parts * net.iovec.size));
      let length = 0;
      for (let part = 0; part < parts; part++) {
        length += vectors.getUint32(part * net.iovec.size + net.iovec.iov_len, true);
      }
      singles.push({ length, controlLength: view.getUint32(net.msghdr.msg_controllen, true) });
      return length;
    },
  };
  const peers = [{ address: peer, port: 6081, senders: [77] }];
  const sender = new DatagramSender(peers, arena, 8, true, kernel);
  return {
    sender,
    singles,
    calls: () => calls,
    /** Queue sends of these sizes (0: one datagram, longer than the last) and flush. */
    send(...segmentSizes: number[]): Reason[] {
      for (const [index, size] of segmentSizes.entries()) {
        const pieces = createPieces();
        addPiece(pieces, arena.scratchAt, size === 0 ? 1000 + index : 1000);
        sender.queue(pieces, size, peer, 1, 0);
      }
      sender.flush();
      return [...sender.results.subarray(0, segmentSizes.length)] as Reason[];
    },
    /** Queue datagrams of these lengths and flush. */
    sendRow(...lengths: number[]): Reason[] {
      for (const length of lengths) {
        const pieces = createPieces();
        addPiece(pieces, arena.scratchAt, length);
        sender.queue(pieces, 0, peer, 1, 0);
      }
      sender.flush();
      return [...sender.results.subarray(0, lengths.length)] as Reason[];
    },
  };
}

t.test('EIO on a super-datagram: cut here from then on, and nothing is lost', async (t) => {
  const rig = start([1, -EIO]);
  t.same(rig.send(0, 400, 400, 0), [Reason.Ok, Reason.Ok, Reason.Ok, Reason.Ok]);
  t.equal(rig.sender.segmentation, false, 'for good');
  const lengths = rig.singles.map(({ length }) => length);
  t.same(lengths, [400, 400, 200, 400, 400, 200], 'as the kernel would have cut them');
  t.ok(
    rig.singles.every(({ controlLength }) => controlLength === 0),
    'without UDP_SEGMENT',
  );
  t.same(rig.send(500), [Reason.Ok]);
  t.equal(rig.singles.length, 8, 'the kernel is not asked again');
});

t.test('EIO on a single datagram is its own fate', async (t) => {
  const rig = start([-EIO]);
  t.same(rig.send(0, 0), [Reason.SocketRefused, Reason.Ok]);
  t.equal(rig.sender.segmentation, true);
});

t.test('datagrams that were joined and cannot go so go one by one', async (t) => {
  const { Ok, SocketFull } = Reason;
  const rows: [name: string, answers: number[]][] = [
    ['too big for the path', [-EMSGSIZE, -EMSGSIZE]],
    ['too big, before Linux 6.12', [-EINVAL]],
    ['a device that cannot cut', [-EIO]],
  ];
  for (const [name, answers] of rows) {
    const rig = start(answers);
    t.same(rig.sendRow(900, 900, 300), [Ok, Ok, Ok], name);
    t.same(
      rig.singles.map(({ length }) => length),
      [900, 900, 300],
    );
  }
  const full = start([-EAGAIN]);
  t.same(full.sendRow(900, 900, 300), [SocketFull, SocketFull, SocketFull], 'a fate for all');
});

t.test('EAGAIN: the socket is full for all that follow, and nobody tries for ever', async (t) => {
  const rig = start([1, -EAGAIN]);
  const full = Reason.SocketFull;
  t.same(rig.send(0, 0, 400, 0), [Reason.Ok, full, full, full]);
  t.equal(rig.calls(), 2);
  t.same(rig.send(0), [Reason.Ok], 'the next batch is tried');
});

t.test('ENOBUFS: the queue of the device was full for this one', async (t) => {
  const rig = start([-ENOBUFS]);
  t.same(rig.send(400, 0), [Reason.SocketFull, Reason.Ok]);
});

t.test('ENETDOWN is a reason', async (t) => {
  const rig = start([-ENETDOWN, -ENETDOWN]);
  t.same(rig.send(0, 0), [Reason.SocketUnreachable, Reason.SocketUnreachable]);
});

t.test('an error that an earlier datagram left is not blamed on this one', async (t) => {
  const rig = start([-ECONNREFUSED]);
  t.same(rig.send(0), [Reason.Ok]);
  const twice = start([-ECONNREFUSED, -ECONNREFUSED]);
  t.same(twice.send(0, 0), [Reason.SocketRefused, Reason.Ok]);
});
