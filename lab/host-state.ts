/**
 * What a host looks like from outside: everything that an agent could have changed on it. Taken
 * before the agent starts and after it stops; the two must be equal. Read by other people's
 * programs (ip, ethtool, nft, sysctl, tc) as far as there are any.
 *
 * Left out is what changes by itself: counters, lifetimes of addresses, neighbours, the route
 * cache, and the number of connections that the kernel tracks.
 */
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import type { Namespace } from './namespace.ts';

/** One line for each fact, sorted within its section, so that a difference names itself. */
export type HostState = ReadonlyMap<string, readonly string[]>;

const changesByItself = new Set([
  'preferred_life_time',
  'valid_life_time',
  'expires',
  'used',
  'age',
  'promiscuity',
  'allmulti',
]);

const tcxFile = fileURLToPath(new URL('./tcx.js', import.meta.url));
const volatileSysctls = /nf_conntrack_count|\.stable_secret|fib_sync_mem|\.netdev_rss_key/;

/** Takes about a quarter of a second. Programs that are not installed leave their section empty. */
export function readHostState(host: Namespace): HostState {
  const links = JSON.parse(host.must('ip', ['-j', 'link', 'show'])) as Link[];
  const names = links.map((link) => link.ifname).sort();
  return new Map([
    ['ip link', ipFacts(host, ['-d', 'link', 'show'])],
    ['ip addr', ipFacts(host, ['addr', 'show'])],
    ['ip rule', ipFacts(host, ['rule', 'show'])],
    ['ip -6 rule', ipFacts(host, ['-6', 'rule', 'show'])],
    ['ip route', ipFacts(host, ['route', 'show', 'table', 'all'])],
    ['ip -6 route', ipFacts(host, ['-6', 'route', 'show', 'table', 'all'])],
    ['ethtool -k', names.flatMap((name) => prefixed(name, lines(host, 'ethtool', ['-k', name])))],
    ['nft', lines(host, 'nft', ['list', 'ruleset'])],
    ['sysctl', sysctls(host)],
    ['tc qdisc', lines(host, 'tc', ['qdisc', 'show'])],
    ['tc filter', names.flatMap((name) => prefixed(name, filters(host, name)))],
    ['tcx', tcxPrograms(host, links)],
  ]);
}

/** Each difference as `section: - line` (only before) or `section: + line` (only after). */
export function compareHostStates(before: HostState, after: HostState): string[] {
  const differences: string[] = [];
  for (const section of new Set([...before.keys(), ...after.keys()])) {
    const old = before.get(section) ?? [];
    const now = after.get(section) ?? [];
    const gone = old.filter((line) => !now.includes(line));
    const come = now.filter((line) => !old.includes(line));
    differences.push(...gone.map((line) => `${section}: - ${line}`));
    differences.push(...come.map((line) => `${section}: + ${line}`));
  }
  return differences;
}

/** `eth0@if7` in a listing is `eth0` here. */
type Link = { readonly ifname: string; readonly ifindex: number };

/** No tool of others is installed everywhere for this one: see lab/tcx.ts. */
function tcxPrograms(host: Namespace, links: readonly Link[]): string[] {
  const asked = links.map(({ ifname, ifindex }) => `${ifname}:${ifindex}`);
  return lines(host, process.execPath, [tcxFile, ...asked]).sort();
}

function ipFacts(host: Namespace, args: readonly string[]): string[] {
  const text = output(host, 'ip', ['-j', ...args]).trim();
  const facts = text === '' ? [] : (JSON.parse(text) as unknown[]);
  return facts.map((fact) => JSON.stringify(fact, withoutVolatile)).sort();
}

function withoutVolatile(key: string, value: unknown): unknown {
  return changesByItself.has(key) ? undefined : value;
}

function sysctls(host: Namespace): string[] {
  return lines(host, 'sysctl', ['-a', '-e'])
    .filter((line) => line.startsWith('net.') && !volatileSysctls.test(line))
    .sort();
}

function filters(host: Namespace, name: string): string[] {
  const hooks = ['root', 'ingress', 'egress'];
  return hooks.flatMap((hook) => lines(host, 'tc', ['filter', 'show', 'dev', name, hook]));
}

function prefixed(name: string, facts: readonly string[]): string[] {
  return facts.map((fact) => `${name} ${fact}`);
}

function lines(host: Namespace, command: string, args: readonly string[]): string[] {
  return output(host, command, args)
    .split('\n')
    .map((line) => line.trimEnd())
    .filter((line) => line !== '');
}

/**
 * Standard output, whatever the exit code: `sysctl -a` and `tc filter` complain about some items.
 */
function output(host: Namespace, command: string, args: readonly string[]): string {
  return spawnSync('nsenter', [`--net=${host.path}`, command, ...args], {
    encoding: 'utf8',
    maxBuffer: 64 * 1024 * 1024,
  }).stdout;
}
