/**
 * Which of several receiving sockets a tunnelled packet goes to: that of the worker at which the
 * inner packet's flow is at home (SO_ATTACH_REUSEPORT_EBPF, Linux 4.5). The context begins behind
 * the outer UDP header; what is returned is a socket by the order of binding. For what cannot be
 * read the kernel chooses by itself.
 */
import { BPF_PROG_TYPE_SOCKET_FILTER } from '../../abi/bpf.ts';
import {
  add,
  and,
  exit,
  type Item,
  jeq,
  jne,
  jset,
  label,
  load8,
  load16,
  load32,
  lsh,
  mov,
  mov32,
  type Program,
  R0,
  R1,
  R2,
  R6,
  R7,
  R8,
  R10,
  store32,
  storeImmediate32,
} from '../asm.ts';
import { flowKey, networkHalf, type SteeringSpread } from '../policy.ts';
import { IPPROTO_TCP, IPPROTO_UDP } from './exclusions.ts';
import { readPacketFromR2 } from './read-packet.ts';
import { chooseWorker } from './spread.ts';

/** How a tunnel's header lies before the inner IPv4 header. */
export type TunnelLayout = {
  /** Bytes without options; of an inner Ethernet header, too. */
  readonly length: number;
  /** GENEVE: options follow, as many words as the low 6 bits of the first byte say (RFC 8926). */
  readonly options: boolean;
};

const keyAt = -16;
const ipAt = keyAt - 24;
const portsAt = ipAt - 8;
const firstAt = portsAt - 8;
const workerAt = firstAt - 8;

/** Registers that live long: R6 context, R7 where the inner IPv4 header is, R8 protocol. */
export function receiverProgram(spread: SteeringSpread, layout: TunnelLayout): Program {
  const items: Item[] = [
    mov.reg(R6, R1),
    mov.imm(R7, layout.length),
    ...(layout.options ? skipOptions() : []),
    mov.reg(R2, R7),
    ...load(ipAt, 20),
    load32(R1, R10, ipAt + 12),
    store32(R10, keyAt + flowKey.local, R1),
    load32(R1, R10, ipAt + 16),
    store32(R10, keyAt + flowKey.remote, R1),
    storeImmediate32(R10, keyAt + flowKey.localPort, 0),
    load8(R8, R10, ipAt + 9),
    store32(R10, keyAt + flowKey.protocol, R8),
    load16(R1, R10, ipAt + 6),
    jset.imm(R1, networkHalf(0x3fff), 'choose'),
    jeq.imm(R8, IPPROTO_TCP, 'ports'),
    jne.imm(R8, IPPROTO_UDP, 'choose'),
    label('ports'),
    load8(R2, R10, ipAt),
    and.imm(R2, 0x0f),
    lsh.imm(R2, 2),
    add.reg(R2, R7),
    ...load(portsAt, 4),
    load32(R1, R10, portsAt),
    store32(R10, keyAt + flowKey.localPort, R1),
    label('choose'),
    ...chooseWorker(spread, keyAt, workerAt),
    mov.reg(R0, R1),
    exit(),
    label('unreadable'),
    mov32.imm(R0, -1),
    exit(),
  ];
  return { name: 'mp_receive', type: BPF_PROG_TYPE_SOCKET_FILTER, items };
}

function skipOptions(): Item[] {
  return [
    mov.imm(R2, 0),
    ...load(firstAt, 1),
    load8(R1, R10, firstAt),
    and.imm(R1, 0x3f),
    lsh.imm(R1, 2),
    add.reg(R7, R1),
  ];
}

/** `length` bytes of the datagram from R2 on, to the stack. */
function load(stackAt: number, length: number): Item[] {
  return [...readPacketFromR2(stackAt, length), jne.imm(R0, 0, 'unreadable')];
}
