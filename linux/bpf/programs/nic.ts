/**
 * The programs on a workload's interface, one on each of its hooks:
 *
 * 1. our mark: it comes from the engine; take the mark off and let it go on
 * 2. not for this host, or not IPv4: go on (IPv6 may be dropped)
 * 3. read the header, and the ports of a TCP or UDP packet that is no fragment
 * 4. never redirected: go on
 * 5. the engine's heartbeat and mode
 * 6. a remembered verdict, or a flow that is carried (carry-out.ts, carry-back.ts)
 * 7. into the TUN device
 *
 * `Go on` is TC_ACT_UNSPEC: other programs and filters on the hook still see the packet.
 */
import { Direction, KernelVerdict, SteeringMode } from '../../../engine/io.ts';
import {
  BPF_PROG_TYPE_SCHED_CLS,
  helper,
  PACKET_LOOPBACK,
  PACKET_OTHERHOST,
  skb,
  TC_ACT_SHOT,
  TC_ACT_UNSPEC,
} from '../../abi/bpf.ts';
import {
  add,
  and,
  and32,
  call,
  exit,
  goto,
  type Item,
  jeq,
  jne,
  jne32,
  jset,
  label,
  load8,
  load16,
  load32,
  loadMap,
  lsh,
  mov,
  mov32,
  type Program,
  R0,
  R1,
  R2,
  R3,
  R6,
  R7,
  R8,
  R9,
  R10,
  store32,
  storeImmediate32,
} from '../asm.ts';
import {
  CounterKind,
  controlPage,
  type Exclusions,
  flowKey,
  flowValue,
  markBase,
  markMask,
  networkHalf,
  networkKey,
  openingQueueOf,
  queueOf,
  type SteeringPolicy,
} from '../policy.ts';
import { carryBack } from './carry-back.ts';
import { carryOut } from './carry-out.ts';
import { finish, finishing } from './count.ts';
import {
  addressExclusions,
  fragmentExclusions,
  IPPROTO_TCP,
  IPPROTO_UDP,
  ipv6Exclusions,
  portExclusions,
} from './exclusions.ts';
import {
  counterAt,
  ethernetLength,
  ipAt,
  ipv6At,
  keyAt,
  networkAt,
  transportAt,
  typeAt,
  workerAt,
} from './frame.ts';
import { jumpUnlessAlive } from './heartbeat.ts';
import { keyAddresses, keyPorts } from './key.ts';
import { readPacket, readPacketFromR2 } from './read-packet.ts';
import { copy32, emptySlots, inSlots, put32 } from './slots.ts';
import { addWorkersQueues, chooseWorker } from './spread.ts';

const ETH_P_IP = 0x0800;
const ETH_P_IPV6 = 0x86dd;
const IPPROTO_ICMPV6 = 58;

const transportLength = { tcp: 14, udp: 8 } as const;
const tcpFlagsAt = transportAt + 13;

/**
 * What R7 says of the key: without ports; whole; whole, and of a packet that opens a connection.
 */
const keyPartial = 0;
const keyWhole = 1;
const keyOpens = 2;

/** Registers that live long: R6 context, R7 the kind of key, R8 protocol, R9 control. */
export function nicProgram(policy: SteeringPolicy, ordinal: number, direction: Direction): Program {
  const items: Item[] = [
    mov.reg(R6, R1),
    ...takeOurMark(),
    ...(direction === Direction.Ingress ? onlyToUs() : []),
    ...onlyIpv4(policy),
    ...readAddresses(direction),
    ...addressExclusions(policy, direction),
    ...readPorts(direction),
    ...portExclusions(policy, direction, policy.acceleration && 'from-tunnel'),
    goto('control'),
    label('fragment'),
    ...fragmentExclusions(policy, direction),
    label('control'),
    ...(policy.spread ? chooseWorker(policy.spread, keyAt, workerAt) : []),
    ...obeyControl(policy),
    ...obeyVerdict(policy),
    ...redirect(policy, queueOf(ordinal, direction), openingQueueOf(policy, ordinal, direction)),
    ...carry(policy, ordinal, direction),
    ...ends(policy),
    ...finishing(counterAt),
  ];
  const name = direction === Direction.Egress ? 'mp_egress' : 'mp_ingress';
  return { name, type: BPF_PROG_TYPE_SCHED_CLS, items };
}

function takeOurMark(): Item[] {
  return [
    load32(R2, R6, skb.mark),
    and32.imm(R2, markMask),
    jne32.imm(R2, markBase, 'not-ours'),
    mov.imm(R2, 0),
    store32(R6, skb.mark, R2),
    goto('go-on'),
    label('not-ours'),
  ];
}

/**
 * A frame to another host, seen by a promiscuous interface, must not come back as one to us. Our
 * own multicast, looped back by the kernel, has no Ethernet header. A unicast packet in a multicast
 * frame is the host's to accept, so it is steered like any other.
 */
export function onlyToUs(): Item[] {
  return [
    load32(R2, R6, skb.pkt_type),
    jeq.imm(R2, PACKET_OTHERHOST, 'go-on'),
    jeq.imm(R2, PACKET_LOOPBACK, 'go-on'),
  ];
}

export function onlyIpv4(policy: Pick<Exclusions, 'ipv6'>): Item[] {
  const drop = policy.ipv6 === 'drop';
  return [
    load32(R2, R6, skb.vlan_present),
    jne.imm(R2, 0, 'go-on'),
    load32(R2, R6, skb.protocol),
    jeq.imm(R2, networkHalf(ETH_P_IP), 'ipv4'),
    ...(drop ? [jne.imm(R2, networkHalf(ETH_P_IPV6), 'go-on'), ...dropIpv6()] : []),
    label('go-on'),
    mov.imm(R0, TC_ACT_UNSPEC),
    exit(),
    label('ipv4'),
  ];
}

function dropIpv6(): Item[] {
  return [
    ...readPacket(ethernetLength, ipv6At, 40),
    jne.imm(R0, 0, 'ipv6-dropped'),
    mov.imm(R1, 0),
    load8(R2, R10, ipv6At + 6),
    jne.imm(R2, IPPROTO_ICMPV6, 'ipv6-typed'),
    ...readPacket(ethernetLength + 40, typeAt, 1),
    jne.imm(R0, 0, 'ipv6-dropped'),
    load8(R1, R10, typeAt),
    label('ipv6-typed'),
    ...ipv6Exclusions(ipv6At),
    label('ipv6-dropped'),
    ...finish(TC_ACT_SHOT, CounterKind.droppedIpv6),
  ];
}

/** Fills the key but for its ports. A packet without a whole header is the kernel's to refuse. */
export function readAddresses(direction: Direction): Item[] {
  return [
    ...readPacket(ethernetLength, ipAt, 20),
    jne.imm(R0, 0, 'excluded'),
    // Without CAP_PERFMON nothing may be read that was not written, by whichever branch a processor
    // might speculate its way here (verifiers before Linux 6.16 follow it).
    ...emptySlots(transportAt, 16),
    ...keyAddresses(direction),
    load8(R8, R10, ipAt + 9),
    storeImmediate32(R10, keyAt + flowKey.localPort, 0),
    // Writes the padding as well: a key is compared whole.
    store32(R10, keyAt + flowKey.protocol, R8),
    mov.imm(R7, keyPartial),
  ];
}

/**
 * Falls through with the ports in the key, else jumps to `fragment` (more fragments, or not the
 * first one) or `control`. R7 becomes keyWhole or keyOpens.
 */
export function readPorts(direction: Direction): Item[] {
  return [
    load16(R1, R10, ipAt + 6),
    jset.imm(R1, networkHalf(0x3fff), 'fragment'),
    load8(R2, R10, ipAt),
    and.imm(R2, 0x0f),
    lsh.imm(R2, 2),
    add.imm(R2, ethernetLength),
    jeq.imm(R8, IPPROTO_TCP, 'read-tcp'),
    jne.imm(R8, IPPROTO_UDP, 'control'),
    ...readPacketFromR2(transportAt, transportLength.udp),
    jne.imm(R0, 0, 'control'),
    goto('may-look-up'),
    label('read-tcp'),
    ...readPacketFromR2(transportAt, transportLength.tcp),
    jne.imm(R0, 0, 'control'),
    load8(R1, R10, tcpFlagsAt),
    and.imm(R1, 0x12),
    jne.imm(R1, 0x02, 'may-look-up'),
    mov.imm(R7, keyOpens),
    goto('with-ports'),
    label('may-look-up'),
    mov.imm(R7, keyWhole),
    label('with-ports'),
    ...keyPorts(direction),
  ];
}

function obeyControl(policy: SteeringPolicy): Item[] {
  return [
    ...jumpUnlessAlive(policy, 'agent-dead', policy.onBoot === 'drop' ? 'starting' : undefined),
    load32(R1, R9, controlPage.mode),
    jeq.imm(R1, SteeringMode.Pass, 'mode-pass'),
    jeq.imm(R1, SteeringMode.Drop, 'mode-drop'),
  ];
}

/**
 * A packet that opens a connection deletes what was remembered of the last one on its ports, which
 * must not rule it. Then, unless everything is to come up, the networks that pass, and the verdict.
 */
function obeyVerdict(policy: SteeringPolicy): Item[] {
  return [
    jne.imm(R7, keyOpens, 'ask'),
    loadMap(R1, 'flows'),
    mov.reg(R2, R10),
    add.imm(R2, keyAt),
    call(helper.map_delete_elem),
    label('ask'),
    load32(R1, R9, controlPage.mode),
    jeq.imm(R1, SteeringMode.RedirectAll, 'redirect'),
    ...obeyNetworks(),
    jne.imm(R7, keyWhole, 'redirect'),
    loadMap(R1, 'flows'),
    mov.reg(R2, R10),
    add.imm(R2, keyAt),
    call(helper.map_lookup_elem),
    jeq.imm(R0, 0, 'redirect'),
    load32(R3, R0, flowValue.verdict),
    ...(policy.acceleration === undefined ? [] : [jeq.imm(R3, KernelVerdict.Carry, 'carry')]),
    load32(R1, R0, flowValue.generation),
    load32(R2, R9, controlPage.generation),
    jne.reg(R1, R2, 'redirect'),
    jeq.imm(R3, KernelVerdict.Pass, 'verdict-pass'),
    jeq.imm(R3, KernelVerdict.Drop, 'verdict-drop'),
  ];
}

function obeyNetworks(): Item[] {
  return [
    ...inSlots([
      put32(networkAt + networkKey.length, 32),
      copy32(networkAt + networkKey.address, load32(R1, R10, keyAt + flowKey.remote)),
    ]),
    loadMap(R1, 'networks'),
    mov.reg(R2, R10),
    add.imm(R2, networkAt),
    call(helper.map_lookup_elem),
    jeq.imm(R0, 0, 'no-network'),
    load32(R1, R0, 0),
    load32(R2, R9, controlPage.policyGeneration),
    jeq.reg(R1, R2, 'network-pass'),
    label('no-network'),
  ];
}

function redirect(policy: SteeringPolicy, queue: number, openingQueue: number): Item[] {
  return [
    label('redirect'),
    mov32.imm(R1, markBase | queue),
    jne.imm(R7, keyOpens, 'queue-chosen'),
    mov32.imm(R1, markBase | openingQueue),
    label('queue-chosen'),
    ...addWorkersQueues(policy, workerAt),
    store32(R6, skb.mark, R1),
    mov.imm(R1, policy.tun.index),
    mov.imm(R2, 0),
    call(helper.redirect),
    mov.reg(R7, R0),
    mov.imm(R8, CounterKind.redirected),
    goto('finish'),
  ];
}

/** Established flows, without the engine; what is not plain goes to it as if there were none. */
function carry(policy: SteeringPolicy, ordinal: number, direction: Direction): Item[] {
  const { acceleration, interfaces } = policy;
  if (acceleration === undefined) return [];
  return [
    ...carryOut(acceleration.tunnel, direction, 'not-carried'),
    label('not-carried'),
    mov.imm(R7, keyWhole),
    goto('redirect'),
    ...(direction === Direction.Ingress
      ? carryBack(policy, acceleration.tunnel, interfaces[ordinal]!, 'excluded')
      : []),
  ];
}

function ends(policy: SteeringPolicy): Item[] {
  const agentDead =
    policy.onAgentFailure === 'pass'
      ? finish(TC_ACT_UNSPEC, CounterKind.passedAgentDead)
      : finish(TC_ACT_SHOT, CounterKind.droppedAgentDead);
  return [
    label('agent-dead'),
    ...agentDead,
    ...(policy.onBoot === 'drop'
      ? [label('starting'), ...finish(TC_ACT_SHOT, CounterKind.droppedStarting)]
      : []),
    label('mode-pass'),
    ...finish(TC_ACT_UNSPEC, CounterKind.passedMode),
    label('mode-drop'),
    ...finish(TC_ACT_SHOT, CounterKind.droppedMode),
    label('network-pass'),
    ...finish(TC_ACT_UNSPEC, CounterKind.passedNetwork),
    label('verdict-pass'),
    ...finish(TC_ACT_UNSPEC, CounterKind.passedVerdict),
    label('verdict-drop'),
    ...finish(TC_ACT_SHOT, CounterKind.droppedVerdict),
    label('excluded'),
    ...finish(TC_ACT_UNSPEC, CounterKind.excluded),
  ];
}
