/** The flow key on the stack, made of the packet's headers there; local end first. */
import { Direction } from '../../../engine/io.ts';
import { type Item, load16, load32, R1, R10, store16, store32 } from '../asm.ts';
import { flowKey } from '../policy.ts';
import { ipAt, keyAt, transportAt } from './frame.ts';
import { inSlots } from './slots.ts';

export function keyAddresses(direction: Direction): Item[] {
  const [source, target] = localFirst(direction, flowKey.local, flowKey.remote);
  const copy = (from: number, to: number) => ({
    at: keyAt + to,
    items: [load32(R1, R10, ipAt + from), store32(R10, keyAt + to, R1)],
  });
  return inSlots([copy(12, source), copy(16, target)]);
}

export function keyPorts(direction: Direction): Item[] {
  const [source, target] = localFirst(direction, flowKey.localPort, flowKey.remotePort);
  const copy = (from: number, to: number) => ({
    at: keyAt + to,
    items: [load16(R1, R10, transportAt + from), store16(R10, keyAt + to, R1)],
  });
  return inSlots([copy(0, source), copy(2, target)]);
}

function localFirst(direction: Direction, local: number, remote: number): [number, number] {
  return direction === Direction.Egress ? [local, remote] : [remote, local];
}
