/**
 * eve.json as it grows: what Suricata allowed and blocked, in the words of the lab's other
 * firewalls, and the connections that it named. Nothing here reads a packet.
 */
import { closeSync, openSync, readSync } from 'node:fs';
import type { FirewallEvent } from '../firewalls.ts';
import type { FlowPackets } from './command.ts';

/** A connection that an event was about. */
export type EveFlow = {
  readonly id: number;
  readonly protocol: string;
  /** `address:port` of who opened it, and of the other end. */
  readonly source: string;
  readonly target: string;
  /** What the connection was for, such as `GET evil.example/`. */
  about: string;
  /** Signature of the rule that blocked it; empty: allowed. */
  reason: string;
  /** When it has ended and Suricata has told how much it was. */
  packets: FlowPackets | undefined;
};

type Ends = {
  readonly src_ip: string;
  readonly src_port?: number;
  readonly dest_ip: string;
  readonly dest_port?: number;
};

/** As far as the lab looks at it (Suricata user guide, "EVE JSON Format"). */
type EveEvent = Ends & {
  readonly timestamp: string;
  readonly event_type: string;
  readonly flow_id?: number;
  readonly proto?: string;
  readonly alert?: { readonly action: string; readonly signature: string };
  /** In an alert the ends of the connection; in a flow record its packets. */
  readonly flow?: Partial<Ends> & {
    readonly pkts_toserver?: number;
    readonly pkts_toclient?: number;
  };
  readonly http?: {
    readonly hostname?: string;
    readonly url?: string;
    readonly http_method?: string;
  };
  readonly tls?: { readonly sni?: string };
  readonly dns?: {
    readonly type?: string;
    readonly rrname?: string;
    readonly query?: readonly { readonly rrname?: string }[];
  };
  readonly ssh?: { readonly client?: { readonly software_version?: string } };
  readonly stats?: {
    readonly ips?: { readonly accepted: number; readonly blocked: number };
    readonly decoder?: { readonly invalid: number };
  };
};

const readEveryMs = 100;
const chunkLength = 256 * 1024;

export class EveReader {
  readonly flows = new Map<number, EveFlow>();
  private readonly path: string;
  private readonly workload: string;
  private readonly onEvent: (event: FirewallEvent) => void;
  private readonly timer: NodeJS.Timeout;
  private readonly chunk = Buffer.alloc(chunkLength);
  private fd = -1;
  private at = 0;
  private rest = '';

  /** `workload`: whose connections are egress. */
  constructor(path: string, workload: string, onEvent: (event: FirewallEvent) => void) {
    this.path = path;
    this.workload = workload;
    this.onEvent = onEvent;
    this.timer = setInterval(() => this.read(), readEveryMs);
    this.timer.unref();
  }

  /** Take what has been written since the last time. */
  read(): void {
    if (this.fd < 0) this.fd = openIfThere(this.path);
    if (this.fd < 0) return;
    for (;;) {
      const length = readSync(this.fd, this.chunk, 0, chunkLength, this.at);
      if (length === 0) return;
      this.at += length;
      const lines = (this.rest + this.chunk.toString('latin1', 0, length)).split('\n');
      this.rest = lines.pop() ?? '';
      for (const line of lines) this.take(JSON.parse(line) as EveEvent);
    }
  }

  close(): void {
    clearInterval(this.timer);
    this.read();
    if (this.fd >= 0) closeSync(this.fd);
    this.fd = -1;
  }

  private take(event: EveEvent): void {
    if (event.stats !== undefined) return this.takeStats(event);
    if (event.flow_id === undefined) return;
    if (event.event_type === 'flow') {
      const flow = this.flows.get(event.flow_id);
      const { pkts_toserver: toServer = 0, pkts_toclient: toClient = 0 } = event.flow ?? {};
      if (flow !== undefined) flow.packets = { toServer, toClient };
      return;
    }
    if (event.event_type === 'dns' && event.dns?.type === 'answer') return;
    const flow = this.flowOf(event, event.flow_id);
    const about = describe(event);
    if (about !== '') flow.about = about;
    if (event.event_type === 'alert') {
      if (event.alert?.action !== 'blocked' || flow.reason !== '') return;
      flow.reason = event.alert.signature;
      this.tell(event, 'blocked', flow);
    } else if (flow.reason === '') {
      this.tell(event, 'allowed', flow);
    }
  }

  private flowOf(event: EveEvent, id: number): EveFlow {
    const known = this.flows.get(id);
    if (known !== undefined) return known;
    const ends = { ...event, ...event.flow };
    const flow = {
      id,
      protocol: (event.proto ?? '').toLowerCase(),
      source: `${ends.src_ip}:${ends.src_port ?? 0}`,
      target: `${ends.dest_ip}:${ends.dest_port ?? 0}`,
      about: '',
      reason: '',
      packets: undefined,
    };
    this.flows.set(id, flow);
    return flow;
  }

  private tell(event: EveEvent, verdict: 'allowed' | 'blocked', flow: EveFlow): void {
    const { protocol, source, target, about, reason } = flow;
    const direction = source.startsWith(`${this.workload}:`) ? 'egress' : 'ingress';
    const at = Date.parse(event.timestamp);
    this.onEvent({ at, event: verdict, direction, protocol, source, target, about, reason });
  }

  private takeStats({ stats, timestamp }: EveEvent): void {
    const { accepted = 0, blocked = 0 } = stats?.ips ?? {};
    const malformed = stats?.decoder?.invalid ?? 0;
    const at = Date.parse(timestamp);
    this.onEvent({ at, event: 'counters', allowed: accepted, blocked, malformed });
  }
}

function openIfThere(path: string): number {
  try {
    return openSync(path, 'r');
  } catch {
    return -1;
  }
}

function describe({ dns, http, ssh, tls }: EveEvent): string {
  if (http !== undefined)
    return `${http.http_method ?? ''} ${http.hostname ?? ''}${http.url ?? ''}`;
  if (tls?.sni !== undefined) return `TLS ${tls.sni}`;
  if (dns !== undefined) return `DNS ${dns.rrname ?? dns.query?.[0]?.rrname ?? ''}`;
  if (ssh?.client !== undefined) return `SSH ${ssh.client.software_version ?? ''}`;
  return '';
}
