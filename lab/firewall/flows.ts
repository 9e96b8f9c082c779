/**
 * One verdict for each connection. The first `inspectedLength` bytes of each direction are
 * collected in order and looked into whenever they grow; after that the direction is settled and
 * its packets are allowed by looking up the flow. A denied connection loses the packet that gave
 * it away and everything after it, both ways.
 */
import { type Inner, icmp, tcp, udp, Way } from './decode.ts';
import { findHttpRequests, findServerName, type HttpRequest } from './inspect.ts';
import { findDenial, type Policy } from './policy.ts';

/** Bytes looked into, each direction: room for a request head and a large ClientHello. */
const inspectedLength = 4096;
/**
 * Flows known at once; the oldest goes first. 4 KiB a side while they are new: 512 MiB at worst.
 */
const maximumFlows = 65536;
/** First fragments whose verdict is kept for the fragments that follow. */
const maximumFragments = 1024;
/** Segments of TCP that came before their time; more are inspected when they are sent again. */
const maximumEarly = 16;

/** What the firewall says about a connection, as it goes to standard output. */
export type FlowReport = {
  readonly event: 'allowed' | 'blocked';
  readonly direction: string;
  readonly protocol: string;
  readonly source: string;
  readonly target: string;
  /** `GET good.example/`, `TLS good.example`, or empty. */
  readonly about: string;
  /** The rule that denied it; empty when allowed. */
  readonly reason: string;
};

/** One direction of a connection. */
type Side = {
  bytes: Uint8Array | undefined;
  /** How many of `bytes` came without a gap. */
  length: number;
  /** TCP: sequence number of byte 0; -1 while unknown. */
  origin: number;
  early: { at: number; end: number }[];
  settled: boolean;
};

type Flow = {
  readonly source: number;
  readonly target: number;
  readonly sourcePort: number;
  readonly targetPort: number;
  readonly protocol: number;
  way: Way;
  /** TCP: sequence number of the SYN, to tell a new connection from a repeated SYN; -1: unseen. */
  syn: number;
  denied: boolean;
  reported: string;
  readonly forth: Side;
  readonly back: Side;
  /** Another flow with the same hash. */
  next: Flow | undefined;
};

export class Flows {
  policy: Policy;
  private readonly report: (report: FlowReport) => void;
  private readonly byHash = new Map<number, Flow>();
  private readonly fragments = new Map<string, boolean>();

  constructor(policy: Policy, report: (report: FlowReport) => void) {
    this.policy = policy;
    this.report = report;
  }

  get count(): number {
    return this.byHash.size;
  }

  /** True when the packet may go on. `view` covers the memory that `inner` points into. */
  judge(view: DataView, inner: Inner): boolean {
    if (inner.laterFragment) return this.fragments.get(fragmentKey(inner)) ?? false;
    const allowed = this.judgeWhole(view, inner);
    if (inner.moreFragments) this.rememberFragment(fragmentKey(inner), allowed);
    return allowed;
  }

  private judgeWhole(view: DataView, inner: Inner): boolean {
    const known = this.find(inner);
    const opens = inner.protocol === tcp && inner.syn && !inner.ack;
    const isNew = known === undefined || (opens && known.syn !== inner.sequence);
    const flow = isNew ? this.open(inner) : known;
    if (flow.denied) return false;
    const forth = flow.source === inner.source && flow.sourcePort === inner.sourcePort;
    return this.look(view, inner, flow, forth ? flow.forth : flow.back, isNew);
  }

  /** Collect what is new in this packet, and decide again when there was something. */
  private look(view: DataView, inner: Inner, flow: Flow, side: Side, isNew: boolean): boolean {
    if (side.settled) return true;
    if (inner.syn && inner.protocol === tcp) side.origin = (inner.sequence + 1) >>> 0;
    const hasPayload = inner.payloadAt < inner.end;
    if (!hasPayload && !isNew) return true;
    if (hasPayload) collect(side, view, inner);
    const about = this.decide(flow);
    if (flow.denied) return false;
    if (side.length >= inspectedLength) settle(side);
    if (inner.protocol !== tcp || about !== '' || side.settled) this.tell(flow, 'allowed', about);
    return true;
  }

  private decide(flow: Flow): string {
    const texts = [textOf(flow.forth), textOf(flow.back)];
    const requests = findHttpRequests(texts[0]!);
    const bytes = flow.forth.bytes;
    const name =
      bytes === undefined ? undefined : findServerName(bytes.subarray(0, flow.forth.length));
    const about = name === undefined ? describeRequests(requests) : `TLS ${name}`;
    const reason = findDenial(this.policy, {
      direction: wayName(flow.way),
      protocol: protocolName(flow.protocol),
      address: addressText(flow.target),
      port: flow.targetPort,
      requests,
      serverName: name ?? '',
      texts,
    });
    if (reason === '') return about;
    flow.denied = true;
    settle(flow.forth);
    settle(flow.back);
    this.tell(flow, 'blocked', about, reason);
    return about;
  }

  /** Each thing is told once about a flow. */
  private tell(flow: Flow, event: 'allowed' | 'blocked', about: string, reason = ''): void {
    const words = `${event} ${about}`;
    const nothingNew = event === 'allowed' && about === '' && flow.reported !== '';
    if (flow.reported === words || nothingNew) return;
    flow.reported = words;
    this.report({
      event,
      direction: wayName(flow.way),
      protocol: protocolName(flow.protocol),
      source: endText(flow.source, flow.sourcePort, flow.protocol),
      target: endText(flow.target, flow.targetPort, flow.protocol),
      about,
      reason,
    });
  }

  private find(inner: Inner): Flow | undefined {
    let flow = this.byHash.get(hash(inner));
    while (flow !== undefined && !isOf(flow, inner)) flow = flow.next;
    return flow;
  }

  private open(inner: Inner): Flow {
    const opens = inner.protocol === tcp && inner.syn && !inner.ack;
    const key = hash(inner);
    const flow: Flow = {
      source: inner.source,
      target: inner.target,
      sourcePort: inner.sourcePort,
      targetPort: inner.targetPort,
      protocol: inner.protocol,
      way: inner.way,
      syn: opens ? inner.sequence : -1,
      denied: false,
      reported: '',
      forth: createSide(),
      back: createSide(),
      next: this.without(key, inner),
    };
    if (this.byHash.size >= maximumFlows) {
      for (const oldest of this.byHash.keys()) {
        this.byHash.delete(oldest);
        break;
      }
    }
    this.byHash.set(key, flow);
    return flow;
  }

  /** The chain under `key`, without an older flow of the same addresses and ports. */
  private without(key: number, inner: Inner): Flow | undefined {
    let kept: Flow | undefined;
    for (let flow = this.byHash.get(key); flow !== undefined; ) {
      const next: Flow | undefined = flow.next;
      if (!isOf(flow, inner)) {
        flow.next = kept;
        kept = flow;
      }
      flow = next;
    }
    return kept;
  }

  private rememberFragment(key: string, allowed: boolean): void {
    if (this.fragments.size >= maximumFragments) {
      for (const oldest of this.fragments.keys()) {
        this.fragments.delete(oldest);
        break;
      }
    }
    this.fragments.set(key, allowed);
  }
}

function createSide(): Side {
  return { bytes: undefined, length: 0, origin: -1, early: [], settled: false };
}

function settle(side: Side): void {
  side.settled = true;
  side.bytes = undefined;
  side.early = [];
}

/** Put the payload where it belongs and see how far the bytes now reach without a gap. */
function collect(side: Side, view: DataView, inner: Inner): void {
  side.bytes ??= new Uint8Array(inspectedLength);
  let at = side.length;
  if (inner.protocol === tcp) {
    if (side.origin === -1) side.origin = inner.sequence;
    at = (inner.sequence - side.origin) | 0;
  }
  if (at < 0 || at >= inspectedLength) return;
  const length = Math.min(inner.end - inner.payloadAt, inspectedLength - at);
  side.bytes.set(new Uint8Array(view.buffer, view.byteOffset + inner.payloadAt, length), at);
  if (at > side.length) {
    if (side.early.length < maximumEarly) side.early.push({ at, end: at + length });
    return;
  }
  side.length = Math.max(side.length, at + length);
  for (let grown = true; grown; ) {
    grown = false;
    for (const piece of side.early) {
      if (piece.at > side.length || piece.end <= side.length) continue;
      side.length = piece.end;
      grown = true;
    }
  }
}

function textOf(side: Side): string {
  if (side.bytes === undefined) return '';
  return Buffer.from(side.bytes.buffer, 0, side.length).toString('latin1');
}

/** A request whose host has not come yet is not worth telling. */
function describeRequests(requests: readonly HttpRequest[]): string {
  const last = requests.findLast((request) => request.host !== '');
  return last === undefined ? '' : `${last.method} ${last.host}${last.path}`;
}

/** Both directions of a connection have one hash. */
function hash(inner: Inner): number {
  const ends = Math.imul(inner.source ^ inner.target, 0x9e3779b1);
  const ports = Math.imul((inner.sourcePort ^ inner.targetPort) + 1, 0x85ebca6b);
  const sums = Math.imul(
    inner.source + inner.target + inner.sourcePort + inner.targetPort,
    0x27d4eb2f,
  );
  return ends ^ ports ^ sums ^ inner.protocol;
}

function isOf(flow: Flow, inner: Inner): boolean {
  if (flow.protocol !== inner.protocol) return false;
  const forth =
    flow.source === inner.source &&
    flow.target === inner.target &&
    flow.sourcePort === inner.sourcePort &&
    flow.targetPort === inner.targetPort;
  return (
    forth ||
    (flow.source === inner.target &&
      flow.target === inner.source &&
      flow.sourcePort === inner.targetPort &&
      flow.targetPort === inner.sourcePort)
  );
}

/** RFC 791 section 3.2: what fragments of one datagram share. */
function fragmentKey(inner: Inner): string {
  return `${inner.source} ${inner.target} ${inner.protocol} ${inner.identification}`;
}

function wayName(way: Way): string {
  return way === Way.Unknown ? 'unknown' : way === Way.Ingress ? 'ingress' : 'egress';
}

function protocolName(protocol: number): string {
  const names: Record<number, string> = { [icmp]: 'icmp', [tcp]: 'tcp', [udp]: 'udp' };
  return names[protocol] ?? String(protocol);
}

function addressText(address: number): string {
  return [24, 16, 8, 0].map((shift) => (address >>> shift) & 0xff).join('.');
}

function endText(address: number, port: number, protocol: number): string {
  const hasPorts = protocol === tcp || protocol === udp;
  return hasPorts ? `${addressText(address)}:${port}` : addressText(address);
}
