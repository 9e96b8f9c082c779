/** What the engine put on the network, judged by what came from the tunnel. */
import { Reason, reasonKinds, reasonNames } from '../../parsers/reason.ts';
import { type Known, partialSum } from './answers.ts';
import { transportChecksum } from './decode.ts';
import { difference } from './judge-datagrams.ts';
import { settle } from './judge-held.ts';
import { mendHeader } from './mutate.ts';
import { must } from './trial.ts';
import type { World, Written } from './world.ts';

/** The packets that a written one is to whoever receives it; a super-packet is many. */
function expand(written: Written): Buffer[] {
  const { bytes, checksumOffset, checksumStart, gso, gsoSize } = written;
  if (gso === 0) {
    must(checksumStart === 0, () => 'a packet of one datagram with a partial checksum');
    return [bytes];
  }
  const isTcp = gso === 1;
  must(bytes[0] === 0x45 && bytes[9] === (isTcp ? 6 : 17), () => 'a super-packet of another kind');
  must(bytes.readUInt16BE(2) === bytes.length, () => 'total length of a super-packet');
  must(checksumStart === 20 && checksumOffset === (isTcp ? 16 : 6), () => 'checksum start');
  const field = bytes.readUInt16BE(checksumStart + checksumOffset);
  must(field === partialSum(bytes), () => `partial checksum ${field}`);
  const headers = 20 + (isTcp ? (bytes[32] >> 4) * 4 : 8);
  const payload = bytes.subarray(headers);
  const count = Math.ceil(payload.length / gsoSize);
  must(count > 1 && (isTcp || count <= 64), () => `a super-packet of ${count}`);
  return Array.from({ length: count }, (_, index) => {
    const part = payload.subarray(index * gsoSize, (index + 1) * gsoSize);
    const packet = Buffer.concat([bytes.subarray(0, headers), part]);
    packet.writeUInt16BE(packet.length, 2);
    packet.writeUInt16BE((packet.readUInt16BE(4) + index) & 0xffff, 4);
    if (isTcp) {
      packet.writeUInt32BE((packet.readUInt32BE(24) + index * gsoSize) % 2 ** 32, 24);
      if (index < count - 1) packet[33] &= ~9;
    } else {
      packet.writeUInt16BE(packet.length - 20, 24);
    }
    packet.writeUInt16BE(transportChecksum(packet, 20, packet.length), isTcp ? 36 : 26);
    mendHeader(packet);
    return packet;
  });
}

/** Without what may change when packets are joined and cut again. */
function comparable(packet: Buffer, wasJoined: boolean): Buffer {
  const shortest = packet[9] === 6 ? 40 : packet[9] === 17 ? 28 : 65536;
  if (!wasJoined || packet[0] !== 0x45 || packet.length < shortest) return packet;
  const copy = Buffer.from(packet);
  // The identification of a packet that is not fragmented means nothing (RFC 6864).
  if ((copy[6] & 0x40) !== 0) copy.writeUInt16BE(0, 4);
  // Both zeros of ones' complement; an urgent pointer without URG.
  const field = copy[9] === 6 ? 36 : 26;
  if (copy.readUInt16BE(field) === 0xffff) copy.writeUInt16BE(0, field);
  if (copy[9] === 6 && (copy[33] & 0x20) === 0) copy.writeUInt16BE(0, 38);
  if (copy[9] === 6) copy.writeUInt16BE(transportChecksum(copy, 20, copy.length), field);
  mendHeader(copy);
  return copy;
}

/**
 * Breathe with `datagrams` in the socket and judge what was written.
 *
 * @param exact every packet that may enter must; else some may be missing, since the engine may
 *   know less by now (flows end)
 */
export function breatheAndJudge(
  world: World,
  known: Known,
  datagrams: readonly Buffer[],
  source: number,
  exact: boolean,
): void {
  const arrived = world.socket.inbox.splice(0);
  settle(world);
  world.socket.inbox.push(...arrived);
  const delta = world.breathe();
  const total = delta.reduce((sum, count) => sum + count, 0);
  const entries = datagrams.map((datagram) => known.enter(datagram, source));
  const due = entries.reduce((sum, { counted }) => sum + counted, 0);
  must(!exact || total === due, () => `${due} were due, ${total} counted`);
  const { waiting } = world;
  waiting.datagrams += datagrams.length - total;
  must(waiting.datagrams >= 0, () => `${total} counted, of ${datagrams.length}`);
  must(world.socket.sent.length === 0, () => 'an answer was sent back');
  let written = 0;
  for (const queue of [0, 1]) {
    const expected = entries
      .flatMap(({ packets }) => packets)
      .filter((entry) => entry.queue === queue)
      .map(({ packet }) => packet);
    let next = 0;
    for (const one of world.devices[queue].written) {
      const packets = expand(one);
      for (const packet of packets) {
        const joined = packets.length > 1;
        const like = comparable(packet, joined);
        const first = expected[next];
        while (
          !exact &&
          next < expected.length &&
          !comparable(expected[next], joined).equals(like)
        ) {
          next++;
        }
        must(
          next < expected.length,
          () => `put on queue ${queue}: ${packet.subarray(0, 60).toString('hex')}`,
        );
        const wanted = comparable(expected[next], joined);
        must(wanted.equals(like), () => `queue ${queue}: ${difference(first, packet)}`);
        next++;
      }
      if (one.result === Reason.Ok) written += packets.length;
    }
    const missing = expected.length - next;
    must(!exact || missing === 0, () => `${missing} packets were not put on queue ${queue}`);
  }
  const counted = delta[Reason.Reinjected];
  must(counted === written, () => `${written} written, ${counted} counted as reinjected`);
  for (const [reason, count] of delta.entries()) {
    const isFine = count === 0 || reason === Reason.Reinjected || reasonKinds[reason] === 'dropped';
    must(isFine && count >= 0, () => `${count} counted as ${reasonNames[reason]}`);
  }
}
