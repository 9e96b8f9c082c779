/**
 * eBPF instructions as plain data: pure and the same everywhere. Jumps name labels, map references
 * name maps; `encode` turns both into numbers. What depends on a kernel is in load.ts.
 *
 *      byte 0   byte 1            bytes 2-3   bytes 4-7
 *     +--------+--------+--------+-----------+------------+    Documentation/bpf/standardization/
 *     | opcode | src    | dst    | offset    | immediate  |    instruction-set.rst; little endian
 *     +--------+--------+--------+-----------+------------+
 */

export const R0 = 0;
export const R1 = 1;
export const R2 = 2;
export const R3 = 3;
export const R4 = 4;
export const R5 = 5;
export const R6 = 6;
export const R7 = 7;
export const R8 = 8;
export const R9 = 9;
/** The frame pointer; the stack is below it. */
export const R10 = 10;

export type Instruction = {
  readonly kind: 'instruction';
  readonly opcode: number;
  readonly target: number;
  readonly source: number;
  readonly offset: number;
  readonly immediate: number;
  /** Second half of a 64-bit load; null for every instruction of one slot. */
  readonly high: number | null;
  /** Label to jump to, or ''. */
  readonly label: string;
  /** Map whose descriptor becomes the immediate, or ''. */
  readonly map: string;
};
export type Label = { readonly kind: 'label'; readonly name: string };
export type Item = Instruction | Label;

/** A program before it meets a kernel. */
export type Program = {
  /** At most 15 characters, as `bpftool prog` shows it. */
  readonly name: string;
  /** enum bpf_prog_type */
  readonly type: number;
  readonly items: readonly Item[];
};

const ALU32 = 0x04;
const JMP64 = 0x05;
const JMP32 = 0x06;
const ALU64 = 0x07;
/** Operand is a register, not the immediate. */
const X = 0x08;
/** BPF_LD | BPF_IMM | BPF_DW */
const LD_IMM64 = 0x18;
const BPF_PSEUDO_MAP_FD = 1;
const BPF_PSEUDO_MAP_VALUE = 2;

function instruction(opcode: number, fields: Partial<Instruction> = {}): Instruction {
  return {
    kind: 'instruction',
    opcode,
    target: 0,
    source: 0,
    offset: 0,
    immediate: 0,
    high: null,
    label: '',
    map: '',
    ...fields,
  };
}

type Arithmetic = {
  imm(target: number, immediate: number): Instruction;
  reg(target: number, source: number): Instruction;
};
function arithmetic(opcode: number): Arithmetic {
  return {
    imm: (target, immediate) => instruction(opcode, { target, immediate }),
    reg: (target, source) => instruction(opcode | X, { target, source }),
  };
}

export const add = arithmetic(ALU64 | 0x00);
export const sub = arithmetic(ALU64 | 0x10);
export const mul = arithmetic(ALU64 | 0x20);
export const div = arithmetic(ALU64 | 0x30);
export const and = arithmetic(ALU64 | 0x50);
export const lsh = arithmetic(ALU64 | 0x60);
export const rsh = arithmetic(ALU64 | 0x70);
export const mov = arithmetic(ALU64 | 0xb0);
/** 32-bit operations clear the upper half and take their immediate without sign. */
export const mul32 = arithmetic(ALU32 | 0x20);
export const or32 = arithmetic(ALU32 | 0x40);
export const rsh32 = arithmetic(ALU32 | 0x70);
/** Unsigned. */
export const mod32 = arithmetic(ALU32 | 0x90);
export const and32 = arithmetic(ALU32 | 0x50);
export const xor32 = arithmetic(ALU32 | 0xa0);
export const mov32 = arithmetic(ALU32 | 0xb0);

type Jump = {
  imm(target: number, immediate: number, label: string): Instruction;
  reg(target: number, source: number, label: string): Instruction;
};
function jump(opcode: number): Jump {
  return {
    imm: (target, immediate, label) => instruction(opcode, { target, immediate, label }),
    reg: (target, source, label) => instruction(opcode | X, { target, source, label }),
  };
}

export const jeq = jump(JMP64 | 0x10);
export const jgt = jump(JMP64 | 0x20);
export const jlt = jump(JMP64 | 0xa0);
export const jset = jump(JMP64 | 0x40);
export const jne = jump(JMP64 | 0x50);
export const jsgt = jump(JMP64 | 0x60);
export const jeq32 = jump(JMP32 | 0x10);
export const jne32 = jump(JMP32 | 0x50);

export function goto(label: string): Instruction {
  return instruction(JMP64, { label });
}
export function call(helperId: number): Instruction {
  return instruction(JMP64 | 0x80, { immediate: helperId });
}
export function exit(): Instruction {
  return instruction(JMP64 | 0x90);
}
export function label(name: string): Label {
  return { kind: 'label', name };
}

/** Lower 16 bits of a register from network order to numbers, or back; the others become 0. */
export function swap16(target: number): Instruction {
  return instruction(0xdc, { target, immediate: 16 });
}

/** Atomic `*(target + offset) += source` (BPF_ATOMIC | BPF_ADD, which old kernels call XADD). */
export function atomicAdd32(target: number, offset: number, source: number): Instruction {
  return instruction(0xc3, { target, source, offset });
}
export function atomicAdd64(target: number, offset: number, source: number): Instruction {
  return instruction(0xdb, { target, source, offset });
}

/** BPF_MEM accesses by width: `register = *(source + offset)`, `*(target + offset) = register`. */
const load = (size: number) => (target: number, source: number, offset: number) =>
  instruction(0x61 | size, { target, source, offset });
const store = (size: number) => (target: number, offset: number, source: number) =>
  instruction(0x63 | size, { target, offset, source });
const storeImmediate = (size: number) => (target: number, offset: number, immediate: number) =>
  instruction(0x62 | size, { target, offset, immediate });
export const load8 = load(0x10);
export const load16 = load(0x08);
export const load32 = load(0x00);
export const load64 = load(0x18);
export const store16 = store(0x08);
export const store32 = store(0x00);
export const store64 = store(0x18);
export const storeImmediate16 = storeImmediate(0x08);
export const storeImmediate32 = storeImmediate(0x00);
export const storeImmediate64 = storeImmediate(0x18);

/** A 64-bit constant, in two halves. */
export function loadConstant(target: number, high: number, low: number): Instruction {
  return instruction(LD_IMM64, { target, immediate: low, high });
}
/** The map itself, as helpers want it. */
export function loadMap(target: number, map: string): Instruction {
  return instruction(LD_IMM64, { target, source: BPF_PSEUDO_MAP_FD, map, high: 0 });
}
/** Address of the value of a one-element array map. */
export function loadMapValue(target: number, map: string): Instruction {
  return instruction(LD_IMM64, { target, source: BPF_PSEUDO_MAP_VALUE, map, high: 0 });
}

function slotCount(item: Item): number {
  if (item.kind === 'label') return 0;
  return item.high === null ? 1 : 2;
}

/** Instruction slots of 8 bytes, as the kernel counts them. */
export function programLength(items: readonly Item[]): number {
  return items.reduce((sum, item) => sum + slotCount(item), 0);
}

function labelSlots(items: readonly Item[]): Map<string, number> {
  const slots = new Map<string, number>();
  let slot = 0;
  for (const item of items) {
    if (item.kind === 'label') {
      if (slots.has(item.name)) throw new RangeError(`label ${item.name} is defined twice`);
      slots.set(item.name, slot);
    }
    slot += slotCount(item);
  }
  return slots;
}

/**
 * The bytes for BPF_PROG_LOAD. `maps` gives the descriptor of each map by name. Throws RangeError
 * for a label or map that does not exist, or a jump of more than 32,767 slots.
 */
export function encode(items: readonly Item[], maps: Readonly<Record<string, number>>): Uint8Array {
  const labels = labelSlots(items);
  const bytes = new Uint8Array(programLength(items) * 8);
  const view = new DataView(bytes.buffer);
  let slot = 0;
  for (const item of items) {
    if (item.kind === 'label') continue;
    const at = slot * 8;
    slot += slotCount(item);
    view.setUint8(at, item.opcode);
    view.setUint8(at + 1, item.target | (item.source << 4));
    view.setInt16(at + 2, jumpOffset(item, labels, at / 8), true);
    view.setInt32(at + 4, mapImmediate(item, maps), true);
    if (item.high !== null) view.setInt32(at + 12, item.high | 0, true);
  }
  return bytes;
}

function jumpOffset(item: Instruction, labels: Map<string, number>, slot: number): number {
  if (item.label === '') return item.offset;
  const target = labels.get(item.label);
  if (target === undefined) throw new RangeError(`label ${item.label} is not defined`);
  const offset = target - slot - 1;
  if (offset > 32767) throw new RangeError(`the program is too long for a jump to ${item.label}`);
  return offset;
}

function mapImmediate(item: Instruction, maps: Readonly<Record<string, number>>): number {
  if (item.map === '') return item.immediate | 0;
  const fd = maps[item.map];
  if (fd === undefined) throw new RangeError(`map ${item.map} does not exist`);
  return fd;
}
