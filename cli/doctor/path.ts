/** The way to a firewall: the route, the routers on it, what they let through, and telemetry. */
import { constants } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Config, type FirewallConfig, tunnelPortsOf } from '../../engine/config.ts';
import { TelemetryClient, type TelemetryCredentials } from '../../engine/telemetry-client.ts';
import { contentTypes, emptyReport } from '../../engine/telemetry-report.ts';
import { type Interface, listInterfaces, type Route, routeTo } from '../../linux/netlink.ts';
import { type PathAnswer, PathProbe } from '../../linux/path-probe.ts';
import { formatAddress } from '../../parsers/text.ts';
import { innerMtu } from '../../tunnel/encapsulation.ts';
import { loadCredentials } from '../credentials.ts';
import { createEncapsulation } from '../data-path.ts';
import { tunName } from '../host-policy.ts';
import { broken, brokenBy, type Finding, fine, risk } from './finding.ts';

/** A router that answers does so within this; one that does not is not waited for longer. */
const answerMs = 300;
const maximumHops = 30;
/** Routers in a row that say nothing: what comes after them will not be heard either. */
const silentHops = 3;
const ethernetMtu = 1500;

export async function pathFindings(config: Config, firewall: FirewallConfig): Promise<Finding[]> {
  const check = `route to ${firewall.name}`;
  try {
    const route = routeTo(firewall.address);
    const link = listInterfaces().find(({ index }) => index === route.interfaceIndex);
    const finding = routeFinding(check, firewall, route, link);
    if (finding.level === 'broken') return [finding];
    const telemetry = await telemetryFinding(config, firewall);
    return [finding, ...(await tunnelFindings(config, firewall, link)), telemetry];
  } catch (error) {
    return [brokenBy(check, error)];
  }
}

function routeFinding(
  check: string,
  { address }: FirewallConfig,
  route: Route,
  link: Interface | undefined,
): Finding {
  const text = formatAddress(address);
  if (route.local) {
    const advice = 'firewalls[].address must be another host: this one cannot inspect itself.';
    return broken(check, `${text} is an address of this host`, advice);
  }
  if (link?.name === tunName) {
    const advice = 'Remove the route that leads into the device of the agent (ip route get).';
    return broken(check, `the tunnel would go through itself: ${text} by ${tunName}`, advice);
  }
  const by = route.gateway === 0 ? 'on the link' : `by ${formatAddress(route.gateway)}`;
  return fine(check, `${text} ${by}, interface ${link?.name ?? route.interfaceIndex}`);
}

async function telemetryFinding(config: Config, firewall: FirewallConfig): Promise<Finding> {
  const check = `telemetry to ${firewall.name}`;
  const { telemetry } = firewall;
  let credentials: TelemetryCredentials;
  try {
    credentials = loadCredentials(telemetry);
  } catch (error) {
    return brokenBy(check, error);
  }
  const client = new TelemetryClient(telemetry.url, credentials);
  const started = performance.now();
  try {
    const { encoding, timeoutMs } = config.telemetry;
    const failure = await client.post(emptyReport(encoding), contentTypes[encoding], timeoutMs);
    const ms = Math.round(performance.now() - started);
    if (failure === undefined) return fine(check, `${telemetry.url} answers in ${ms} ms`);
    const advice =
      'While this fails nothing is redirected (onTelemetryLoss). docs/configuration.md';
    return broken(check, `${telemetry.url}: ${failure.message}`, advice);
  } finally {
    client.close();
  }
}

async function tunnelFindings(
  config: Config,
  firewall: FirewallConfig,
  link: Interface | undefined,
): Promise<Finding[]> {
  const findings: Finding[] = [];
  for (const port of tunnelPortsOf(config.tunnel)) {
    const probe = new PathProbe(firewall.address, port);
    try {
      const reach = reachFinding(firewall, port, await trace(probe));
      findings.push(reach);
      if (reach.level === 'broken') return findings;
      // The way is the same to both ports.
      if (findings.length > 1) continue;
      findings.push(await mtuFinding(probe, config, firewall, link?.mtu ?? ethernetMtu));
    } finally {
      probe.close();
    }
  }
  return findings;
}

type Trace = {
  /** Addresses of the routers that answered, nearest first; 0 for one that did not. */
  readonly routers: readonly number[];
  /** What ended it: undefined when nobody answered any more. */
  readonly last: PathAnswer | undefined;
  /** The kernel would not send: its errno, else 0. */
  readonly errno: number;
};

/** One datagram for each hop, as traceroute does. The far end of a tunnel says nothing. */
async function trace(probe: PathProbe): Promise<Trace> {
  const routers: number[] = [];
  let silent = 0;
  for (let ttl = 1; ttl <= maximumHops && silent < silentHops; ttl++) {
    const errno = probe.send(64, ttl);
    if (errno !== 0) return { routers, last: undefined, errno };
    const answer = await waitForAnswer(probe);
    if (answer !== undefined && answer.kind !== 'expired') {
      return { routers: routers.slice(0, ttl - 1), last: answer, errno: 0 };
    }
    silent = answer === undefined ? silent + 1 : 0;
    routers.push(answer?.from ?? 0);
  }
  return { routers: routers.slice(0, routers.length - silent), last: undefined, errno: 0 };
}

async function waitForAnswer(probe: PathProbe): Promise<PathAnswer | undefined> {
  const deadline = performance.now() + answerMs;
  for (;;) {
    const answer = probe.answer();
    if (answer !== undefined || performance.now() > deadline) return answer;
    await sleep(5);
  }
}

function reachFinding(firewall: FirewallConfig, port: number, { errno, last, routers }: Trace) {
  const check = `tunnel to ${firewall.name}`;
  const target = `${formatAddress(firewall.address)}:${port}`;
  const way = routers.length === 0 ? 'the next hop' : `beyond ${routers.map(nameOf).join(', ')}`;
  if (errno !== 0) {
    const name = Object.entries(constants.errno).find(([, value]) => value === errno)?.[0];
    const advice = 'A local packet filter forbids it, or the route is gone (nft list ruleset).';
    return broken(check, `the kernel does not send to UDP ${target} (${name ?? errno})`, advice);
  }
  if (last?.kind === 'unreachable') {
    const says = `${nameOf(last.from)} says that it cannot reach it (ICMP 3/${last.code})`;
    const advice = 'Look at that router: its route to the firewall, or its packet filter.';
    return broken(check, `UDP ${target}: ${says}`, advice);
  }
  if (last?.kind === 'port-closed') {
    const advice = `Nothing listens on UDP ${port} there: the tunnel's port, or the firewall.`;
    return broken(check, `${nameOf(last.from)} refuses UDP ${target}`, advice);
  }
  return fine(check, `nobody refuses UDP ${target}: it is ${way}`);
}

function nameOf(address: number): string {
  return address === 0 ? 'a silent router' : formatAddress(address);
}

/** The largest packet that nobody on the way says is too big, and what of it is left inside. */
/**
 * @param linkMtu the interface's own: what the kernel has learned of the path has no router's name
 */
async function mtuFinding(
  probe: PathProbe,
  config: Config,
  firewall: FirewallConfig,
  linkMtu: number,
) {
  const check = `MTU to ${firewall.name}`;
  let length = config.tunnel.mtu === 0 ? linkMtu : Math.min(linkMtu, config.tunnel.mtu);
  let narrow = '';
  for (let attempt = 0; attempt < 8; attempt++) {
    while (probe.answer() !== undefined);
    if (probe.send(length, 64) !== 0) break;
    const answer = await waitForAnswer(probe);
    if (answer?.kind !== 'too-big' || answer.mtu >= length || answer.mtu < 68) break;
    length = answer.mtu;
    narrow = ` (${formatAddress(answer.from)} lets no more through)`;
  }
  const inner = innerMtu(length, createEncapsulation(config.tunnel));
  const words = `${length} bytes${narrow}, ${inner} of them for a packet of the workload`;
  if (inner >= 1280) return fine(check, words);
  return risk(check, words, 'A larger MTU between this host and the firewall saves packets.');
}
