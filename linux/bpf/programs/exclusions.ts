/**
 * Packets that are never redirected, as comparisons with constants: they run on the flow key that
 * the NIC program has put on its stack and jump to `excluded`. Every check reads the stack again
 * instead of keeping a register: what the verifier learns about a value dies with it, and its
 * states stay as many as there are checks.
 *
 * A fragment is never excluded by port, not even the first one: the others have no ports, and the
 * engine decides a datagram as a whole. Fragments between us and a firewall count as tunnel.
 */
import { Direction } from '../../../engine/io.ts';
import {
  and32,
  goto,
  type Item,
  jeq,
  jeq32,
  jgt,
  jlt,
  jne,
  jne32,
  label,
  load16,
  load32,
  R1,
  R2,
  R8,
  R10,
} from '../asm.ts';
import {
  type Exclusions,
  flowKey,
  type ManagementException,
  networkHalf,
  networkWord,
  type Prefix4,
} from '../policy.ts';
import { keyAt } from './frame.ts';

export const IPPROTO_TCP = 6;
export const IPPROTO_UDP = 17;

const local = keyAt + flowKey.local;
const remote = keyAt + flowKey.remote;
const localPort = keyAt + flowKey.localPort;
const remotePort = keyAt + flowKey.remotePort;

const anywhere: Prefix4 = { address: 0, length: 32 };
const loopback: Prefix4 = { address: 0x7f00_0000, length: 8 };
const linkLocal: Prefix4 = { address: 0xa9fe_0000, length: 16 };
const multicast: Prefix4 = { address: 0xe000_0000, length: 4 };
const limitedBroadcast: Prefix4 = { address: 0xffff_ffff, length: 32 };

function netmask(length: number): number {
  return length === 0 ? 0 : (-1 << (32 - length)) | 0;
}

/** The address at stack `at`, masked, in R2; returns the constant to compare it with. */
function loadMasked(at: number, prefix: Prefix4): [Item[], number] {
  const mask = netmask(prefix.length);
  const items: Item[] = [load32(R2, R10, at)];
  if (prefix.length < 32) items.push(and32.imm(R2, networkWord(mask)));
  return [items, networkWord(prefix.address & mask)];
}
function whenInside(at: number, prefix: Prefix4, target: string): Item[] {
  const [items, network] = loadMasked(at, prefix);
  return [...items, jeq32.imm(R2, network, target)];
}
function unlessInside(at: number, prefix: Prefix4, target: string): Item[] {
  const [items, network] = loadMasked(at, prefix);
  return [...items, jne32.imm(R2, network, target)];
}

/**
 * By address alone. Multicast and broadcast count as destinations only: as a source they are
 * forged, and must not be a way around the firewall.
 */
export function addressExclusions(policy: Exclusions, direction: Direction): Item[] {
  const destination = direction === Direction.Egress ? remote : local;
  const hosts = policy.broadcasts.map((address): Prefix4 => ({ address, length: 32 }));
  return [
    ...[multicast, limitedBroadcast, ...hosts].flatMap((prefix) =>
      whenInside(destination, prefix, 'excluded'),
    ),
    ...[anywhere, loopback, linkLocal].flatMap((prefix) => [
      ...whenInside(local, prefix, 'excluded'),
      ...whenInside(remote, prefix, 'excluded'),
    ]),
    ...policy.management.flatMap((exception, index) =>
      exception.port === 0 ? wholePrefix(exception, `management-${index}`) : [],
    ),
  ];
}

function wholePrefix(exception: ManagementException, next: string): Item[] {
  const protocol = exception.protocol === 0 ? [] : [jne.imm(R8, exception.protocol, next)];
  return [...protocol, ...whenInside(remote, exception.remote, 'excluded'), label(next)];
}

/** Of fragments: those of UDP between us and a firewall. R8 holds the protocol. */
export function fragmentExclusions(policy: Exclusions, direction: Direction): Item[] {
  return [
    jne.imm(R8, IPPROTO_UDP, 'no-tunnel-fragment'),
    ...tunnelPeers(policy, direction).flatMap((peer) => whenInside(remote, peer, 'excluded')),
    label('no-tunnel-fragment'),
  ];
}

function tunnelPeers(policy: Exclusions, direction: Direction): Prefix4[] {
  const firewalls = policy.firewalls.map(({ address }): Prefix4 => ({ address, length: 32 }));
  return direction === Direction.Egress ? firewalls : [...firewalls, ...policy.returnFrom];
}

/**
 * By ports, of whole TCP and UDP packets. R8 holds the protocol.
 *
 * @param tunnel where to jump with what comes from the tunnel
 */
export function portExclusions(
  policy: Exclusions,
  direction: Direction,
  tunnel = 'excluded',
): Item[] {
  return [
    jne.imm(R8, IPPROTO_UDP, 'not-udp'),
    ...dhcp(),
    ...(direction === Direction.Egress ? tunnelEgress(policy) : tunnelIngress(policy, tunnel)),
    label('not-udp'),
    jne.imm(R8, IPPROTO_TCP, 'not-tcp'),
    ...policy.telemetry.flatMap((endpoint, index) => [
      ...unlessInside(remote, { address: endpoint.address, length: 32 }, `telemetry-${index}`),
      load16(R1, R10, remotePort),
      jeq.imm(R1, networkHalf(endpoint.port), 'excluded'),
      label(`telemetry-${index}`),
    ]),
    label('not-tcp'),
    ...policy.management.flatMap((exception, index) =>
      exception.port === 0 ? [] : byPort(exception, `management-${index}`),
    ),
  ];
}

/** Both ports are 67 or 68 (RFC 2131 section 4.1): one alone would be a way around the firewall. */
function dhcp(): Item[] {
  const isDhcp = (at: number, target: string): Item[] => [
    load16(R1, R10, at),
    jeq.imm(R1, networkHalf(67), target),
    jeq.imm(R1, networkHalf(68), target),
    goto('not-dhcp'),
  ];
  return [
    ...isDhcp(localPort, 'dhcp-remote'),
    label('dhcp-remote'),
    ...isDhcp(remotePort, 'excluded'),
    label('not-dhcp'),
  ];
}

function tunnelEgress(policy: Exclusions): Item[] {
  return policy.firewalls.flatMap((firewall, index) => [
    ...unlessInside(remote, { address: firewall.address, length: 32 }, `firewall-${index}`),
    load16(R1, R10, remotePort),
    jeq.imm(R1, networkHalf(firewall.port), 'excluded'),
    label(`firewall-${index}`),
  ]);
}

function tunnelIngress(policy: Exclusions, target: string): Item[] {
  const [first, ...others] = policy.tunnelPorts;
  return [
    load16(R1, R10, localPort),
    ...others.map((port) => jeq.imm(R1, networkHalf(port), 'tunnel')),
    jne.imm(R1, networkHalf(first!), 'not-tunnel'),
    label('tunnel'),
    ...tunnelPeers(policy, Direction.Ingress).flatMap((peer) => whenInside(remote, peer, target)),
    label('not-tunnel'),
  ];
}

function byPort(exception: ManagementException, next: string): Item[] {
  const protocol = exception.protocol === 0 ? [] : [jne.imm(R8, exception.protocol, next)];
  const port = networkHalf(exception.port);
  return [
    ...protocol,
    ...unlessInside(remote, exception.remote, next),
    load16(R1, R10, localPort),
    jeq.imm(R1, port, 'excluded'),
    load16(R1, R10, remotePort),
    jeq.imm(R1, port, 'excluded'),
    label(next),
  ];
}

/**
 * Of IPv6, with its 40-byte header at stack `headerAt` and R1 the ICMPv6 type (or 0): what the
 * link needs goes on (RFC 4861 types 133 to 137, and link-local on either side), the rest falls
 * through.
 */
export function ipv6Exclusions(headerAt: number): Item[] {
  const isLinkLocal = (at: number): Item[] => [
    load16(R2, R10, at),
    and32.imm(R2, networkHalf(0xffc0)),
    jeq.imm(R2, networkHalf(0xfe80), 'go-on'),
  ];
  return [
    jlt.imm(R1, 133, 'no-neighbour-discovery'),
    jgt.imm(R1, 137, 'no-neighbour-discovery'),
    goto('go-on'),
    label('no-neighbour-discovery'),
    ...isLinkLocal(headerAt + 8),
    ...isLinkLocal(headerAt + 24),
  ];
}
