/** Bytes of the packet on the stack. */
import { helper } from '../../abi/bpf.ts';
import { add, call, type Item, mov, R1, R2, R3, R4, R6, R10 } from '../asm.ts';

/** `length` bytes of the packet from a constant offset; R0 is not 0 when there are fewer. */
export function readPacket(offset: number, stackAt: number, length: number): Item[] {
  return [mov.imm(R2, offset), ...readPacketFromR2(stackAt, length)];
}

/** The same from the offset in R2. */
export function readPacketFromR2(stackAt: number, length: number): Item[] {
  return [
    mov.reg(R1, R6),
    mov.reg(R3, R10),
    add.imm(R3, stackAt),
    mov.imm(R4, length),
    call(helper.skb_load_bytes),
  ];
}
