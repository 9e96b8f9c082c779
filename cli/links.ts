/** The workload's interfaces and their addresses, as the kernel tells them now. */
import { networkInterfaces } from 'node:os';
import type { Settings } from '../engine/config.ts';
import { addressesOf, defaultRouteInterface, interfaceByName } from '../linux/netlink.ts';
import { parseAddress } from '../parsers/text.ts';
import type { Links } from './host-policy.ts';

/** @throws SystemError when there is no such interface, or no default route */
export function findLinks(config: Settings): Links {
  const { interfaces: names } = config.workload;
  const interfaces = names.length === 0 ? [defaultRouteInterface()] : names.map(interfaceByName);
  const addresses = interfaces.map(({ index }) => addressesOf(index));
  const broadcasts = addresses.flatMap(({ ipv4 }) => ipv4.map(({ broadcast }) => broadcast));
  return {
    interfaces,
    broadcasts: broadcasts.filter((address) => address !== 0),
    globalIpv6: addresses.some(({ globalIpv6 }) => globalIpv6),
  };
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
