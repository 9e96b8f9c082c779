/**
 * Writing the stack. For a process without CAP_PERFMON, verifiers before Linux 6.8 take a write at
 * the beginning of an 8-byte slot for a register kept there, of whatever width it is, and refuse
 * every narrower one to that slot that follows (kernel/bpf/verifier.c, check_stack_write_fixed_off,
 * "attempt to corrupt spilled pointer on stack"). So the beginning is written last, and a slot that
 * is written again is emptied before: an immediate 0 of 8 bytes is nobody's register.
 */
import {
  type Item,
  R1,
  R10,
  store16,
  store32,
  storeImmediate16,
  storeImmediate32,
  storeImmediate64,
} from '../asm.ts';

const slotLength = 8;

/** Items that write at `at` below the frame pointer, whatever was written before. */
export type StackWrite = { readonly at: number; readonly items: readonly Item[] };

export function put16(at: number, value: number): StackWrite {
  return { at, items: [storeImmediate16(R10, at, value)] };
}

export function put32(at: number, value: number): StackWrite {
  return { at, items: [storeImmediate32(R10, at, value)] };
}

/** What `items` leave in R1. */
export function copy16(at: number, ...items: readonly Item[]): StackWrite {
  return { at, items: [...items, store16(R10, at, R1)] };
}

export function copy32(at: number, ...items: readonly Item[]): StackWrite {
  return { at, items: [...items, store32(R10, at, R1)] };
}

/** These writes, in an order that old verifiers accept. */
export function inSlots(writes: readonly StackWrite[]): Item[] {
  const begins = ({ at }: StackWrite) => at % slotLength === 0;
  return [...writes.filter((write) => !begins(write)), ...writes.filter(begins)].flatMap(
    ({ items }) => items,
  );
}

/** Empties `length` bytes, whole slots. */
export function emptySlots(at: number, length: number): Item[] {
  return Array.from({ length: length / slotLength }, (_, slot) =>
    storeImmediate64(R10, at + slot * slotLength, 0),
  );
}
