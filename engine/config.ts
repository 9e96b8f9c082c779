/**
 * The validated, immutable configuration: what the rest of the agent may rely on. The keys mirror
 * the YAML file; durations are milliseconds, addresses int32 (as getInt32 reads them off the wire),
 * prefixes `{ address, length }`. Text, files and error messages are the business of cli/config/.
 *
 * Every default and every limit stands here, once, with its reason.
 */
import { standardOption } from '../tunnel/geneve.ts';
import type { Rule } from './classifier/rules.ts';

export type Prefix = { readonly address: number; readonly length: number };

/** Never redirected and never dropped. 0 as `protocol` or `port` means any. */
export type ManagementException = {
  readonly prefix: Prefix;
  /** IP protocol number; 0: any. */
  readonly protocol: number;
  /** Port at either end of the connection; 0: any. */
  readonly port: number;
};

export type WorkloadConfig = {
  /** Empty: the interface of the default route. */
  readonly interfaces: readonly string[];
  readonly management: readonly ManagementException[];
  readonly group: {
    /** Networks of hosts that have an agent each; empty: none. */
    readonly members: readonly Prefix[];
    /** Whose agent redirects what goes on between two of them. */
    readonly intraGroup: 'source' | 'destination' | 'both';
  };
  readonly ipv6: 'pass' | 'drop';
};

export type TelemetryTarget = {
  /** `https://<IPv4>[:port]/path`. */
  readonly url: string;
  /** The host of `url` as int32, and its port: the agent's own traffic, never redirected. */
  readonly address: number;
  readonly port: number;
  /** PEM file of the authority that the endpoint's certificate must come from; empty with `pin`. */
  readonly ca: string;
  /** Base64 of the SHA-256 of the endpoint's public key (SPKI, DER); empty with `ca`. */
  readonly pin: string;
  /** PEM files of our own certificate and its key; both or neither (empty). */
  readonly clientCertificate: string;
  readonly clientKey: string;
};

export type FirewallConfig = {
  readonly name: string;
  readonly address: number;
  /** Senders that count as this firewall; `length` 32 and its own address unless configured. */
  readonly returnFrom: Prefix;
  readonly telemetry: TelemetryTarget;
};

/** How the health of a firewall is asked for, besides telemetry. */
export type ProbeConfig = {
  /** `tunnel`: a packet that the firewall must return; the others ask its own address. */
  readonly kind: 'off' | 'tunnel' | 'tcp' | 'http' | 'https';
  readonly intervalMs: number;
  /** Intervals without an answer after which a firewall is lost. */
  readonly failures: number;
  /** Of tcp, http and https; 0 otherwise. */
  readonly port: number;
  /** Of http and https, from the slash; empty otherwise. */
  readonly path: string;
};

export type HaConfig = {
  readonly distribution: 'active-passive' | 'flow-hash';
  /** Go back to an earlier firewall of the list when it is well again. */
  readonly preempt: boolean;
  /** How long a firewall that was lost must be healthy before it is preferred to others. */
  readonly holdDownMs: number;
  /** active-passive: firewalls know each other's sessions, so every flow may move. */
  readonly sessionSync: boolean;
  /** flow-hash: what becomes of the flows of a firewall that was lost. */
  readonly onLoss: 'rebalance' | 'stick' | 'reset';
  readonly probe: ProbeConfig;
};

export type TunnelConfig = {
  readonly encapsulation: 'geneve' | 'gwlb' | 'gcp' | 'vxlan';
  /** Virtual network identifier, 24 bit: geneve's. The gateway profiles have none: theirs is 0. */
  readonly vni: number;
  readonly port: number;
  /** Largest outer packet in bytes; 0: what the path allows (auto). */
  readonly mtu: number;
  readonly geneve: {
    readonly inner: 'ipv4' | 'ethernet';
    readonly optionClass: number;
    readonly optionType: number;
    /** The option's data as hexadecimal digits, a multiple of 4 bytes. */
    readonly optionData: string;
    /** Which bit of the data is 1 for ingress; 0 is the first on the wire. */
    readonly directionBit: number;
    /** The byte of the data where the flow's cookie begins; -1: nowhere. */
    readonly cookieAt: number;
  };
  /** 64 bits each, as 16 hexadecimal digits. */
  readonly gwlb: { readonly endpointId: string; readonly attachmentId: string };
  readonly gcp: {
    /** Bytes as hexadecimal digits, a multiple of 4 bytes. */
    readonly endpointId: string;
    /** 64 bits, as 16 hexadecimal digits. */
    readonly profileId: string;
  };
  readonly vxlan: {
    readonly egressVni: number;
    readonly ingressVni: number;
    /** UDP port of what comes to the host; 0: `port`, as for what leaves it. */
    readonly ingressPort: number;
    /** Six bytes: the workload end of the inner Ethernet header. */
    readonly innerSource: readonly number[];
    /** Six bytes: the firewall end. */
    readonly innerDestination: readonly number[];
  };
};

export type TelemetryConfig = {
  readonly intervalMs: number;
  readonly timeoutMs: number;
  /** Attempts in a row before the gate closes, the first one included. */
  readonly retries: number;
  readonly startupGraceMs: number;
};

/** How a report is written: both encodings are OTLP/HTTP's own. */
export type TelemetryFormat = {
  readonly encoding: 'json' | 'protobuf';
  readonly compression: 'none' | 'gzip';
};

export type PolicyConfig = {
  /** `observe`: classify and count, forward nothing to the firewall. */
  readonly mode: 'enforce' | 'observe';
  /** Share of new flows that are redirected where the rules say so, 0 to 100, chosen by hash. */
  readonly rolloutPercent: number;
  readonly onTelemetryLoss: 'pass' | 'drop';
  /** Firewalls take telemetry, and none of them is healthy. */
  readonly onFirewallDown: 'pass' | 'drop';
  readonly onAgentFailure: 'pass' | 'drop';
  /** From the start of the host, and of the agent, until the firewall takes the first telemetry. */
  readonly onBoot: 'pass' | 'drop';
  /** Connections that began where the firewall did not see it. */
  readonly established: 'pass' | 'redirect' | 'reset';
};

/** What becomes of a new connection, in the words of the file. */
export type Action = 'redirect' | 'pass' | 'drop';

export type Config = {
  readonly workload: WorkloadConfig;
  /** In order of preference; at least one. Names and addresses are distinct. */
  readonly firewalls: readonly FirewallConfig[];
  readonly ha: HaConfig;
  readonly tunnel: TunnelConfig;
  readonly telemetry: TelemetryConfig & TelemetryFormat;
  readonly policy: PolicyConfig;
  /** What no rule matches. */
  readonly default: Action;
  /**
   * In order: the first that matches decides. Sets are resolved; each list is sorted and merged.
   */
  readonly rules: readonly Rule[];
  /**
   * Who carries redirected flows once they are established: the kernel, or the engine (`off`);
   * `auto` is the kernel but on veth.
   */
  readonly acceleration: 'auto' | 'kernel' | 'off';
  readonly limits: {
    readonly flows: number;
    /** Of these, how many the kernel can carry at once; 128 bytes each, taken at start. */
    readonly acceleratedFlows: number;
    /** Threads of the data path. */
    readonly workers: number;
    /** Look for the next packet for a moment before sleeping, where one is expected. */
    readonly busyPoll: boolean;
  };
  readonly control: {
    readonly socket: string;
    /** The status page: an address of 127.0.0.0/8; tokenFile empty: read only. Undefined: none. */
    readonly http:
      | { readonly address: string; readonly port: number; readonly tokenFile: string }
      | undefined;
  };
  /** Where Prometheus may ask; undefined: nowhere. */
  readonly metrics: { readonly address: string; readonly port: number } | undefined;
  readonly log: {
    readonly level: 'debug' | 'info' | 'warn' | 'error';
    readonly format: 'auto' | 'pretty' | 'json';
    /** File that beginnings and ends of flows are appended to; empty: none. */
    readonly flows: string;
    /** Which flows: all, or those that a rule with `log: true` decided. */
    readonly which: 'all' | 'rules';
  };
};

/** All but the rules, which are many: what threads pass to each other. */
export type Settings = Omit<Config, 'rules'>;

export const defaults = {
  workload: {
    /** Who is spoken to: the host whose services are protected. */
    intraGroup: 'destination',
    /** The reference's behaviour: IPv6 is not inspected. Said aloud at start when it matters. */
    ipv6: 'pass',
  },
  tunnel: {
    encapsulation: 'geneve',
    /** The reference agent's. */
    vni: 48813,
    /** IANA's ports of RFC 8926 and RFC 7348. */
    port: { geneve: 6081, gwlb: 6081, gcp: 6081, vxlan: 4789 },
    /** 0xFFF0 to 0xFFFF are experimental (RFC 8926 section 7); 0x20 is what the reference shows. */
    geneve: { inner: 'ipv4', optionClass: 0xfff1, optionType: 0x20, ...standardOption },
    /** Nobody's: they only come back as they went. */
    gwlb: { endpointId: '0'.repeat(16), attachmentId: '0'.repeat(16) },
    gcp: { endpointId: '0'.repeat(8), profileId: '0'.repeat(16) },
    vxlan: {
      /** Locally administered, so that no vendor's card has them. */
      innerSource: [0x02, 0, 0, 0, 0, 0x01],
      innerDestination: [0x02, 0, 0, 0, 0, 0x02],
    },
  },
  /** The gate closes at most 5 s + 3 x 2 s after the last success began. */
  telemetry: { intervalMs: 5_000, timeoutMs: 2_000, retries: 3, startupGraceMs: 15_000 },
  /** What a person can read, and every collector takes. */
  telemetryFormat: { encoding: 'json', compression: 'none' },
  ha: {
    distribution: 'active-passive',
    /** A firewall that comes and goes must not take the traffic with it each time. */
    preempt: false,
    holdDownMs: 10_000,
    sessionSync: true,
    onLoss: 'rebalance',
    probe: {
      /** A gateway's appliance is known to answer at its own address, not to return our packet. */
      kind: { geneve: 'tunnel', vxlan: 'tunnel', gwlb: 'off', gcp: 'off' },
      /** The reference's. */
      intervalMs: 1_000,
      failures: 3,
      path: '/',
    },
  },
  policy: {
    mode: 'enforce',
    rolloutPercent: 100,
    /** All `pass`: an agent that fails must not be what takes a host off the network. */
    onTelemetryLoss: 'pass',
    onFirewallDown: 'pass',
    onAgentFailure: 'pass',
    onBoot: 'pass',
    /** A firewall drops the middle of a connection whose SYN it never saw. */
    established: 'pass',
  },
  /** What is not spoken of is inspected. */
  default: 'redirect',
  acceleration: 'auto',
  /** Carried flows take 8 MB of the kernel's memory. */
  limits: { flows: 1_048_576, acceleratedFlows: 65_536, workers: 1, busyPoll: true },
  control: { socket: '/run/microperimeter/control.sock' },
  log: { level: 'info', format: 'auto', flows: '', which: 'all' },
} as const;

/** Smallest and largest value of a number in the configuration. */
export type Range = { readonly min: number; readonly max: number };

export const limits = {
  /** More interfaces than hosts have; each costs two queues and three programs. */
  interfaces: { min: 0, max: 16 },
  /** A set of them has 16 bits (tunnel/firewalls.ts). */
  firewalls: { min: 1, max: 16 },
  /** Below 100 ms a busy host's own delays would look like a loss. */
  probeIntervalMs: { min: 100, max: 60_000 },
  probeFailures: { min: 1, max: 10 },
  holdDownMs: { min: 0, max: 3_600_000 },
  /** Each is compared with the first packet of a flow, twice. */
  members: { min: 0, max: 256 },
  /** Each is compared with every packet of a new flow. */
  management: { min: 0, max: 256 },
  /** A queue number has 12 bits, and each worker has four queues an interface. */
  workers: { min: 1, max: 16 },
  /** 24 bit on the wire; 0 is what gateway appliances use. */
  vni: { min: 0, max: 0xff_ffff },
  port: { min: 1, max: 65_535 },
  /** 576: what every IPv4 host must take (RFC 791); 9216: the largest jumbo frame in use. */
  mtu: { min: 576, max: 9_216 },
  optionClass: { min: 0, max: 0xffff },
  /** The top bit makes an option critical (RFC 8926 section 3.5): allowed, it is the operator's. */
  optionType: { min: 0, max: 0xff },
  /** 31 words of 32 bits. */
  directionBit: { min: 0, max: 991 },
  cookieAt: { min: 0, max: 120 },
  /** An option's length is 5 bits of words, and none leaves nothing to recognise. */
  optionWords: { min: 1, max: 31 },
  endpointWords: { min: 1, max: 31 },
  /** Below 200 ms the endpoint is flooded; above 5 min the gate is no gate. */
  intervalMs: { min: 200, max: 300_000 },
  /**
   * Below 200 ms the gate's ticks of 100 ms would eat the lease; a TLS handshake needs time too.
   */
  timeoutMs: { min: 200, max: 60_000 },
  retries: { min: 1, max: 10 },
  startupGraceMs: { min: 0, max: 600_000 },
  /** 64: enough for a test; 16 million records take a gigabyte. */
  flows: { min: 64, max: 16_777_216 },
  /** 2 GB at most. */
  acceleratedFlows: { min: 64, max: 16_777_216 },
  /** sun_path of linux/un.h has 108 bytes, its end included. */
  socketPath: { min: 2, max: 107 },
  rolloutPercent: { min: 0, max: 100 },
  /** What filter sets of whole networks have; reading so many takes 8 s and a gigabyte. */
  rules: { min: 0, max: 100_000 },
  sets: { min: 0, max: 10_000 },
  /** Of one set, or of one list in a rule. */
  setItems: { min: 1, max: 100_000 },
  /**
   * Ranges of all rules together, sets counted wherever they are used: a bound on memory, since a
   * short file can use a long set in every rule.
   */
  ranges: { min: 0, max: 2_000_000 },
  /** 0 can be matched, though nobody should send it. */
  rulePort: { min: 0, max: 65_535 },
  protocol: { min: 0, max: 255 },
  /** The rules' limit at 300 bytes each; a bound on what the parser is given. */
  fileBytes: { min: 0, max: 33_554_432 },
} as const satisfies Record<string, Range>;

/** UDP ports of the tunnel, at both ends: one, or egress's and ingress's. */
export function tunnelPortsOf({ encapsulation, port, vxlan }: TunnelConfig): readonly number[] {
  const { ingressPort } = vxlan;
  const isOne = encapsulation !== 'vxlan' || ingressPort === 0 || ingressPort === port;
  return isOne ? [port] : [port, ingressPort];
}

/** Longest time that redirection may outlive the last successful telemetry, in milliseconds. */
export function leaseMs(telemetry: TelemetryConfig): number {
  return telemetry.intervalMs + telemetry.timeoutMs * telemetry.retries;
}
