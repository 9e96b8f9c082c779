/** What every TunnelSocket must do, the kernel's and the one in memory alike. */
import type { Test } from 'tap';
import type { Arena } from '../../engine/arena.ts';
import { createDatagramBatch, type TunnelSocket } from '../../engine/io.ts';
import { Reason } from '../../parsers/reason.ts';
import { addPiece, createPieces } from '../../tunnel/pieces.ts';

export type SocketRig = {
  readonly socket: TunnelSocket;
  readonly arena: Arena;
  /** Address of the firewall, int32. */
  readonly peer: number;
  /** A datagram from the firewall arrives. */
  arrive(payload: Uint8Array): Promise<void>;
  /** The next `count` datagrams that arrive at the firewall; `port` tells senders apart. */
  sent(count: number): Promise<{ payload: Uint8Array; port: number }[]>;
  close(): void;
};

function pattern(length: number, seed: number): Uint8Array {
  return new Uint8Array(length).map((_, index) => (index * 13 + seed) & 255);
}

export async function tunnelSocketContract(t: Test, rig: SocketRig): Promise<void> {
  t.teardown(() => rig.close());
  await receiveContract(t, rig);
  await sendContract(t, rig);
  await segmentContract(t, rig);
  await rowContract(t, rig);
  await limitContract(t, rig);
}

async function receiveContract(t: Test, { socket, arena, peer, arrive }: SocketRig): Promise<void> {
  const batch = createDatagramBatch(arena.datagramSlots);
  t.equal(socket.receive(batch), 0, 'nothing has arrived');
  t.equal(batch.count, 0);
  for (const column of [batch.length, batch.segmentSize, batch.source]) column.fill(77);
  const payloads = Array.from({ length: batch.capacity + 1 }, (_, index) =>
    pattern(1 + index * 211, index),
  );
  for (const payload of payloads) await arrive(payload);
  t.equal(socket.receive(batch), batch.capacity, 'a batch takes what it has room for');
  for (let index = 0; index < batch.capacity; index++) {
    const at = batch.at[index];
    const bytes = arena.bytes.slice(at, at + batch.length[index]);
    t.equal(Buffer.compare(bytes, payloads[index]), 0, `datagram ${index} is whole and in order`);
    t.equal(batch.segmentSize[index], payloads[index].length, 'and alone');
    t.equal(batch.source[index], peer, 'and names its sender');
    t.equal(batch.reason[index], Reason.Ok);
  }
  t.equal(socket.receive(batch), 1, 'and leaves the rest for the next');
  t.equal(batch.length[0], payloads[batch.capacity].length);
  t.equal(socket.receive(batch), 0, 'then nothing is left');
}

async function sendContract(t: Test, rig: SocketRig): Promise<void> {
  const { socket, arena, peer } = rig;
  const pieces = createPieces();
  t.equal(socket.flush(), 0, 'nothing was queued');
  const payloads = [1, 2, 3, 4].map((seed) => pattern(100 + seed, seed));
  for (const [index, payload] of payloads.entries()) {
    const at = arena.scratchAt + index * 1000;
    arena.bytes.set(payload.subarray(0, 9), at + 500);
    arena.bytes.set(payload.subarray(9), at);
    pieces.count = 0;
    addPiece(pieces, at + 500, 9);
    addPiece(pieces, at, payload.length - 9);
    // Three sends of one flow and, between them, one of another.
    t.ok(socket.queue(pieces, 0, peer, index === 1 ? 6 : 5, 0), 'there is room');
  }
  pieces.count = 0;
  t.equal(socket.flush(), 4, 'all are flushed');
  t.same([...socket.results.subarray(0, 4)], [0, 0, 0, 0], 'and taken');
  const sent = await rig.sent(4);
  const other = sent.find(({ payload }) => payload.length === payloads[1].length);
  const flow = sent.filter((datagram) => datagram !== other);
  t.equal(Buffer.compare(other?.payload ?? new Uint8Array(0), payloads[1]), 0, 'the other flow');
  for (const [index, source] of [0, 2, 3].entries()) {
    t.equal(Buffer.compare(flow[index].payload, payloads[source]), 0, 'a flow keeps its order');
    t.equal(flow[index].port, flow[0].port, 'and its port');
  }
  t.not(other?.port, flow[0].port, 'another entropy, another port');
}

async function segmentContract(t: Test, { socket, arena, peer, sent }: SocketRig): Promise<void> {
  const pieces = createPieces();
  const payload = pattern(2500, 9);
  arena.bytes.set(payload, arena.scratchAt);
  // Pieces that do not end where segments do.
  addPiece(pieces, arena.scratchAt, 700);
  addPiece(pieces, arena.scratchAt + 700, 1500);
  addPiece(pieces, arena.scratchAt + 2200, 300);
  t.ok(socket.queue(pieces, 1000, peer, 5, 0));
  t.equal(socket.flush(), 1, 'a super-datagram is one send');
  t.equal(socket.results[0], Reason.Ok);
  const datagrams = await sent(3);
  t.same(
    datagrams.map((datagram) => datagram.payload.length),
    [1000, 1000, 500],
    'of equal datagrams but the last',
  );
  const joined = Buffer.concat(datagrams.map((datagram) => datagram.payload));
  t.equal(Buffer.compare(joined, payload), 0, 'that are the pieces as they follow each other');
}

/** Datagrams of one size in a row may go as one send, which nobody can tell from many. */
async function rowContract(t: Test, { socket, arena, peer, sent }: SocketRig): Promise<void> {
  const pieces = createPieces();
  // As many as the smallest queue takes: a row that a shorter one ends, and one alone.
  const payloads = [200, 200, 120, 200].map((length, seed) => pattern(length, seed));
  for (const [index, payload] of payloads.entries()) {
    const at = arena.scratchAt + index * 1000;
    arena.bytes.set(payload, at);
    pieces.count = 0;
    addPiece(pieces, at, 8);
    addPiece(pieces, at + 8, payload.length - 8);
    t.ok(socket.queue(pieces, 0, peer, 5, 0), 'there is room');
  }
  t.equal(socket.flush(), 4, 'each counts');
  t.same([...socket.results.subarray(0, 4)], [0, 0, 0, 0], 'and has a fate');
  const datagrams = await sent(4);
  for (const [index, payload] of payloads.entries()) {
    t.equal(Buffer.compare(datagrams[index].payload, payload), 0, `number ${index} is itself`);
  }
}

async function limitContract(t: Test, { socket, arena, peer, sent }: SocketRig): Promise<void> {
  const pieces = createPieces();
  addPiece(pieces, arena.scratchAt, 10);
  const limit = socket.results.length;
  let queued = 0;
  while (queued <= limit && socket.queue(pieces, 0, peer, 5, 0)) queued++;
  t.ok(queued <= limit, 'the queue has a limit, for which there are results');
  t.equal(socket.flush(), queued);
  t.ok(socket.queue(pieces, 0, peer, 5, 0), 'after a flush there is room again');
  t.equal(socket.flush(), 1);
  await sent(queued + 1);
  t.ok(socket.pathMtu(peer) >= 576, 'the path is at least as wide as IPv4 demands');
}
