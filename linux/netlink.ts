/**
 * What we ask of the kernel's network configuration and the little we set, over rtnetlink. Cold
 * path. Addresses are int32 of their wire bytes. The calling thread's network namespace answers.
 */
import { constants } from 'node:os';
import { AF_INET, AF_INET6, IFF_UP } from './abi/net.ts';
import * as abi from './abi/netlink.ts';
import { callFailed, SystemError } from './errors.ts';
import { attributeText, NetlinkRequest, parseAttributes } from './netlink-message.ts';
import { dump, dumpFlags, exchange, requestChange } from './netlink-socket.ts';
import { LITTLE_ENDIAN } from './syscall.ts';

export type Interface = {
  readonly index: number;
  readonly name: string;
  readonly mtu: number;
  readonly up: boolean;
  /** ARPHRD_… of linux/if_arp.h: 1 is Ethernet. */
  readonly type: number;
  /** `veth`, `bond`; empty for hardware, also emulated. */
  readonly kind: string;
  /** `02:00:00:00:00:01`; empty when the interface has none. */
  readonly mac: string;
  /** Packets dropped on the way to the host and, for a TUN, for want of room in its queue. */
  readonly receiveDropped: number;
  readonly sendDropped: number;
};

export type InterfaceAddresses = {
  readonly ipv4: readonly {
    readonly address: number;
    readonly prefixLength: number;
    /** 0 when there is none (point to point, /31, /32). */
    readonly broadcast: number;
  }[];
  /** Whether an IPv6 address of global scope is set: IPv6 then goes past inspection. */
  readonly globalIpv6: boolean;
};

export type Route = {
  readonly interfaceIndex: number;
  /** 0 when the destination is on the link itself. */
  readonly gateway: number;
  /** The source address that the kernel would choose. */
  readonly source: number;
  /** Of the route if it says one, else of the interface; bytes of IPv4 packet. */
  readonly mtu: number;
  /** The destination is this host. */
  readonly local: boolean;
};

export type LinkSettings = {
  readonly up?: boolean;
  readonly mtu?: number;
  /** Packets that wait in the device's queue (txqueuelen). */
  readonly queueLength?: number;
  /** `none`: no link-local address, and with it no router solicitation. */
  readonly ipv6AddressGeneration?: 'none';
};

/** All interfaces of this network namespace, by index. */
export function listInterfaces(): Interface[] {
  const request = new NetlinkRequest(abi.RTM_GETLINK, dumpFlags, abi.ifinfomsg.size);
  return dump(request, 'RTM_GETLINK').map(({ payload }) => readInterface(payload));
}

/**
 * The Ethernet interface called `name`.
 * @throws SystemError ERR_NO_INTERFACE (names those that exist), ERR_INTERFACE_KIND
 */
export function interfaceByName(name: string): Interface {
  const all = listInterfaces();
  const found = all.find((link) => link.name === name);
  if (found === undefined) {
    throw new SystemError('ERR_NO_INTERFACE', `there is no interface ${name}`, {
      advice: `Name one of: ${all.map((link) => link.name).join(', ')}.`,
    });
  }
  if (found.type !== abi.ARPHRD_ETHER) {
    throw new SystemError(
      'ERR_INTERFACE_KIND',
      `${name} is not an Ethernet interface (its link type is ${found.type})`,
      { advice: 'Traffic can be redirected on Ethernet interfaces only.' },
    );
  }
  return found;
}

export function addressesOf(index: number): InterfaceAddresses {
  const request = new NetlinkRequest(abi.RTM_GETADDR, dumpFlags, abi.ifaddrmsg.size);
  const ipv4: InterfaceAddresses['ipv4'][number][] = [];
  let globalIpv6 = false;
  for (const { payload } of dump(request, 'RTM_GETADDR')) {
    if (payload.getUint32(abi.ifaddrmsg.ifa_index, LITTLE_ENDIAN) !== index) continue;
    const family = payload.getUint8(abi.ifaddrmsg.ifa_family);
    if (family === AF_INET6) {
      globalIpv6 ||= payload.getUint8(abi.ifaddrmsg.ifa_scope) === abi.RT_SCOPE_UNIVERSE;
    }
    if (family !== AF_INET) continue;
    const attributes = parseAttributes(payload, abi.ifaddrmsg.size);
    // IFA_LOCAL is ours; IFA_ADDRESS is the other end on a point-to-point link.
    const own = attributes.get(abi.IFA_LOCAL) ?? attributes.get(abi.IFA_ADDRESS);
    ipv4.push({
      address: own?.getInt32(0) ?? 0,
      prefixLength: payload.getUint8(abi.ifaddrmsg.ifa_prefixlen),
      broadcast: attributes.get(abi.IFA_BROADCAST)?.getInt32(0) ?? 0,
    });
  }
  return { ipv4, globalIpv6 };
}

/**
 * The interface of the IPv4 default route with the lowest metric in the main table.
 * @throws SystemError ERR_NO_ROUTE
 */
export function defaultRouteInterface(): Interface {
  const request = new NetlinkRequest(abi.RTM_GETROUTE, dumpFlags, abi.rtmsg.size);
  request.body.setUint8(abi.rtmsg.rtm_family, AF_INET);
  let best = { index: 0, priority: Number.POSITIVE_INFINITY };
  for (const { payload } of dump(request, 'RTM_GETROUTE')) {
    if (payload.getUint8(abi.rtmsg.rtm_dst_len) !== 0) continue;
    if (payload.getUint8(abi.rtmsg.rtm_table) !== abi.RT_TABLE_MAIN) continue;
    if (payload.getUint8(abi.rtmsg.rtm_type) !== abi.RTN_UNICAST) continue;
    const attributes = parseAttributes(payload, abi.rtmsg.size);
    const priority = attributes.get(abi.RTA_PRIORITY)?.getUint32(0, LITTLE_ENDIAN) ?? 0;
    const index = outputInterface(attributes);
    if (index !== 0 && priority < best.priority) best = { index, priority };
  }
  const found = listInterfaces().find((link) => link.index === best.index);
  if (found !== undefined) return found;
  throw new SystemError('ERR_NO_ROUTE', 'this host has no IPv4 default route', {
    advice: 'Name the interface whose traffic is to be redirected.',
  });
}

/**
 * How the kernel would send to `address` now.
 * @throws SystemError ERR_NO_ROUTE
 */
export function routeTo(address: number): Route {
  const request = new NetlinkRequest(abi.RTM_GETROUTE, abi.NLM_F_REQUEST, abi.rtmsg.size);
  request.body.setUint8(abi.rtmsg.rtm_family, AF_INET);
  request.body.setUint8(abi.rtmsg.rtm_dst_len, 32);
  request.address(abi.RTA_DST, address);
  const { messages, errno } = exchange(request, (received) => received.length > 0);
  const answer = messages[0];
  if (answer === undefined) throw noRoute(address, errno);
  const attributes = parseAttributes(answer.payload, abi.rtmsg.size);
  const interfaceIndex = outputInterface(attributes);
  const metrics = attributes.get(abi.RTA_METRICS);
  const routeMtu = metrics && parseAttributes(metrics, 0).get(abi.RTAX_MTU);
  const link = listInterfaces().find(({ index }) => index === interfaceIndex);
  return {
    interfaceIndex,
    gateway: attributes.get(abi.RTA_GATEWAY)?.getInt32(0) ?? 0,
    source: attributes.get(abi.RTA_PREFSRC)?.getInt32(0) ?? 0,
    mtu: routeMtu?.getUint32(0, LITTLE_ENDIAN) ?? link?.mtu ?? 0,
    local: answer.payload.getUint8(abi.rtmsg.rtm_type) === abi.RTN_LOCAL,
  };
}

/** Change an interface. @throws SystemError of the failing request */
export function setLink(index: number, settings: LinkSettings): void {
  const flags = abi.NLM_F_REQUEST | abi.NLM_F_ACK;
  const request = new NetlinkRequest(abi.RTM_NEWLINK, flags, abi.ifinfomsg.size);
  request.body.setInt32(abi.ifinfomsg.ifi_index, index, LITTLE_ENDIAN);
  if (settings.up !== undefined) {
    request.body.setUint32(abi.ifinfomsg.ifi_flags, settings.up ? IFF_UP : 0, LITTLE_ENDIAN);
    request.body.setUint32(abi.ifinfomsg.ifi_change, IFF_UP, LITTLE_ENDIAN);
  }
  if (settings.mtu !== undefined) request.number32(abi.IFLA_MTU, settings.mtu);
  if (settings.queueLength !== undefined) request.number32(abi.IFLA_TXQLEN, settings.queueLength);
  if (settings.ipv6AddressGeneration === 'none') {
    request.nest(abi.IFLA_AF_SPEC, () => {
      request.nest(AF_INET6, () => {
        request.number8(abi.IFLA_INET6_ADDR_GEN_MODE, abi.IN6_ADDR_GEN_MODE_NONE);
      });
    });
  }
  const errno = requestChange(request);
  if (errno !== 0) throw callFailed('rtnetlink(RTM_NEWLINK)', errno);
}

function outputInterface(attributes: Map<number, DataView>): number {
  const single = attributes.get(abi.RTA_OIF);
  if (single !== undefined) return single.getUint32(0, LITTLE_ENDIAN);
  const several = attributes.get(abi.RTA_MULTIPATH);
  if (several === undefined || several.byteLength < abi.rtnexthop.size) return 0;
  return several.getUint32(abi.rtnexthop.rtnh_ifindex, LITTLE_ENDIAN);
}

function noRoute(address: number, errno: number): SystemError {
  const dotted = [24, 16, 8, 0].map((shift) => (address >>> shift) & 255).join('.');
  return new SystemError('ERR_NO_ROUTE', `there is no route to ${dotted}`, {
    call: 'rtnetlink(RTM_GETROUTE)',
    errno,
    advice: 'Check the address and the routing table (ip route get).',
  });
}

function readInterface(payload: DataView): Interface {
  const attributes = parseAttributes(payload, abi.ifinfomsg.size);
  const stats = attributes.get(abi.IFLA_STATS64);
  const flags = payload.getUint32(abi.ifinfomsg.ifi_flags, LITTLE_ENDIAN);
  const about = attributes.get(abi.IFLA_LINKINFO);
  return {
    index: payload.getInt32(abi.ifinfomsg.ifi_index, LITTLE_ENDIAN),
    name: attributeText(attributes.get(abi.IFLA_IFNAME)),
    mtu: attributes.get(abi.IFLA_MTU)?.getUint32(0, LITTLE_ENDIAN) ?? 0,
    up: (flags & IFF_UP) !== 0,
    type: payload.getUint16(abi.ifinfomsg.ifi_type, LITTLE_ENDIAN),
    kind: attributeText(about && parseAttributes(about, 0).get(abi.IFLA_INFO_KIND)),
    mac: hexPairs(attributes.get(abi.IFLA_ADDRESS)),
    receiveDropped: counter(stats, abi.rtnl_link_stats64.rx_dropped),
    sendDropped: counter(stats, abi.rtnl_link_stats64.tx_dropped),
  };
}

function bytesOf(view: DataView | undefined): Uint8Array {
  if (view === undefined) return new Uint8Array(0);
  return new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
}

function hexPairs(view: DataView | undefined): string {
  return Array.from(bytesOf(view), (byte) => byte.toString(16).padStart(2, '0')).join(':');
}

function counter(stats: DataView | undefined, at: number): number {
  if (stats === undefined || stats.byteLength < at + 8) return 0;
  return Number(stats.getBigUint64(at, LITTLE_ENDIAN));
}

/** Errors by which a kernel without IPv6 answers a setting of IPv6. */
export function isIpv6Missing(error: unknown): boolean {
  return error instanceof SystemError && error.errno === constants.errno.EAFNOSUPPORT;
}
