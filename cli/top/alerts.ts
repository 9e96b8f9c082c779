/**
 * Alerts of an inspection engine beside the agent's flows: Suricata's eve.json (or the same lines
 * by others), followed as it grows, joined by the 5-tuple. It is read where `top` runs; a firewall
 * on another host can write it to a share, or ship it with any log forwarder.
 */
import { closeSync, fstatSync, openSync, readSync, statSync } from 'node:fs';
import type { FlowRow } from '../../control/flows.ts';

type Ends = Pick<FlowRow, 'protocol' | 'local' | 'localPort' | 'remote' | 'remotePort'>;

/** Of an EVE line, what is used here. */
type EveLine = {
  readonly event_type?: string;
  readonly proto?: string;
  readonly src_ip?: string;
  readonly src_port?: number;
  readonly dest_ip?: string;
  readonly dest_port?: number;
  readonly alert?: { readonly action?: string; readonly signature?: string };
};

export type Alert = { readonly signature: string; readonly isBlocked: boolean };

/** Connections whose alerts are remembered; the oldest go. */
const remembered = 10_000;
/** Bytes read in one look: what is behind is read by the next ones. */
const readMost = 4 * 1024 * 1024;
/** What there is already when `top` starts: as much of its end. */
const tailBytes = 1024 * 1024;

export class AlertFile {
  private readonly path: string;
  private readonly alerts = new Map<string, Alert>();
  private readonly buffer = Buffer.alloc(readMost);
  private fd = -1;
  private inode = -1;
  private at = 0;
  private rest = '';

  /** Throws what open(2) says of a file that is not there. */
  constructor(path: string) {
    this.path = path;
    this.open(true);
  }

  /** What was written since the last look. */
  look(): void {
    this.followRotation();
    const length = readSync(this.fd, this.buffer, 0, readMost, this.at);
    this.at += length;
    const lines = `${this.rest}${this.buffer.toString('utf8', 0, length)}`.split('\n');
    this.rest = lines.pop() ?? '';
    for (const line of lines) this.take(line);
  }

  /** The latest of this connection. */
  of(flow: Ends): Alert | undefined {
    const { local, localPort, protocol, remote, remotePort } = flow;
    return this.alerts.get(keyOf(protocol, local, localPort, remote, remotePort));
  }

  close(): void {
    closeSync(this.fd);
  }

  private open(fromTail: boolean): void {
    if (this.fd >= 0) closeSync(this.fd);
    this.fd = openSync(this.path, 'r');
    const { ino, size } = fstatSync(this.fd);
    this.inode = ino;
    this.at = fromTail ? Math.max(0, size - tailBytes) : 0;
    this.rest = '';
  }

  /** Another file of the same name, or a shorter one. */
  private followRotation(): void {
    const now = statSync(this.path, { throwIfNoEntry: false });
    if (now === undefined) return;
    if (now.ino !== this.inode || now.size < this.at) this.open(false);
  }

  /** What is no alert is passed over, and so is what is no JSON: a line cut by the tail. */
  private take(line: string): void {
    if (!line.includes('"alert"')) return;
    let event: EveLine;
    try {
      event = JSON.parse(line) as EveLine;
    } catch {
      return;
    }
    const { alert, dest_ip, dest_port = 0, event_type, proto, src_ip, src_port = 0 } = event;
    if (event_type !== 'alert' || typeof alert?.signature !== 'string') return;
    if (typeof proto !== 'string' || src_ip === undefined || dest_ip === undefined) return;
    const key = keyOf(proto.toLowerCase(), src_ip, src_port, dest_ip, dest_port);
    // At the end again, which is where the youngest are.
    this.alerts.delete(key);
    this.alerts.set(key, {
      signature: printable(alert.signature),
      isBlocked: alert.action === 'blocked',
    });
    if (this.alerts.size > remembered) this.alerts.delete(this.alerts.keys().next().value!);
  }
}

/** The same from both ends. */
function keyOf(protocol: string, a: string, aPort: number, b: string, bPort: number): string {
  const ends = [`${a}:${aPort}`, `${b}:${bPort}`].sort();
  return `${protocol} ${ends.join(' ')}`;
}

/** A file may hold anything; a terminal must not be told what to do by it. */
function printable(text: string): string {
  return text.replace(/\p{C}/gu, '?');
}
