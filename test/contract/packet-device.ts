/** What every PacketDevice must do, the kernel's and the one in memory alike. */
import type { Test } from 'tap';
import type { Arena } from '../../engine/arena.ts';
import { createPacketBatch, Gso, type PacketDevice } from '../../engine/io.ts';
import { Reason } from '../../parsers/reason.ts';
import { addPiece, createPieces } from '../../tunnel/pieces.ts';
import { ipv4, udp } from '../support/packets.ts';

export type DeviceRig = {
  readonly device: PacketDevice;
  readonly arena: Arena;
  /** Make the device hand `packet` to its reader. */
  deliver(packet: Uint8Array): void;
  /** What went on since the last call. */
  written(): Uint8Array[];
  close(): void;
};

/** Addresses that the rig must carry: from the host to a peer on the device, and back. */
export const hostAddress = '10.88.0.1';
export const peerAddress = '10.88.0.2';

function packet(source: string, target: string, id: number, payloadLength: number): Uint8Array {
  const payload = new Uint8Array(payloadLength).map((_, index) => (index * 7 + id) & 255);
  const ip = { source, target, id };
  return ipv4(ip, 17, udp(ip, 4000, 5000, payload));
}

export function packetDeviceContract(t: Test, create: () => DeviceRig): void {
  const rig = create();
  const { device, arena } = rig;
  t.teardown(() => rig.close());
  const batch = createPacketBatch(arena.deviceSlots);
  const { capacity } = batch;

  t.equal(device.read(batch), 0, 'an empty queue is read at once');
  t.equal(batch.count, 0, 'and its batch is empty');

  for (const column of [batch.length, batch.gso, batch.gsoSize, batch.reason]) column.fill(77);
  batch.checksumStart.fill(77);
  batch.checksumOffset.fill(77);
  const sent = Array.from({ length: capacity + 1 }, (_, index) =>
    packet(hostAddress, peerAddress, index + 1, 100 * index + (index & 1)),
  );
  for (const bytes of sent) rig.deliver(bytes);
  t.equal(device.read(batch), capacity, 'a batch takes what it has room for');
  for (let slot = 0; slot < capacity; slot++) {
    const at = batch.at[slot];
    t.equal(at, arena.deviceSlots[slot], `packet ${slot} lies in its slot`);
    const bytes = arena.bytes.slice(at, at + batch.length[slot]);
    t.equal(Buffer.compare(bytes, sent[slot]), 0, `packet ${slot} is whole and in order`);
    const columns = [batch.gso, batch.gsoSize, batch.checksumStart, batch.checksumOffset];
    t.same(
      columns.map((column) => column[slot]),
      [0, 0, 0, 0],
      `packet ${slot} left nothing stale in its row`,
    );
    t.equal(batch.reason[slot], Reason.Ok);
  }
  t.equal(device.read(batch), 1, 'and leaves the rest for the next');
  t.equal(batch.length[0], sent[capacity].length);
  t.equal(device.read(batch), 0, 'then the queue is empty');

  writeContract(t, rig);
}

function writeContract(t: Test, rig: DeviceRig): void {
  const { device, arena } = rig;
  rig.written();
  const reply = packet(peerAddress, hostAddress, 900, 333);
  const at = arena.scratchAt + 3;
  arena.bytes.set(reply, at);
  const pieces = createPieces();
  const write = () => device.write(pieces, Gso.None, 0, 0, 0);

  addPiece(pieces, at, reply.length);
  t.equal(write(), Reason.Ok, 'a packet in one piece is taken');
  pieces.count = 0;
  // Apart from each other and not in the order of their addresses.
  const cut = 29;
  arena.bytes.set(reply.subarray(cut), arena.scratchAt + 2000);
  arena.bytes.set(reply.subarray(0, cut), arena.scratchAt + 5000);
  addPiece(pieces, arena.scratchAt + 5000, cut);
  addPiece(pieces, arena.scratchAt + 2000, reply.length - cut);
  t.equal(write(), Reason.Ok, 'and one in two');
  const out = rig.written();
  t.equal(out.length, 2, 'both went on');
  for (const bytes of out) t.equal(Buffer.compare(bytes, reply), 0, 'byte for byte');
  const kept = arena.bytes.slice(at, at + reply.length);
  t.equal(Buffer.compare(kept, reply), 0, 'writing leaves the arena as it was');
}
