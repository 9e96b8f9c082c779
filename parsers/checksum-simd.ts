/**
 * The inner loop of the checksum as one WebAssembly function with 128-bit registers, over the
 * memory that the packets live in. Assembled here by hand: it is twenty instructions, and a build
 * step for them would be more to understand than they are.
 *
 *     (func (export "s") (param $at i32) (param $end i32) (result i32) (local $sum v128)
 *       (loop                              ;; end - at is a multiple of 64 and not 0
 *         sum += extadd_pairwise_i16x8_u(v128.load offset=0, 16, 32, 48 (at))
 *         at += 64
 *         (br_if 0 (i32.lt_u at end)))
 *       sum[0] + sum[1] + sum[2] + sum[3])
 *
 * It adds little-endian words, for that is how WebAssembly loads. RFC 1071 section 2 (B): the sum
 * of byte-swapped words is the byte-swapped sum, once its carries are added in.
 */

/** Bytes that one turn of the loop adds up. */
export const simdBlockLength = 64;

/**
 * Add the little-endian words of [at, end), a multiple of 64 bytes and at least 64; as int32 bits
 * of an unsigned number, exact up to 65,535 bytes.
 */
export type SimdSum = (at: number, end: number) => number;

const i32 = 0x7f;
const v128 = 0x7b;
const functionType = 0x60;
const loop = 0x03;
const noResult = 0x40;
const end = 0x0b;
const branchIf = 0x0d;
const localGet = 0x20;
const localSet = 0x21;
const localTee = 0x22;
const i32Const = 0x41;
const i32LessUnsigned = 0x49;
const i32Add = 0x6a;
const v128Load = [0xfd, 0x00, 0x00];
const i32x4ExtractLane = [0xfd, 0x1b];
const i32x4ExtendAddPairs = [0xfd, 0x7f];
const i32x4Add = [0xfd, 0xae, 0x01];

const atLocal = 0;
const endLocal = 1;
const sumLocal = 2;

const addAt = (offset: number) => [
  ...[localGet, sumLocal, localGet, atLocal, ...v128Load, offset, ...i32x4ExtendAddPairs],
  ...[...i32x4Add, localSet, sumLocal],
];
const lane = (index: number) => [localGet, sumLocal, ...i32x4ExtractLane, index];

/** A vector with its length before it, which here is always below 128: one LEB128 byte. */
const sized = (bytes: number[]) => [bytes.length, ...bytes];
const section = (id: number, ...bytes: number[]) => [id, ...sized(bytes)];

const body = [
  ...[1, 1, v128],
  ...[loop, noResult, ...addAt(0), ...addAt(16), ...addAt(32), ...addAt(48)],
  // A signed LEB128 64 takes two bytes.
  ...[localGet, atLocal, i32Const, 0xc0, 0x00, i32Add, localTee, atLocal],
  ...[localGet, endLocal, i32LessUnsigned, branchIf, 0, end],
  ...[...lane(0), ...lane(1), i32Add, ...lane(2), i32Add, ...lane(3), i32Add, end],
];

const wasm = Uint8Array.from([
  ...[0x00, 0x61, 0x73, 0x6d, 0x01, 0x00, 0x00, 0x00],
  ...section(1, 1, functionType, 2, i32, i32, 1, i32),
  // Import memory "a" "m", of any size.
  ...section(2, 1, 1, 0x61, 1, 0x6d, 2, 0, 0),
  ...section(3, 1, 0),
  // Export function 0 as "s".
  ...section(7, 1, 1, 0x73, 0, 0),
  ...section(10, 1, ...sized(body)),
]);

/** The function over `memory`; undefined where the processor has no such registers. Cold. */
export function createSimdSum(memory: WebAssembly.Memory): SimdSum | undefined {
  try {
    const instance = new WebAssembly.Instance(new WebAssembly.Module(wasm), { a: { m: memory } });
    return instance.exports.s as SimdSum;
  } catch {
    return undefined;
  }
}
