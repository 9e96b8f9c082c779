/**
 * A packet from the tunnel, of a flow that the programs carry, at the interface that leads to the
 * firewall. Its outer source is a firewall, its port is the tunnel's, and it is no fragment.
 *
 * 1. the engine lives and redirects
 * 2. outer lengths agree; the tunnel header is one that we write, byte for byte
 * 3. the inner packet's flow, with the direction that it went in
 * 4. it is carried, its firewall is used, the cookie is its own, the outer destination ours
 * 5. plain, by itself, nothing of it still on its way through the engine
 * 6. the outer headers off; egress: out by the flow's interface; ingress: in, as it stands
 *
 * Everything else is left to the socket, where the engine decides and counts.
 */
import { Direction, KernelVerdict, SteeringMode } from '../../../engine/io.ts';
import {
  BPF_ADJ_ROOM_MAC,
  BPF_F_ADJ_ROOM_FIXED_GSO,
  helper,
  skb,
  TC_ACT_UNSPEC,
} from '../../abi/bpf.ts';
import {
  add,
  and32,
  call,
  goto,
  type Item,
  jeq,
  jeq32,
  jne,
  jne32,
  jset,
  label,
  load8,
  load16,
  load32,
  loadMap,
  mov,
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
  swap16,
  xor32,
} from '../asm.ts';
import {
  CounterKind,
  carriedPeer,
  carriedRecord,
  controlPage,
  flowKey,
  flowValue,
  networkHalf,
  type SteeringInterface,
  type SteeringPolicy,
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
  viewOf,
} from './carry.ts';
import { ipv4UdpLength } from './carry-out.ts';
import { finish } from './count.ts';
import { IPPROTO_TCP, IPPROTO_UDP } from './exclusions.ts';
import { ethernetLength, expectedAt, ipAt, keyAt, outerAt, transportAt } from './frame.ts';
import { jumpUnlessAlive } from './heartbeat.ts';
import { keyAddresses, keyPorts } from './key.ts';
import { readPacket } from './read-packet.ts';
import { emptySlots } from './slots.ts';

const ethernetAddressesLength = 12;

/** Entered at `from-tunnel`, with the outer header and ports read; `toSocket` lets it go on. */
export function carryBack(
  policy: SteeringPolicy,
  template: TunnelTemplate,
  nic: SteeringInterface,
  toSocket: string,
): Item[] {
  const outerLength = ipv4UdpLength + template.headers[0].length;
  return [
    label('from-tunnel'),
    ...jumpUnlessAlive(policy, toSocket),
    load32(R1, R9, controlPage.mode),
    jne.imm(R1, SteeringMode.Redirect, toSocket),
    ...onlyOuter(outerLength, toSocket),
    ...onlyOurTunnel(template, toSocket),
    ...readInner(outerLength, toSocket),
    ...findFlow(toSocket),
    ...findRecord(toSocket),
    ...onlyItsOwn(template, toSocket),
    ...onlyPlain('back', 'hand-back'),
    load32(R1, R10, expectedAt),
    // Several datagrams that were joined on the way have other lengths inside.
    jne.reg(R1, R3, 'hand-back'),
    ...measure('back', 'hand-back', false),
    ...onlyInOrder(carriedRecord.toSocket, carriedRecord.delivered, 'hand-back'),
    jeq.imm(R8, Direction.Egress, 'back-placed'),
    load32(R1, R7, carriedRecord.interfaceIndex),
    jne.imm(R1, nic.index, 'hand-back'),
    label('back-placed'),
    ...takeOuterOff(outerLength),
    ...countCarried(R7, carriedRecord.reinjected),
    ...deliver(),
    label('hand-back'),
    ...noteOrder(carriedRecord.toSocket),
    goto(toSocket),
  ];
}

/** What the inner packet's length must be is kept. */
function onlyOuter(outerLength: number, toSocket: string): Item[] {
  return [
    load8(R1, R10, ipAt),
    jne.imm(R1, 0x45, toSocket),
    load16(R3, R10, ipAt + 2),
    swap16(R3),
    load32(R1, R6, skb.len),
    sub.imm(R1, ethernetLength),
    jne.reg(R1, R3, toSocket),
    load16(R1, R10, transportAt + 4),
    swap16(R1),
    add.imm(R1, 20),
    jne.reg(R1, R3, toSocket),
    sub.imm(R3, outerLength),
    store32(R10, expectedAt, R3),
  ];
}

/**
 * Words that are the same both ways must be so; one that differs must be either, without the
 * cookie. Options that we do not write, flags, reserved bits: for the engine.
 */
function onlyOurTunnel(template: TunnelTemplate, toSocket: string): Item[] {
  const { cookieMask, ethernet, headers } = template;
  const { length } = headers[0];
  const [egress, ingress] = [viewOf(headers[0]), viewOf(headers[1])];
  const mask = viewOf(cookieMask);
  const addressesAt = ethernet ? length - ethernetLength : length;
  const items = [
    ...readPacket(ethernetLength + ipv4UdpLength, outerAt, length),
    jne.imm(R0, 0, toSocket),
  ];
  for (let at = 0; at < addressesAt; at += 4) {
    const [one, other] = [egress.getInt32(at, true), ingress.getInt32(at, true)];
    items.push(load32(R1, R10, outerAt + at));
    const cookie = mask.getInt32(at, true);
    if (cookie === -1) items.pop();
    else if (cookie !== 0) items.push(and32.imm(R1, ~cookie));
    if (cookie === -1) continue;
    if (one !== other) items.push(jeq32.imm(R1, one, `tunnel-${at}`));
    items.push(jne32.imm(R1, other, toSocket), label(`tunnel-${at}`));
  }
  if (!ethernet) return items;
  const typeAt = addressesAt + ethernetAddressesLength;
  return [
    ...items,
    load16(R1, R10, outerAt + typeAt),
    jne.imm(R1, egress.getUint16(typeAt, true), toSocket),
  ];
}

/** The inner header and ports take the place of the outer ones. */
function readInner(outerLength: number, toSocket: string): Item[] {
  const innerAt = ethernetLength + outerLength;
  return [
    ...readPacket(innerAt, ipAt, 20),
    jne.imm(R0, 0, toSocket),
    load8(R1, R10, ipAt),
    jne.imm(R1, 0x45, toSocket),
    load16(R1, R10, ipAt + 6),
    jset.imm(R1, networkHalf(0x3fff), toSocket),
    load8(R1, R10, ipAt + 9),
    jeq.imm(R1, IPPROTO_TCP, 'inner-tcp'),
    jne.imm(R1, IPPROTO_UDP, toSocket),
    ...readPacket(innerAt + 20, transportAt, 8),
    jne.imm(R0, 0, toSocket),
    goto('inner-read'),
    label('inner-tcp'),
    ...readPacket(innerAt + 20, transportAt, 14),
    jne.imm(R0, 0, toSocket),
    label('inner-read'),
  ];
}

/**
 * What comes to the address that the tunnel has here is of a flow seen in ingress; else it went out
 * first, unless it only passes through this host. R8 becomes the direction.
 */
function findFlow(toSocket: string): Item[] {
  const lookup: Item[] = [
    loadMap(R1, 'flows'),
    mov.reg(R2, R10),
    add.imm(R2, keyAt),
    call(helper.map_lookup_elem),
  ];
  return [
    load32(R5, R10, keyAt + flowKey.local),
    store32(R10, outerAt, R5),
    load32(R1, R10, ipAt + 16),
    jeq.reg(R1, R5, 'inner-ingress'),
    ...writeKey(Direction.Egress),
    mov.imm(R8, Direction.Egress),
    ...lookup,
    jne.imm(R0, 0, 'inner-found'),
    label('inner-ingress'),
    ...writeKey(Direction.Ingress),
    mov.imm(R8, Direction.Ingress),
    ...lookup,
    jeq.imm(R0, 0, toSocket),
    label('inner-found'),
    load32(R1, R0, flowValue.verdict),
    jne.imm(R1, KernelVerdict.Carry, toSocket),
  ];
}

/** In the place of the outer packet's, or of the other direction's. */
function writeKey(direction: Direction): Item[] {
  return [
    ...emptySlots(keyAt, flowKey.size),
    load8(R1, R10, ipAt + 9),
    store32(R10, keyAt + flowKey.protocol, R1),
    ...keyAddresses(direction),
    ...keyPorts(direction),
  ];
}

/** The cookie, and the address of ours that the flow's packets were sent from. */
function onlyItsOwn({ cookieMask, headers }: TunnelTemplate, toSocket: string): Item[] {
  const mask = viewOf(cookieMask);
  const cookie: Item[] = [];
  for (let at = 0; at + 4 <= headers[0].length; at += 4) {
    if (mask.getInt32(at, true) === 0) continue;
    cookie.push(
      // The first word of the header gave way to the address.
      load32(R1, R10, outerAt + at),
      load32(R2, R7, carriedRecord.cookie),
      xor32.reg(R1, R2),
      and32.imm(R1, mask.getInt32(at, true)),
      jne32.imm(R1, 0, toSocket),
    );
  }
  return [
    ...cookie,
    ...findPeer(R5),
    load16(R1, R5, carriedPeer.innerMtu),
    jeq.imm(R1, 0, toSocket),
    load32(R1, R5, carriedPeer.source),
    load32(R2, R10, outerAt),
    jne.reg(R1, R2, toSocket),
  ];
}

/**
 * A checksum that was verified was the outer one; the inner one is the receiver's to verify. The
 * inner IPv4 header has to be in the linear part, where a NIC's driver may have put no more than
 * the Ethernet header: `redirect_neigh` looks for the destination there and does not pull it.
 */
function takeOuterOff(outerLength: number): Item[] {
  return [
    mov.reg(R1, R6),
    mov.imm(R2, ethernetLength + outerLength + 20),
    call(helper.skb_pull_data),
    jne.imm(R0, 0, 'hand-back'),
    mov.reg(R1, R6),
    mov.imm(R2, -outerLength),
    mov.imm(R3, BPF_ADJ_ROOM_MAC),
    mov.imm(R4, BPF_F_ADJ_ROOM_FIXED_GSO),
    call(helper.skb_adjust_room),
    jne.imm(R0, 0, 'hand-back'),
  ];
}

function deliver(): Item[] {
  return [
    jeq.imm(R8, Direction.Egress, 'back-egress'),
    ...finish(TC_ACT_UNSPEC, CounterKind.carriedBack),
    label('back-egress'),
    ...sendMarked(load32(R1, R7, carriedRecord.interfaceIndex), CounterKind.carriedBack),
  ];
}
