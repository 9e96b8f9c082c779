/** The workload's interfaces and their addresses, as the kernel tells them now. */
import { networkInterfaces } from 'node:os';
import type { Settings } from '../engine/config.ts';
import { SystemError } from '../linux/errors.ts';
import {
  addressesOf,
  defaultRouteInterface,
  type InterfaceAddresses,
  interfaceByName,
  listInterfaces,
  routeTo,
} from '../linux/netlink.ts';
import { parseAddress } from '../parsers/text.ts';
import type { Links } from './host-policy.ts';

/** @throws SystemError when there is no such interface, or no default route */
export function findLinks(config: Settings): Links {
  const { interfaces: names } = config.workload;
  const interfaces = names.length === 0 ? [defaultRouteInterface()] : names.map(interfaceByName);
  const addresses = interfaces.map(({ index }) => addressesOf(index));
  return {
    interfaces,
    broadcasts: broadcastsOf(addresses),
    globalIpv6: addresses.some(({ globalIpv6 }) => globalIpv6),
  };
}

/** The interfaces of `before` as they are now, with index 0 where one is not there. */
export function linksNow(before: Links): Links {
  const present = listInterfaces();
  const interfaces = before.interfaces.map((was) => {
    const now = present.find(({ name, type }) => name === was.name && type === was.type);
    return now ?? { ...was, index: 0 };
  });
  const addresses = interfaces
    .filter(({ index }) => index !== 0)
    .map(({ index }) => addressesOf(index));
  return {
    interfaces,
    broadcasts: broadcastsOf(addresses),
    globalIpv6: addresses.some(({ globalIpv6 }) => globalIpv6),
  };
}

/** Our address on the way to `firewall`, int32; 0 when there is no route. */
export function sourceTo(firewall: number): number {
  try {
    return routeTo(firewall).source;
  } catch (error) {
    if (error instanceof SystemError && error.code === 'ERR_NO_ROUTE') return 0;
    throw error;
  }
}

/** Directed broadcast addresses. */
export function broadcastsOf(addresses: readonly InterfaceAddresses[]): number[] {
  return addresses
    .flatMap(({ ipv4 }) => ipv4.map(({ broadcast }) => broadcast))
    .filter((address) => address !== 0);
}

/** Of a host that we know nothing about. */
export const noLinks: Links = { interfaces: [], broadcasts: [], globalIpv6: false };

/** For a file of another host: interfaces that are not here have no broadcast addresses. */
export function findLinksIfAny(config: Settings): Links {
  try {
    return findLinks(config);
  } catch {
    return noLinks;
  }
}

/** Every IPv4 address of this host, as int32. */
export function ownAddresses(): readonly number[] {
  return Object.values(networkInterfaces())
    .flatMap((addresses) => addresses ?? [])
    .flatMap(({ address, family }) => (family === 'IPv4' ? [parseAddress(address)] : []))
    .filter((address) => address !== undefined);
}
