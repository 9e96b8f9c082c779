/** What of this host matters to inspection: its interfaces, IPv6, bridges, its clock. */
import { existsSync, readFileSync } from 'node:fs';
import type { Config } from '../../engine/config.ts';
import { isClockSynchronised } from '../../linux/clock.ts';
import { listInterfaces } from '../../linux/netlink.ts';
import type { Links } from '../host-policy.ts';
import { findLinks } from '../links.ts';
import { brokenBy, type Finding, fine, risk } from './finding.ts';

export function hostFindings(config: Config): Finding[] {
  let links: Links;
  try {
    links = findLinks(config);
  } catch (error) {
    return [brokenBy('interfaces', error), clock()];
  }
  return [...interfaces(links), ipv6(config, links), ...bridges(), ...reversePath(links), clock()];
}

function interfaces({ interfaces: links }: Links): Finding[] {
  return links.map(({ mtu, name, up }) =>
    up
      ? fine('interfaces', `${name} is up, MTU ${mtu}`)
      : risk('interfaces', `${name} is down`, `ip link set ${name} up`),
  );
}

function ipv6({ workload }: Config, { globalIpv6 }: Links): Finding {
  if (!globalIpv6) return fine('IPv6', 'no global address on these interfaces');
  if (workload.ipv6 === 'drop') return fine('IPv6', 'dropped (workload.ipv6: drop)');
  const advice = 'workload.ipv6: drop, if nothing needs it; or take the addresses off.';
  return risk('IPv6', 'this host has it, and it goes past inspection', advice);
}

/** Containers of one bridge speak to each other without an interface of the workload. */
function bridges(): Finding[] {
  const names = listInterfaces()
    .map(({ name }) => name)
    .filter((name) => existsSync(`/sys/class/net/${name}/bridge`));
  if (names.length === 0) return [fine('bridges', 'none: no traffic stays inside this host')];
  const words = `what containers on ${names.join(', ')} say to each other stays there`;
  const advice = 'It never reaches the interfaces of the workload, so it is not inspected.';
  return [risk('bridges', words, advice)];
}

/** net.ipv4.conf: the larger of `all` and the interface's own holds (ip-sysctl.rst). */
function reversePath({ interfaces: links }: Links): Finding[] {
  const mode = (name: string) => {
    try {
      return Number(readFileSync(`/proc/sys/net/ipv4/conf/${name}/rp_filter`, 'utf8'));
    } catch {
      return 0;
    }
  };
  const words = ['off', 'strict', 'loose'] as const;
  return links.map(({ name }) => {
    const value = words[Math.max(mode('all'), mode(name))] ?? 'off';
    const reason = 'what the firewall returns arrives by the interface that it came by';
    return fine('rp_filter', `${value} on ${name}: it may stay so, ${reason}`);
  });
}

/** Certificates are judged by it, and logs are compared by it. */
function clock(): Finding {
  if (isClockSynchronised()) return fine('clock', 'synchronised');
  const advice = 'Run a time service (chrony, systemd-timesyncd): certificates have dates.';
  return risk('clock', 'the kernel does not know the time to be synchronised', advice);
}
