/**
 * The built-in firewall: a stand-in, not a product. It takes packets out of the tunnel, looks into
 * the first few KB of each connection for what a short list denies, and sends the rest back where
 * it came from. It does not normalise, does not see through TLS, and does not know IPv6.
 *
 *     socket.ts      datagrams from any agent, and back
 *     gateway.ts     back as an appliance behind a gateway load balancer answers
 *     decode.ts      where the inner packet is, and what it is       (this file)
 *     inspect.ts     names in the first bytes of a connection: HTTP, TLS
 *     policy.ts      the list: what is denied, and what is allowed all the same
 *     flows.ts       one verdict for each connection
 *     impair.ts      loss, duplication and reordering, for a kernel without netem
 *     data-path.worker.ts   the loop over all of this
 *     telemetry.ts   the HTTPS endpoint that agents report to
 *     main.ts        the program
 *
 * It shares no line with the agent, so that both do not make the same mistake about a header.
 */

export type Encapsulation = 'geneve' | 'gwlb' | 'gcp' | 'vxlan';

/** Way of a packet, seen from the workload. */
export const Way = { Unknown: -1, Egress: 0, Ingress: 1 } as const;
export type Way = (typeof Way)[keyof typeof Way];

/** One tunnel datagram, taken apart. Reused: every field is set on every path. */
export type Inner = {
  /** Why it is not one, or empty. */
  refusal: string;
  way: Way;
  /** Of the inner IPv4 packet; `end` is exclusive and follows its total length. */
  at: number;
  end: number;
  source: number;
  target: number;
  protocol: number;
  /** ICMP echo: the identifier in both. 0 for other protocols and for later fragments. */
  sourcePort: number;
  targetPort: number;
  identification: number;
  /** True for all fragments but the first: no ports, no payload that is worth reading. */
  laterFragment: boolean;
  moreFragments: boolean;
  /** TCP only. */
  sequence: number;
  syn: boolean;
  ack: boolean;
  payloadAt: number;
};

export function createInner(): Inner {
  return {
    refusal: '',
    way: Way.Unknown,
    at: 0,
    end: 0,
    source: 0,
    target: 0,
    protocol: 0,
    sourcePort: 0,
    targetPort: 0,
    identification: 0,
    laterFragment: false,
    moreFragments: false,
    sequence: 0,
    syn: false,
    ack: false,
    payloadAt: 0,
  };
}

/** IP protocol numbers. */
export const icmp = 1;
export const tcp = 6;
export const udp = 17;

/** Our option: the agent's default class and type, in which bit 0 of the first byte is ingress. */
const directionClass = 0xfff1;
const directionType = 0x20;
/** Google's: the last bit of the network id is set on the way out. AWS's options tell no way. */
const googleClass = 0x0132;
const googleNetworkType = 1;

/**
 * Take the datagram in `view` from `at` to `end` apart, into `inner`. Nothing is read outside.
 * Returns false when `inner.refusal` says why this is not a packet that we can judge.
 */
export function decode(
  encapsulation: Encapsulation,
  view: DataView,
  at: number,
  end: number,
  inner: Inner,
): boolean {
  clear(inner);
  inner.refusal =
    encapsulation === 'vxlan' ? openVxlan(view, at, end, inner) : openGeneve(view, at, end, inner);
  if (inner.refusal === '') inner.refusal = readIpv4(view, inner);
  return inner.refusal === '';
}

/** RFC 8926 section 3.4: version and option length, flags, protocol, VNI, reserved, options. */
function openGeneve(view: DataView, at: number, end: number, inner: Inner): string {
  if (end - at < 8) return 'geneve: too short';
  if (view.getUint8(at) >> 6 !== 0) return 'geneve: version';
  const optionsEnd = at + 8 + (view.getUint8(at) & 0x3f) * 4;
  if (optionsEnd > end) return 'geneve: options past the end';
  if ((view.getUint8(at + 1) & 0x80) !== 0) return 'geneve: control packet';
  let option = at + 8;
  while (option + 4 <= optionsEnd) {
    const next = option + 4 + (view.getUint8(option + 3) & 0x1f) * 4;
    if (next > optionsEnd) return 'geneve: option past the end';
    if (next > option + 4) readWay(view, option, inner);
    option = next;
  }
  const protocol = view.getUint16(at + 2);
  if (protocol === 0x6558) return openEthernet(view, optionsEnd, end, inner);
  if (protocol !== 0x0800) return 'geneve: inner protocol';
  inner.at = optionsEnd;
  inner.end = end;
  return '';
}

/** An option with data, which tells the way if it is one of two that we know. */
function readWay(view: DataView, option: number, inner: Inner): void {
  const optionClass = view.getUint16(option);
  const type = view.getUint8(option + 2) & 0x7f;
  if (optionClass === directionClass && type === directionType) {
    inner.way = (view.getUint8(option + 4) & 1) === 1 ? Way.Ingress : Way.Egress;
  } else if (optionClass === googleClass && type === googleNetworkType) {
    inner.way = (view.getUint8(option + 7) & 1) === 1 ? Way.Egress : Way.Ingress;
  }
}

/** RFC 7348 section 5: flags, reserved, VNI, reserved; then an Ethernet frame. */
function openVxlan(view: DataView, at: number, end: number, inner: Inner): string {
  if (end - at < 8) return 'vxlan: too short';
  if ((view.getUint8(at) & 0x08) === 0) return 'vxlan: no VNI';
  return openEthernet(view, at + 8, end, inner);
}

function openEthernet(view: DataView, at: number, end: number, inner: Inner): string {
  if (end - at < 14) return 'ethernet: too short';
  if (view.getUint16(at + 12) !== 0x0800) return 'ethernet: not IPv4';
  inner.at = at + 14;
  inner.end = end;
  return '';
}

/** RFC 791 section 3.1, then the first bytes of TCP (RFC 9293), UDP (RFC 768) or ICMP echo. */
function readIpv4(view: DataView, inner: Inner): string {
  const at = inner.at;
  if (inner.end - at < 20) return 'ipv4: too short';
  if (view.getUint8(at) >> 4 !== 4) return 'ipv4: version';
  const transport = at + (view.getUint8(at) & 0xf) * 4;
  const end = at + view.getUint16(at + 2);
  if (transport < at + 20 || end < transport || end > inner.end) return 'ipv4: lengths';
  inner.end = end;
  inner.source = view.getInt32(at + 12);
  inner.target = view.getInt32(at + 16);
  inner.protocol = view.getUint8(at + 9);
  inner.identification = view.getUint16(at + 4);
  const fragment = view.getUint16(at + 6);
  inner.laterFragment = (fragment & 0x1fff) !== 0;
  inner.moreFragments = (fragment & 0x2000) !== 0;
  inner.payloadAt = end;
  if (inner.laterFragment) return '';
  if (inner.protocol === tcp) return readTcp(view, transport, inner);
  if (inner.protocol === udp) return readUdp(view, transport, inner);
  if (inner.protocol === icmp) return readIcmp(view, transport, inner);
  return '';
}

function readTcp(view: DataView, at: number, inner: Inner): string {
  if (inner.end - at < 20) return 'tcp: too short';
  const payloadAt = at + (view.getUint8(at + 12) >> 4) * 4;
  if (payloadAt < at + 20 || payloadAt > inner.end) return 'tcp: header length';
  inner.sourcePort = view.getUint16(at);
  inner.targetPort = view.getUint16(at + 2);
  inner.sequence = view.getUint32(at + 4);
  inner.syn = (view.getUint8(at + 13) & 0x02) !== 0;
  inner.ack = (view.getUint8(at + 13) & 0x10) !== 0;
  inner.payloadAt = payloadAt;
  return '';
}

function readUdp(view: DataView, at: number, inner: Inner): string {
  if (inner.end - at < 8) return 'udp: too short';
  inner.sourcePort = view.getUint16(at);
  inner.targetPort = view.getUint16(at + 2);
  inner.payloadAt = at + 8;
  return '';
}

/** Echo request and reply have an identifier that says which ping they belong to. */
function readIcmp(view: DataView, at: number, inner: Inner): string {
  if (inner.end - at < 8) return 'icmp: too short';
  const type = view.getUint8(at);
  if (type !== 0 && type !== 8) return '';
  inner.sourcePort = view.getUint16(at + 4);
  inner.targetPort = inner.sourcePort;
  return '';
}

function clear(inner: Inner): void {
  inner.refusal = '';
  inner.way = Way.Unknown;
  inner.at = 0;
  inner.end = 0;
  inner.source = 0;
  inner.target = 0;
  inner.protocol = 0;
  inner.sourcePort = 0;
  inner.targetPort = 0;
  inner.identification = 0;
  inner.laterFragment = false;
  inner.moreFragments = false;
  inner.sequence = 0;
  inner.syn = false;
  inner.ack = false;
  inner.payloadAt = 0;
}
