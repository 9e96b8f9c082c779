/**
 * A packet of a flow that the programs carry, from the workload's interface to the firewall:
 *
 * 1. the flow's record
 * 2. plain, fits the tunnel, nothing of it still on its way through the engine; else to the engine
 * 3. room for the outer headers, which are written on the stack
 * 4. out by the interface that leads to the firewall, with our mark
 *
 * The outer UDP checksum is 0 (RFC 7348 section 4.3, RFC 8926 section 3.3): the kernel cuts a
 * super-packet without computing one. Outer DF is set, DSCP is copied, ECN is not.
 */
import type { Direction } from '../../../engine/io.ts';
import {
  BPF_ADJ_ROOM_ENCAP_L2_SHIFT_HIGH,
  BPF_ADJ_ROOM_MAC,
  BPF_F_ADJ_ROOM_ENCAP_L3_IPV4,
  BPF_F_ADJ_ROOM_ENCAP_L4_UDP,
  BPF_F_ADJ_ROOM_FIXED_GSO,
  helper,
  skb,
  TC_ACT_SHOT,
} from '../../abi/bpf.ts';
import {
  add,
  and,
  and32,
  call,
  goto,
  type Item,
  jeq,
  jgt,
  jlt,
  jne,
  label,
  load8,
  load16,
  load32,
  loadConstant,
  lsh,
  mov,
  or32,
  R0,
  R1,
  R2,
  R3,
  R4,
  R5,
  R6,
  R7,
  R8,
  R10,
  store32,
  sub,
  swap16,
  xor32,
} from '../asm.ts';
import {
  CounterKind,
  carriedPeer,
  carriedRecord,
  networkHalf,
  type TunnelTemplate,
} from '../policy.ts';
import {
  countCarried,
  findPeer,
  findRecord,
  measure,
  noteOrder,
  onlyInOrder,
  onlyPlain,
  sendMarked,
  sumWords,
  viewOf,
} from './carry.ts';
import { finish } from './count.ts';
import { IPPROTO_UDP } from './exclusions.ts';
import { ethernetLength, interfaceAt, ipAt, lengthAt, outerAt } from './frame.ts';
import { copy16, copy32, inSlots, put16, put32, type StackWrite } from './slots.ts';

export const ipv4UdpLength = 28;
const outerTtl = 64;
const dontFragment = 0x4000;
const largestPacket = 65_535;
const dscpMask = 0xfc;

/** Entered with the flow map's value in R0; `toEngine` is where R7 may be anything. */
export function carryOut(template: TunnelTemplate, direction: Direction, toEngine: string): Item[] {
  const outerLength = ipv4UdpLength + template.headers[direction].length;
  return [
    label('carry'),
    ...findRecord(toEngine),
    mov.imm(R8, direction),
    ...onlyPlain('out', 'hand-over'),
    ...findPeer(R5),
    load16(R4, R5, carriedPeer.innerMtu),
    ...measure('out', 'hand-over', true),
    ...onlyInOrder(carriedRecord.toEngine, carriedRecord.sent, 'hand-over'),
    ...writeOuter(template, direction, outerLength),
    ...onlyWhole(direction),
    ...makeRoom(template, outerLength),
    ...countCarried(R7, carriedRecord.redirected + 16 * direction),
    ...sendOuter(outerLength),
    label('hand-over'),
    ...noteOrder(carriedRecord.toEngine),
    goto(toEngine),
  ];
}

/** On the stack; R5 is the firewall. */
function writeOuter(template: TunnelTemplate, direction: Direction, outerLength: number): Item[] {
  const lengthPlus = (more: number) => [load32(R1, R10, lengthAt), add.imm(R1, more), swap16(R1)];
  const ttlAndProtocol = outerTtl | (IPPROTO_UDP << 8);
  const summed = [0, 4, 12, 16].map((at) => outerAt + at);
  return [
    load32(R1, R5, carriedPeer.interfaceIndex),
    store32(R10, interfaceAt, R1),
    load32(R3, R10, lengthAt),
    jgt.imm(R3, largestPacket - outerLength, 'hand-over'),
    ...inSlots([
      copy16(
        outerAt,
        load8(R1, R10, ipAt + 1),
        and.imm(R1, dscpMask),
        lsh.imm(R1, 8),
        add.imm(R1, 0x45),
      ),
      copy16(outerAt + 2, ...lengthPlus(outerLength)),
      put16(outerAt + 4, 0),
      put16(outerAt + 6, networkHalf(dontFragment)),
      copy32(outerAt + 12, load32(R1, R5, carriedPeer.source)),
      copy32(outerAt + 16, load32(R1, R5, carriedPeer.target)),
      copy16(outerAt + 20, load16(R1, R7, carriedRecord.sourcePort)),
      copy16(outerAt + 22, load16(R1, R5, carriedPeer.port)),
      copy16(outerAt + 24, ...lengthPlus(outerLength - 20)),
      put16(outerAt + 26, 0),
      ...writesOfTunnel(template, direction),
    ]),
    ...inSlots([
      put16(outerAt + 8, ttlAndProtocol),
      copy16(outerAt + 10, ...sumWords(summed, ttlAndProtocol), xor32.imm(R1, 0xffff)),
    ]),
  ];
}

function writesOfTunnel(
  { cookieMask, headers }: TunnelTemplate,
  direction: Direction,
): StackWrite[] {
  const view = viewOf(headers[direction]);
  const mask = viewOf(cookieMask);
  const writes: StackWrite[] = [];
  for (let from = 0; from < view.byteLength; from += 4) {
    const at = outerAt + ipv4UdpLength + from;
    if (view.byteLength - from < 4) {
      writes.push(put16(at, view.getUint16(from, true)));
    } else if (mask.getInt32(from, true) === 0) {
      writes.push(put32(at, view.getInt32(from, true)));
    } else {
      const cookie = [
        load32(R1, R7, carriedRecord.cookie),
        and32.imm(R1, mask.getInt32(from, true)),
        or32.imm(R1, view.getInt32(from, true)),
      ];
      writes.push(copy32(at, ...cookie));
    }
  }
  return writes;
}

/** What a NIC has padded to the smallest frame loses the padding; nothing else may differ. */
function onlyWhole(direction: Direction): Item[] {
  return [
    load32(R1, R6, skb.len),
    sub.imm(R1, ethernetLength),
    load32(R2, R10, lengthAt),
    jeq.reg(R1, R2, 'out-whole'),
    ...(direction === 0
      ? [goto('hand-over')]
      : [
          jlt.reg(R1, R2, 'hand-over'),
          load32(R3, R6, skb.gso_size),
          jne.imm(R3, 0, 'hand-over'),
          mov.reg(R1, R6),
          add.imm(R2, ethernetLength),
          mov.imm(R3, 0),
          call(helper.skb_change_tail),
          jne.imm(R0, 0, 'hand-over'),
        ]),
    label('out-whole'),
  ];
}

function makeRoom(template: TunnelTemplate, outerLength: number): Item[] {
  const flags =
    BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 | BPF_F_ADJ_ROOM_ENCAP_L4_UDP;
  const inner = template.ethernet ? ethernetLength << BPF_ADJ_ROOM_ENCAP_L2_SHIFT_HIGH : 0;
  return [
    mov.reg(R1, R6),
    mov.imm(R2, outerLength),
    mov.imm(R3, BPF_ADJ_ROOM_MAC),
    loadConstant(R4, inner, flags),
    call(helper.skb_adjust_room),
    jne.imm(R0, 0, 'hand-over'),
  ];
}

function sendOuter(outerLength: number): Item[] {
  return [
    mov.reg(R1, R6),
    mov.imm(R2, ethernetLength),
    mov.reg(R3, R10),
    add.imm(R3, outerAt),
    mov.imm(R4, outerLength),
    mov.imm(R5, 0),
    call(helper.skb_store_bytes),
    jeq.imm(R0, 0, 'out-written'),
    ...finish(TC_ACT_SHOT, CounterKind.droppedCarried),
    label('out-written'),
    ...sendMarked(load32(R1, R10, interfaceAt), CounterKind.carriedOut),
  ];
}
