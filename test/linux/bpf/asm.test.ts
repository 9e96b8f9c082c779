import t from 'tap';
import {
  add,
  and32,
  call,
  encode,
  exit,
  goto,
  type Item,
  jeq,
  jne32,
  jsgt,
  label,
  load8,
  load64,
  loadConstant,
  loadMap,
  loadMapValue,
  mov,
  mov32,
  programLength,
  R0,
  R1,
  R2,
  R9,
  R10,
  rsh,
  store16,
  store32,
  storeImmediate16,
  storeImmediate32,
} from '../../../linux/bpf/asm.ts';

/** Bytes from the instruction set's document: opcode, src|dst, offset, immediate. */
const table: [name: string, item: Item, bytes: string][] = [
  ['r0 = 0', mov.imm(R0, 0), 'b700000000000000'],
  ['r0 = -1', mov.imm(R0, -1), 'b7000000ffffffff'],
  ['r2 = r10', mov.reg(R2, R10), 'bfa2000000000000'],
  ['w1 = 0x6d700001', mov32.imm(R1, 0x6d70_0001), 'b40100000100706d'],
  ['r2 += -16', add.imm(R2, -16), '07020000f0ffffff'],
  ['r0 += r1', add.reg(R0, R1), '0f10000000000000'],
  ['w2 &= 0xfffff000', and32.imm(R2, 0xffff_f000), '5402000000f0ffff'],
  ['r0 >>= 10', rsh.imm(R0, 10), '770000000a000000'],
  ['r1 = *(u8*)(r10 - 3)', load8(R1, R10, -3), '71a1fdff00000000'],
  ['r1 = *(u64*)(r9 + 8)', load64(R1, R9, 8), '7991080000000000'],
  ['*(u32*)(r10 - 8) = r1', store32(R10, -8, R1), '631af8ff00000000'],
  ['*(u16*)(r10 - 8) = r1', store16(R10, -8, R1), '6b1af8ff00000000'],
  ['*(u32*)(r10 - 4) = 7', storeImmediate32(R10, -4, 7), '620afcff07000000'],
  ['*(u16*)(r10 - 2) = 8', storeImmediate16(R10, -2, 8), '6a0afeff08000000'],
  ['call 23', call(23), '8500000017000000'],
  ['exit', exit(), '9500000000000000'],
  ['r1 = 2^52 as a double', loadConstant(R1, 0x4330_0000, 0), '18010000000000000000000000003043'],
  ['r1 = map 5', loadMap(R1, 'm'), '18110000050000000000000000000000'],
  ['r1 = value of map 5', loadMapValue(R1, 'm'), '18210000050000000000000000000000'],
];
const hex = (items: Item[]) => Buffer.from(encode(items, { m: 5 })).toString('hex');

t.test('each instruction has its encoding', async (t) => {
  for (const [name, item, bytes] of table) t.equal(hex([item]), bytes, name);
});

t.test('jumps count slots from the next instruction, a 64-bit load as two', async (t) => {
  const items = [
    label('top'),
    jeq.imm(R1, 4, 'end'),
    loadConstant(R2, 0, 0),
    jne32.imm(R1, 5, 'top'),
    jsgt.imm(R1, 6, 'end'),
    goto('end'),
    label('end'),
    exit(),
  ];
  t.equal(programLength(items), 7);
  const offsets = [0, 3, 4, 5].map((slot) =>
    new DataView(encode(items, {}).buffer).getInt16(8 * slot + 2, true),
  );
  t.match(offsets, [5, -4, 1, 0]);
});

t.test('mistakes of the programmer are refused', async (t) => {
  t.throws(() => hex([goto('nowhere')]), RangeError);
  t.throws(() => hex([label('a'), label('a')]), RangeError);
  t.throws(() => encode([loadMap(R1, 'other')], {}), RangeError);
  const far = [goto('far'), ...Array.from({ length: 32768 }, exit), label('far'), exit()];
  t.throws(() => hex(far), RangeError);
});
