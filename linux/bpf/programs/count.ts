/** The one way out of a counted program: `R7` is what it returns, `R8` the kind to count. */
import { helper, skb } from '../../abi/bpf.ts';
import {
  add,
  call,
  exit,
  goto,
  type Item,
  jeq,
  label,
  load32,
  load64,
  loadMap,
  mov,
  R0,
  R1,
  R2,
  R6,
  R7,
  R8,
  R10,
  store32,
  store64,
} from '../asm.ts';
import { type CounterKind, counterValue } from '../policy.ts';

/** Return `action`, counted under `kind`. */
export function finish(action: number, kind: CounterKind): Item[] {
  return [mov.imm(R7, action), mov.imm(R8, kind), goto('finish')];
}

/** Ends a program. `R6` holds the context, `stackAt` has 4 bytes to spare. */
export function finishing(stackAt: number): Item[] {
  return [
    label('finish'),
    store32(R10, stackAt, R8),
    loadMap(R1, 'counters'),
    mov.reg(R2, R10),
    add.imm(R2, stackAt),
    call(helper.map_lookup_elem),
    jeq.imm(R0, 0, 'counted'),
    load64(R1, R0, counterValue.packets),
    add.imm(R1, 1),
    store64(R0, counterValue.packets, R1),
    load32(R2, R6, skb.len),
    load64(R1, R0, counterValue.bytes),
    add.reg(R1, R2),
    store64(R0, counterValue.bytes, R1),
    label('counted'),
    mov.reg(R0, R7),
    exit(),
  ];
}
