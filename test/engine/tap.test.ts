/** What a capture would get: records whole and in order, lost ones counted, nothing when off. */
import t from 'tap';
import { createArena } from '../../engine/arena.ts';
import {
  noTapRule,
  Tap,
  TapPoint,
  TapReader,
  TapWay,
  TapWord,
  tapHeaderBytes,
  tapRecordHeader,
} from '../../engine/tap.ts';
import { Reason } from '../../parsers/reason.ts';
import { addPiece, createPieces } from '../../tunnel/pieces.ts';

const all = (1 << TapPoint.Before) | (1 << TapPoint.Tunnel) | (1 << TapPoint.After);
const arena = createArena(1, 1);
const at = arena.deviceSlots[0]!;
for (let i = 0; i < 2000; i++) arena.bytes[at + i] = i & 0xff;

function arrange(ringBytes: number) {
  const memory = new SharedArrayBuffer(tapHeaderBytes + ringBytes);
  return { tap: new Tap(memory, arena), reader: new TapReader(memory) };
}

function put(tap: Tap, length: number, reason: Reason = Reason.PassedByRule) {
  tap.packet(TapPoint.Before, at, length, 1, 3, reason, 7, 2, 0);
}

type Record = { word(name: keyof typeof TapWord): number; bytes: number[]; timeMs: number };

function take(reader: TapReader): Record[] {
  const records: Record[] = [];
  for (let taken = reader.take(); taken.length > 0; taken = reader.take()) {
    const words = new Int32Array(taken.buffer);
    for (let from = 0; from < taken.length; from += words[(from >> 2) + TapWord.size]!) {
      const base = from >> 2;
      if (words[base + TapWord.point] === TapPoint.None) continue;
      const data = from + tapRecordHeader;
      records.push({
        word: (name) => words[base + TapWord[name]]!,
        bytes: [...taken.subarray(data, data + words[base + TapWord.captured]!)],
        timeMs: new Float64Array(taken.buffer)[from >> 3]!,
      });
    }
  }
  return records;
}

t.test('off, nothing is written; on, what a breath wrote is there at its end', async (t) => {
  const { reader, tap } = arrange(4096);
  tap.look();
  t.notOk(tap.isOn(TapPoint.Before));
  reader.begin(100, 1 << TapPoint.Before);
  t.notOk(tap.isOn(TapPoint.Before), 'from the next breath on');
  tap.look();
  t.ok(tap.isOn(TapPoint.Before));
  t.notOk(tap.isOn(TapPoint.After));
  put(tap, 300);
  t.same(take(reader), [], 'not before the end of the breath');
  tap.amend(Reason.TooBig);
  tap.publish();
  const [record] = take(reader);
  t.same(
    ['original', 'captured', 'point', 'direction', 'reason', 'rule', 'generation', 'link'].map(
      (name) => record!.word(name as keyof typeof TapWord),
    ),
    [300, 100, TapPoint.Before, 1, Reason.TooBig, 7, 2, 3],
  );
  t.same(
    record!.bytes,
    Array.from({ length: 100 }, (_, i) => i),
  );
  t.ok(Math.abs(record!.timeMs - Date.now()) < 5_000);
  reader.end();
  tap.look();
  t.notOk(tap.isOn(TapPoint.Before));
});

t.test('a full ring loses and counts; it goes round for ever', async (t) => {
  const { reader, tap } = arrange(1024);
  reader.begin(1000, all);
  tap.look();
  for (let i = 0; i < 20; i++) put(tap, 100);
  tap.amend(Reason.TooBig);
  tap.publish();
  const kept = take(reader);
  t.equal(kept.length, 5, '192 bytes each');
  t.ok(
    kept.every((record) => record.word('reason') === Reason.PassedByRule),
    'the lost is not amended',
  );
  t.equal(reader.lost, 15);
  let seen = 0;
  for (let i = 0; i < 5000; i++) {
    const length = (i * 37) % 400;
    put(tap, length);
    tap.publish();
    for (const record of take(reader)) {
      seen++;
      if (record.bytes.length !== length || record.bytes.some((byte, k) => byte !== (k & 0xff))) {
        t.fail(`record ${i}`);
      }
    }
  }
  t.equal(seen, 5000);
  put(tap, 2000);
  tap.publish();
  t.equal(reader.lost, 16, 'larger than the ring');
  reader.begin(64, all);
  t.equal(reader.lost, 0);
});

t.test('a send is as many records as datagrams, and its failure amends them all', async (t) => {
  const { reader, tap } = arrange(8192);
  reader.begin(2000, all);
  tap.look();
  const pieces = createPieces();
  addPiece(pieces, at, 10);
  addPiece(pieces, at + 100, 90);
  addPiece(pieces, at, 10);
  addPiece(pieces, at + 190, 40);
  put(tap, 20);
  const from = tap.mark();
  tap.sent(pieces, 100, 10, 0, Reason.Redirected, 0x0a090004, 1, 1, 0);
  const to = tap.mark();
  put(tap, 20);
  tap.amendBetween(from, to, Reason.SocketTooBig);
  tap.publish();
  const records = take(reader);
  t.same(
    records.map((record) => [record.word('original'), record.word('reason')]),
    [
      [20, Reason.PassedByRule],
      [100, Reason.SocketTooBig],
      [50, Reason.SocketTooBig],
      [20, Reason.PassedByRule],
    ],
  );
  t.same(records[1]!.bytes.slice(8, 12), [8, 9, 100, 101]);
  t.same(records[2]!.bytes.slice(8, 12), [8, 9, 190, 191]);
  t.equal(records[1]!.word('innerAt'), 10);
  t.equal(records[1]!.word('peer'), 0x0a090004);
  t.equal(records[1]!.word('way'), TapWay.ToFirewall);
});

t.test('a datagram that came, before and after its flow is known', async (t) => {
  const { reader, tap } = arrange(8192);
  reader.begin(2000, all);
  tap.look();
  tap.received(at, 80, 0x0a090004);
  tap.amend(Reason.TunnelCookieWrong);
  tap.received(at, 90, 0x0a090004);
  tap.amendFlow(1, 4, 2, 0, 16);
  tap.publish();
  const [refused, good] = take(reader);
  t.equal(refused!.word('reason'), Reason.TunnelCookieWrong);
  t.equal(refused!.word('rule'), noTapRule);
  t.equal(good!.word('reason'), Reason.Reinjected);
  t.equal(good!.word('rule'), 4);
  t.equal(good!.word('direction'), 1);
  t.equal(good!.word('innerAt'), 16);
  t.equal(good!.word('way'), TapWay.FromFirewall);
});
