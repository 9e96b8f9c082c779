/**
 * The programs on the TUN device.
 *
 * Queue selector (NIC to engine): the queue is in the mark that the NIC program set. Filter: a
 * packet without our mark came by a route, not from us, and never reaches the engine.
 *
 * Ingress hook (engine to NIC): the kernel records the queue that a packet was written to as its
 * receive queue, one more than its number (skb_record_rx_queue in drivers/net/tun.c). The packet
 * gets our mark, so that the NIC program lets it through, and an Ethernet header; both redirects
 * drop a packet that has no room before its network header. Then, egress: out by the interface,
 * with the next hop found by the kernel; ingress: in by the interface, addressed to it, or the
 * kernel takes it as another host's.
 */
import { Direction } from '../../../engine/io.ts';
import {
  BPF_F_INGRESS,
  BPF_PROG_TYPE_SCHED_CLS,
  BPF_PROG_TYPE_SOCKET_FILTER,
  helper,
  skb,
  TC_ACT_SHOT,
} from '../../abi/bpf.ts';
import {
  add,
  and32,
  call,
  exit,
  goto,
  type Item,
  jeq,
  jne,
  jne32,
  label,
  load32,
  mod32,
  mov,
  mov32,
  type Program,
  R0,
  R1,
  R2,
  R3,
  R4,
  R5,
  R6,
  R7,
  R8,
  R9,
  R10,
  store32,
  sub,
} from '../asm.ts';
import {
  CounterKind,
  markBase,
  markMask,
  networkHalf,
  queueMask,
  queueOf,
  queuesPerWorker,
  type SteeringInterface,
  type SteeringPolicy,
} from '../policy.ts';
import { finish, finishing } from './count.ts';
import { inSlots, put16, put32 } from './slots.ts';

const ETH_P_IP = 0x0800;
const headerLength = 14;
const headerAt = -16;
const counterAt = -24;

/** Source of what we put in by an interface: locally administered, valid, `mp`. */
const source = new DataView(Uint8Array.of(0x02, 0x6d, 0x70, 0, 0, 0x01).buffer);

/** Registers that live long: R6 context, R7 interface, R8 1 for ingress. */
export function tunProgram(policy: SteeringPolicy): Program {
  const queues = policy.interfaces.flatMap((nic, ordinal) => [
    { nic, direction: Direction.Egress, queue: queueOf(ordinal, Direction.Egress) },
    { nic, direction: Direction.Ingress, queue: queueOf(ordinal, Direction.Ingress) },
  ]);
  const items: Item[] = [
    mov.reg(R6, R1),
    load32(R2, R6, skb.protocol),
    jne.imm(R2, networkHalf(ETH_P_IP), 'refused'),
    load32(R2, R6, skb.queue_mapping),
    ...(policy.spread ? withoutWorker(policy) : []),
    ...queues.map(({ queue }) => jeq.imm(R2, queue + 1, `queue-${queue}`)),
    label('refused'),
    ...finish(TC_ACT_SHOT, CounterKind.droppedQueue),
    ...queues.flatMap(({ nic, direction, queue }) => fromQueue(nic, direction, queue)),
    label('reinject'),
    ...reinject(),
    ...finishing(counterAt),
  ];
  return { name: 'mp_tun', type: BPF_PROG_TYPE_SCHED_CLS, items };
}

/** The queue of the first worker that stands for the same. Only the packets of a queue have one. */
function withoutWorker(policy: SteeringPolicy): Item[] {
  return [
    jeq.imm(R2, 0, 'refused'),
    sub.imm(R2, 1),
    mod32.imm(R2, queuesPerWorker(policy)),
    add.imm(R2, 1),
  ];
}

function fromQueue(nic: SteeringInterface, direction: Direction, queue: number): Item[] {
  const mac = new DataView(nic.mac.buffer, nic.mac.byteOffset, 6);
  return [
    label(`queue-${queue}`),
    mov.imm(R7, nic.index),
    mov.imm(R8, direction),
    mov32.imm(R9, markBase | queue),
    ...inSlots([
      put32(headerAt, mac.getInt32(0, true)),
      put16(headerAt + 4, mac.getInt16(4, true)),
      put16(headerAt + 6, source.getInt16(0, true)),
    ]),
    goto('reinject'),
  ];
}

function reinject(): Item[] {
  return [
    store32(R6, skb.mark, R9),
    ...inSlots([
      put32(headerAt + 8, source.getInt32(2, true)),
      put16(headerAt + 12, networkHalf(ETH_P_IP)),
    ]),
    mov.reg(R1, R6),
    mov.imm(R2, headerLength),
    mov.imm(R3, 0),
    call(helper.skb_change_head),
    jne.imm(R0, 0, 'refused'),
    mov.reg(R1, R6),
    mov.imm(R2, 0),
    mov.reg(R3, R10),
    add.imm(R3, headerAt),
    mov.imm(R4, headerLength),
    mov.imm(R5, 0),
    call(helper.skb_store_bytes),
    jne.imm(R0, 0, 'refused'),
    mov.reg(R1, R7),
    jeq.imm(R8, Direction.Ingress, 'in'),
    mov.imm(R2, 0),
    mov.imm(R3, 0),
    mov.imm(R4, 0),
    call(helper.redirect_neigh),
    goto('sent'),
    label('in'),
    mov.imm(R2, BPF_F_INGRESS),
    call(helper.redirect),
    label('sent'),
    mov.reg(R7, R0),
    mov.imm(R8, CounterKind.reinjected),
    goto('finish'),
  ];
}

/** For TUNSETSTEERINGEBPF. */
export function selectorProgram(): Program {
  return {
    name: 'mp_selector',
    type: BPF_PROG_TYPE_SOCKET_FILTER,
    items: [load32(R0, R1, skb.mark), and32.imm(R0, queueMask), exit()],
  };
}

/** For TUNSETFILTEREBPF: returns how many bytes to keep. */
export function filterProgram(): Program {
  return {
    name: 'mp_filter',
    type: BPF_PROG_TYPE_SOCKET_FILTER,
    items: [
      load32(R2, R1, skb.mark),
      mov.imm(R0, 0),
      and32.imm(R2, markMask),
      jne32.imm(R2, markBase, 'end'),
      mov32.imm(R0, -1),
      label('end'),
      exit(),
    ],
  };
}
