/**
 * What both ways of carrying a flow have in common: its record, what makes a packet plain enough to
 * be carried, its size, its place in the order, and its count.
 *
 * Registers: R6 context, R7 record, R9 control; others do not outlive a step. What is not plain
 * goes on to `other` and is handled as if nothing were carried.
 */
import { helper, skb } from '../../abi/bpf.ts';
import {
  add,
  and,
  atomicAdd32,
  atomicAdd64,
  call,
  div,
  goto,
  type Item,
  jeq,
  jgt,
  jlt,
  jne,
  jset,
  label,
  load8,
  load16,
  load32,
  load64,
  loadMap,
  lsh,
  mov,
  mov32,
  mul,
  R0,
  R1,
  R2,
  R3,
  R4,
  R6,
  R7,
  R8,
  R9,
  R10,
  rsh,
  store32,
  store64,
  sub,
  swap16,
} from '../asm.ts';
import {
  type CounterKind,
  carriedPeer,
  carriedPeersMax,
  carriedRecord,
  controlPage,
  flowValue,
  markBase,
  networkHalf,
} from '../policy.ts';
import { IPPROTO_TCP, IPPROTO_UDP } from './exclusions.ts';
import {
  bytesAt,
  epochAt,
  headersAt,
  ipAt,
  lengthAt,
  packetsAt,
  recordAt,
  transportAt,
} from './frame.ts';
import { copy32, inSlots } from './slots.ts';

/** For words of a header as immediates, which are little-endian. */
export function viewOf({ buffer, byteLength, byteOffset }: Uint8Array): DataView {
  return new DataView(buffer, byteOffset, byteLength);
}

/** FIN, SYN and RST: what the engine follows connections by. */
const steeringFlags = 0x07;

/** From the value of the flow map in R0 to its record in R7, unless it is another flow's by now. */
export function findRecord(other: string): Item[] {
  return [
    ...inSlots([
      copy32(recordAt, load32(R1, R0, flowValue.record)),
      copy32(epochAt, load32(R1, R0, flowValue.epoch)),
    ]),
    loadMap(R1, 'records'),
    mov.reg(R2, R10),
    add.imm(R2, recordAt),
    call(helper.map_lookup_elem),
    jeq.imm(R0, 0, other),
    mov.reg(R7, R0),
    load32(R1, R7, carriedRecord.epoch),
    load32(R2, R10, epochAt),
    jne.reg(R1, R2, other),
  ];
}

/** The firewall of the record's flow on the control page, in `target`. */
export function findPeer(target: number): Item[] {
  return [
    load16(R1, R7, carriedRecord.peer),
    and.imm(R1, carriedPeersMax - 1),
    mul.imm(R1, carriedPeer.size),
    mov.reg(target, R9),
    add.imm(target, controlPage.peers),
    add.reg(target, R1),
  ];
}

/**
 * The sum of the words on the stack at these places in R1, folded to 16 bits (RFC 1071; any byte
 * order).
 * @param plus a word that is not there
 */
export function sumWords(places: readonly number[], plus = 0): Item[] {
  const fold: Item[] = [mov.reg(R2, R1), rsh.imm(R2, 16), and.imm(R1, 0xffff), add.reg(R1, R2)];
  return [
    mov.imm(R1, plus),
    ...places.flatMap((at) => [load32(R2, R10, at), add.reg(R1, R2)]),
    ...fold,
    ...fold,
    ...fold,
  ];
}

/**
 * TCP or UDP, whole, without IP options, with a right header checksum and lengths that agree, and
 * nothing that begins or ends a connection. Leaves the packet's length and that of its headers.
 */
export function onlyPlain(prefix: string, other: string): Item[] {
  return [
    load8(R1, R10, ipAt),
    jne.imm(R1, 0x45, other),
    load16(R1, R10, ipAt + 6),
    jset.imm(R1, networkHalf(0x3fff), other),
    ...sumWords([0, 4, 8, 12, 16].map((at) => ipAt + at)),
    jne.imm(R1, 0xffff, other),
    load16(R3, R10, ipAt + 2),
    swap16(R3),
    load8(R1, R10, ipAt + 9),
    jeq.imm(R1, IPPROTO_UDP, `${prefix}-udp`),
    jne.imm(R1, IPPROTO_TCP, other),
    load8(R1, R10, transportAt + 13),
    jset.imm(R1, steeringFlags, other),
    load8(R1, R10, transportAt + 12),
    rsh.imm(R1, 4),
    lsh.imm(R1, 2),
    jlt.imm(R1, 20, other),
    add.imm(R1, 20),
    jgt.reg(R1, R3, other),
    goto(`${prefix}-plain`),
    label(`${prefix}-udp`),
    load16(R1, R10, transportAt + 4),
    swap16(R1),
    jlt.imm(R1, 8, other),
    add.imm(R1, 20),
    jne.reg(R1, R3, other),
    mov.imm(R1, 28),
    label(`${prefix}-plain`),
    store32(R10, headersAt, R1),
    store32(R10, lengthAt, R3),
  ];
}

/**
 * How many wire packets it is, and their bytes. UDP super-packets are the engine's. `mtu`: none
 * may be larger than R4.
 */
export function measure(prefix: string, other: string, mtu: boolean): Item[] {
  return [
    load32(R3, R10, lengthAt),
    load32(R1, R10, headersAt),
    load32(R2, R6, skb.gso_size),
    jne.imm(R2, 0, `${prefix}-super`),
    ...(mtu ? [jgt.reg(R3, R4, other)] : []),
    mov.imm(R2, 1),
    goto(`${prefix}-measured`),
    label(`${prefix}-super`),
    load8(R0, R10, ipAt + 9),
    jne.imm(R0, IPPROTO_TCP, other),
    ...(mtu ? [mov.reg(R0, R1), add.reg(R0, R2), jgt.reg(R0, R4, other)] : []),
    // Segments: payload over the size of each, rounded up.
    mov.reg(R0, R3),
    sub.reg(R0, R1),
    jeq.imm(R0, 0, other),
    sub.imm(R0, 1),
    div.reg(R0, R2),
    mov.reg(R2, R0),
    mul.reg(R0, R1),
    add.reg(R3, R0),
    add.imm(R2, 1),
    label(`${prefix}-measured`),
    store64(R10, packetsAt, R2),
    store64(R10, bytesAt, R3),
  ];
}

/** After those before it: the numbers `given` and `done` of the direction in R8 are equal. */
export function onlyInOrder(given: number, done: number, other: string): Item[] {
  return [
    ...wordOfDirection(`in-order-${given}`),
    load32(R1, R3, given),
    load32(R2, R3, done),
    jne.reg(R1, R2, other),
  ];
}

/**
 * R3 is the record, or 4 bytes behind it for ingress. Not by arithmetic with R8: for a process
 * without CAP_PERFMON the verifier wants each addition to a pointer to be the same on every path.
 */
function wordOfDirection(name: string): Item[] {
  return [mov.reg(R3, R7), jeq.imm(R8, 0, name), add.imm(R3, 4), label(name)];
}

/** A packet of the direction in R8 goes through the engine: the next one follows it. */
export function noteOrder(given: number): Item[] {
  return [...wordOfDirection(`note-order-${given}`), mov.imm(R1, 1), atomicAdd32(R3, given, R1)];
}

/**
 * Out by an interface, whose index `loadInterface` puts in R1, to the next hop that the kernel
 * finds; with our mark, which the program on the way out takes off. Counted under `kind`.
 */
export function sendMarked(loadInterface: Item, kind: CounterKind): Item[] {
  return [
    mov32.imm(R1, markBase),
    store32(R6, skb.mark, R1),
    loadInterface,
    mov.imm(R2, 0),
    mov.imm(R3, 0),
    mov.imm(R4, 0),
    call(helper.redirect_neigh),
    mov.reg(R7, R0),
    mov.imm(R8, kind),
    goto('finish'),
  ];
}

/** Adds what was measured to the two numbers at `at` of the record at `pointer`. */
export function countCarried(pointer: number, at: number): Item[] {
  return [
    load64(R1, R10, packetsAt),
    atomicAdd64(pointer, at, R1),
    load64(R1, R10, bytesAt),
    atomicAdd64(pointer, at + 8, R1),
  ];
}
