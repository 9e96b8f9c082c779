/**
 * The firewalls of the lab, started in a host and spoken to:
 *
 *     builtin   a program of ours that decapsulates, inspects and hair-pins (lab/firewall/)
 *     vxlan     the kernel's VXLAN device and its router: what arrives by the device leaves by it;
 *               nothing of ours touches a packet, and nftables blocks
 *     suricata  two VXLAN devices of the kernel and Suricata between them (lab/suricata/)
 *
 * All have the same telemetry endpoint, which is a program of ours.
 */
import { fileURLToPath } from 'node:url';
import type { Certificates } from './certificates.ts';
import type { Namespace } from './namespace.ts';
import { type Program, start, until } from './program.ts';
import { addresses } from './topology.ts';

export type FirewallKind = 'builtin' | 'vxlan' | 'suricata';
export type Encapsulation = 'geneve' | 'gwlb' | 'gcp' | 'vxlan';

export const tunnelPorts: Readonly<Record<Encapsulation, number>> = {
  geneve: 6081,
  gwlb: 6081,
  gcp: 6081,
  vxlan: 4789,
};
const telemetryPort = 443;
export const defaultVni = 48813;

/** A line of the firewall's standard output. */
export type FirewallEvent = { readonly at: number; readonly event: string } & Record<
  string,
  unknown
>;

export type AgentSettings = Readonly<Record<string, Readonly<Record<string, unknown>>>>;

/** A connection as the firewall counted it. */
export type FirewallFlow = {
  readonly protocol: string;
  /** `address:port` of who opened it, and of the other end. */
  readonly source: string;
  readonly target: string;
  readonly about: string;
  /** Why it was blocked; empty: allowed. */
  readonly reason: string;
  readonly toServer: number;
  readonly toClient: number;
};

export type FirewallOptions = {
  readonly encapsulation: Encapsulation;
  readonly certificates: Certificates;
  /** A file with allow and deny lists (lab/firewall/policy.ts); the builtin firewall only. */
  readonly policy?: string;
  readonly address?: string;
  /** `gateway`: as an appliance behind a gateway load balancer; the builtin firewall only. */
  readonly answer?: 'plain' | 'gateway';
  readonly onEvent?: (event: FirewallEvent) => void;
};

export type Firewall = {
  readonly kind: FirewallKind;
  readonly address: string;
  readonly program: Program;
  /** Everything it said so far, but counters and telemetry reports: the last of each. */
  readonly events: readonly FirewallEvent[];
  readonly counters: FirewallEvent | undefined;
  readonly telemetry: FirewallEvent | undefined;
  readonly telemetryCount: number;
  /** Sections of the agent's configuration that this firewall needs. */
  readonly agentSettings: AgentSettings;
  /** The connections that it has seen; a firewall of others that counts by itself. */
  readonly flows?: () => Promise<FirewallFlow[]>;
  /** A command of lab/firewall/main.ts; throws when it was refused. */
  command(line: string): Promise<void>;
  stop(): Promise<void>;
};

const mainFile = fileURLToPath(new URL('./firewall/main.js', import.meta.url));
const startLimitMs = 5000;

/** Ready to hair-pin and to take telemetry when this returns. */
export function startBuiltinFirewall(host: Namespace, options: FirewallOptions): Promise<Firewall> {
  return startProgram('builtin', host, options, ['--answer', options.answer ?? 'plain']);
}

/**
 * The kernel's VXLAN device on a host whose link carries only wire-sized packets (topology option
 * `offloads: 'firewall-off'`). One VNI for both ways; inner MAC addresses 02:00:00:00:00:01 at the
 * workload's end and 02:00:00:00:00:02 here. The inner TTL goes down by one, as at every router.
 */
export async function startVxlanFirewall(
  host: Namespace,
  workload: string,
  options: FirewallOptions & { readonly vni?: number },
): Promise<Firewall> {
  const vni = options.vni ?? defaultVni;
  const address = options.address ?? addresses.firewall;
  const neighbour = '169.254.99.1';
  host.ip(
    `link add vx0 address 02:00:00:00:00:02 type vxlan id ${vni} local ${address} ` +
      `remote ${workload} dstport ${tunnelPorts.vxlan} nolearning`,
  );
  // Redirects off: to the kernel, a packet that leaves as it came looks like a detour.
  const names = ['all.send_redirects', 'vx0.send_redirects', 'all.rp_filter', 'vx0.rp_filter'];
  const settings = names.map((name) => `net.ipv4.conf.${name}=0`);
  settings.push('net.ipv4.ip_forward=1', 'net.ipv6.conf.vx0.disable_ipv6=1');
  host.must('sysctl', ['-qw', ...settings]);
  host.ip('link set vx0 up');
  host.ip(`neigh add ${neighbour} lladdr 02:00:00:00:00:01 dev vx0 nud permanent`);
  host.ip(`route add default via ${neighbour} dev vx0 onlink table 100`);
  host.ip('rule add iif vx0 lookup 100');
  return await startProgram('vxlan', host, options, ['--no-data-path']);
}

/** Block inner packets to an address and TCP port on the kernel's firewall, by nftables. */
export function blockOnVxlanFirewall(host: Namespace, address: string, port: number): void {
  host.must('nft', [
    'add table ip lab; ' +
      'add chain ip lab forward { type filter hook forward priority 0; }; ' +
      `add rule ip lab forward ip daddr ${address} tcp dport ${port} counter drop`,
  ]);
}

/** How many packets `blockOnVxlanFirewall` stopped. */
export function countBlockedOnVxlanFirewall(host: Namespace): number {
  const rules = host.must('nft', ['list', 'table', 'ip', 'lab']);
  return [...rules.matchAll(/counter packets (\d+)/g)].reduce((sum, m) => sum + Number(m[1]), 0);
}

/** The telemetry endpoint, and the built-in data path unless `extra` leaves it out. */
export async function startProgram(
  kind: FirewallKind,
  host: Namespace,
  options: FirewallOptions,
  extra: readonly string[],
): Promise<Firewall> {
  const address = options.address ?? addresses.firewall;
  const firewall = {
    kind,
    address,
    agentSettings: {},
    events: [] as FirewallEvent[],
    counters: undefined as FirewallEvent | undefined,
    telemetry: undefined as FirewallEvent | undefined,
    telemetryCount: 0,
  };
  const take = (line: string) => {
    const event = JSON.parse(line) as FirewallEvent;
    if (event.event === 'counters') firewall.counters = event;
    else if (event.event === 'telemetry') {
      firewall.telemetry = event;
      firewall.telemetryCount++;
    } else firewall.events.push(event);
    options.onEvent?.(event);
  };
  const { encapsulation, certificates, policy } = options;
  const args = [mainFile, '--encapsulation', encapsulation];
  args.push('--listen', `${address}:${tunnelPorts[encapsulation]}`);
  args.push('--telemetry-port', String(telemetryPort));
  args.push('--cert', certificates.certificate, '--key', certificates.key);
  if (policy !== undefined) args.push('--policy', policy);
  const program = start(host, process.execPath, [...args, ...extra], { onLine: take });
  const ready = extra.includes('--no-data-path') ? 'telemetry-listening' : 'listening';
  const said = (event: string) => firewall.events.some((one) => one.event === event);
  await until('the firewall is ready', startLimitMs, () => {
    if (program.exitCode === undefined && !said('error')) return said(ready);
    const words = firewall.events.find((one) => one.event === 'error')?.message;
    throw new Error(`the firewall did not start: ${words ?? program.errors}`);
  });
  return Object.assign(firewall, {
    program,
    command: (line: string) => command(program, firewall.events, line),
    stop: async () => void (await program.stop()),
  });
}

async function command(program: Program, events: FirewallEvent[], line: string): Promise<void> {
  const before = events.length;
  program.write(line);
  const isAnswer = (event: FirewallEvent) => event.command === line;
  await until(`the firewall obeys "${line}"`, startLimitMs, () =>
    events.slice(before).some(isAnswer),
  );
  const answer = events.slice(before).find(isAnswer);
  if (answer?.event === 'error') throw new Error(String(answer.message));
}
