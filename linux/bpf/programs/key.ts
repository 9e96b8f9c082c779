/** The flow key on the stack, made of the packet's headers there; local end first. */
import { Direction } from '../../../engine/io.ts';
import { type Item, load16, load32, R1, R10 } from '../asm.ts';
import { flowKey } from '../policy.ts';
import { ipAt, keyAt, transportAt } from './frame.ts';
import { copy16, copy32, inSlots } from './slots.ts';

export function keyAddresses(direction: Direction): Item[] {
  const [source, target] = localFirst(direction, flowKey.local, flowKey.remote);
  return inSlots([
    copy32(keyAt + source, load32(R1, R10, ipAt + 12)),
    copy32(keyAt + target, load32(R1, R10, ipAt + 16)),
  ]);
}

export function keyPorts(direction: Direction): Item[] {
  const [source, target] = localFirst(direction, flowKey.localPort, flowKey.remotePort);
  return inSlots([
    copy16(keyAt + source, load16(R1, R10, transportAt)),
    copy16(keyAt + target, load16(R1, R10, transportAt + 2)),
  ]);
}

function localFirst(direction: Direction, local: number, remote: number): [number, number] {
  return direction === Direction.Egress ? [local, remote] : [remote, local];
}
