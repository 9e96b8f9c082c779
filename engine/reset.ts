/** The end of a connection that is not redirected: `established: reset`. */
import { resetLength, writeResetToReceiver, writeResetToSender } from '../parsers/tcp-reset.ts';
import { addPiece, type Pieces } from '../tunnel/pieces.ts';
import { Gso, type PacketDevice } from './io.ts';
import type { Packet } from './packet.ts';
import type { Path } from './path.ts';

/**
 * Reset both ends of the connection of `packet`, whose TCP header is whole.
 * @param pieces to write with
 */
export function resetBothEnds(
  { arena }: Path,
  packet: Packet,
  pieces: Pieces,
  toReceiver: PacketDevice,
  toSender: PacketDevice,
): void {
  const { answerAt, bytes, view } = arena;
  pieces.count = 0;
  addPiece(pieces, answerAt, resetLength);
  writeResetToSender(bytes, view, answerAt, packet.at, packet.key.transportAt);
  toSender.write(pieces, Gso.None, 0, 0, 0);
  writeResetToReceiver(bytes, view, answerAt, packet.at, packet.key.transportAt);
  toReceiver.write(pieces, Gso.None, 0, 0, 0);
}
