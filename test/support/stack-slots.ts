/**
 * What verifiers before Linux 6.8 refuse in a process without CAP_PERFMON: a write of less than 8
 * bytes into a stack slot that may hold a spilled register (kernel/bpf/verifier.c,
 * check_stack_write_fixed_off: "attempt to corrupt spilled pointer on stack"). They take every
 * write at a slot's beginning for a spill, of whatever width, but an immediate 0.
 */
import { helper } from '../../linux/abi/bpf.ts';
import { type Instruction, type Item, R3, R4, R10 } from '../../linux/bpf/asm.ts';

/** BPF_CLASS and BPF_SIZE of an opcode. */
const storeImmediateClass = 0x02;
const storeClass = 0x03;
const atomic = 0xc0;
const widths: Record<number, number> = { 0: 4, 8: 2, 16: 1, 24: 8 };

/** By label or index of the instruction: what would be refused. Empty when nothing would. */
export function corruptedSpills(items: readonly Item[]): string[] {
  const labels = new Map(items.map((item, at) => [item.kind === 'label' ? item.name : '', at]));
  const found = new Set<string>();
  const seen = new Set<string>();
  const paths: { at: number; spilled: ReadonlySet<number> }[] = [{ at: 0, spilled: new Set() }];
  for (let path = paths.pop(); path !== undefined; path = paths.pop()) {
    let { at } = path;
    const spilled = new Set(path.spilled);
    for (; at < items.length; at++) {
      const item = items[at]!;
      if (item.kind === 'label') {
        const state = `${at} ${[...spilled].sort()}`;
        if (seen.has(state)) break;
        seen.add(state);
        continue;
      }
      for (const { begin, end, spills } of writesOf(item, items, at)) {
        for (let slot = Math.floor(begin / 8); slot * 8 < end; slot++) {
          const whole = begin <= slot * 8 && end >= slot * 8 + 8 && !isCall(item);
          if (spilled.has(slot) && !whole) found.add(where(items, at, slot));
          if (whole) spilled.delete(slot);
          if (spills && begin === slot * 8) spilled.add(slot);
        }
      }
      if (item.opcode === 0x95) break;
      if (item.label === '') continue;
      const target = labels.get(item.label)!;
      if (item.opcode === 0x05) at = target - 1;
      else paths.push({ at: target, spilled: new Set(spilled) });
    }
  }
  return [...found];
}

type Write = { readonly begin: number; readonly end: number; readonly spills: boolean };

function writesOf(item: Instruction, items: readonly Item[], at: number): Write[] {
  if (isCall(item)) {
    if (item.immediate !== helper.skb_load_bytes) return [];
    const begin = lastImmediate(items, at, R3, 0x07);
    return [{ begin, end: begin + lastImmediate(items, at, R4, 0xb7), spills: false }];
  }
  const kind = item.opcode & 0x07;
  if (kind !== storeClass && kind !== storeImmediateClass) return [];
  if (item.target !== R10) return [];
  const begin = item.offset;
  const isValue = kind === storeClass ? (item.opcode & 0xe0) !== atomic : item.immediate !== 0;
  return [{ begin, end: begin + widths[item.opcode & 0x18]!, spills: isValue }];
}

const isCall = ({ opcode }: Instruction) => opcode === 0x85;

function lastImmediate(items: readonly Item[], at: number, register: number, opcode: number) {
  for (let before = at - 1; before >= 0; before--) {
    const item = items[before]!;
    if (item.kind === 'instruction' && item.opcode === opcode && item.target === register) {
      return item.immediate;
    }
  }
  throw new Error(`no immediate for register ${register} before instruction ${at}`);
}

function where(items: readonly Item[], at: number, slot: number): string {
  const name = items.slice(0, at).findLast((item) => item.kind === 'label');
  const item = items[at] as Instruction;
  return `after ${name?.kind === 'label' ? name.name : 'start'} (${at}): slot ${slot * 8}, offset ${item.offset}`;
}
