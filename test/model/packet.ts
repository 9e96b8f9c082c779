/**
 * Packets for tests, built and judged byte by byte with none of the code under test: rows of
 * annotated hex, builders with every field in sight, and a checksum as slow as RFC 1071 tells it.
 */

/** Bytes of annotated rows: hex digits up to `//`, spaces anywhere. */
export function packet(rows: string): Uint8Array {
  const digits = rows
    .split('\n')
    .map((row) => row.split('//')[0])
    .join('')
    .replaceAll(/\s/g, '');
  if (!/^([0-9a-f]{2})*$/.test(digits)) throw new Error(`not hex: ${digits}`);
  return Uint8Array.from(digits.match(/../g) ?? [], (pair) => Number.parseInt(pair, 16));
}

export function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('hex');
}

/** RFC 1071, one byte at a time with the carry taken back at once. */
export function slowChecksum(...parts: (Uint8Array | number[])[]): number {
  const bytes = parts.flatMap((part) => [...part]);
  let total = 0;
  for (const [index, byte] of bytes.entries()) {
    total += index % 2 === 0 ? byte * 256 : byte;
    if (total > 65535) total -= 65535;
  }
  return 65535 - total;
}

const word = (value: number) => [(value >>> 8) & 255, value & 255];
const long = (value: number) => [...word(value >>> 16), ...word(value)];

export type Ipv4Fields = {
  tos?: number;
  id?: number;
  dontFragment?: boolean;
  more?: boolean;
  /** bytes */
  offset?: number;
  ttl?: number;
  protocol: number;
  source?: number;
  destination?: number;
  options?: number[];
};

export const client = 0x0a000001;
export const server = 0xc0a80102 | 0;

export function buildIpv4(fields: Ipv4Fields, payload: Uint8Array | number[]): Uint8Array {
  const options = fields.options ?? [];
  const headerLength = 20 + options.length;
  const flags = (fields.dontFragment ? 0x4000 : 0) | (fields.more ? 0x2000 : 0);
  const header = [
    0x40 | (headerLength / 4),
    fields.tos ?? 0,
    ...word(headerLength + payload.length),
    ...word(fields.id ?? 0x1234),
    ...word(flags | ((fields.offset ?? 0) / 8)),
    fields.ttl ?? 64,
    fields.protocol,
    0,
    0,
    ...long(fields.source ?? client),
    ...long(fields.destination ?? server),
    ...options,
  ];
  const checksum = slowChecksum(header);
  header[10] = checksum >>> 8;
  header[11] = checksum & 255;
  return Uint8Array.from([...header, ...payload]);
}

export type TcpFields = {
  sourcePort?: number;
  destinationPort?: number;
  sequence?: number;
  acknowledgment?: number;
  flags?: number;
  window?: number;
  options?: number[];
};

/** An IPv4 packet with a complete TCP segment in it. */
export function buildTcp(
  tcp: TcpFields,
  payload: Uint8Array | number[],
  ip: Partial<Ipv4Fields> = {},
): Uint8Array {
  const options = tcp.options ?? [];
  const segment = [
    ...word(tcp.sourcePort ?? 40000),
    ...word(tcp.destinationPort ?? 443),
    ...long(tcp.sequence ?? 1),
    ...long(tcp.acknowledgment ?? 2),
    ((20 + options.length) / 4) << 4,
    tcp.flags ?? 0x10,
    ...word(tcp.window ?? 0x2000),
    0,
    0,
    0,
    0,
    ...options,
    ...payload,
  ];
  const fields = { protocol: 6, ...ip };
  const checksum = slowChecksum(pseudoHeader(fields, 6, segment.length), segment);
  segment[16] = checksum >>> 8;
  segment[17] = checksum & 255;
  return buildIpv4(fields, segment);
}

/** An IPv4 packet with a complete UDP datagram in it. */
export function buildUdp(
  ports: { sourcePort?: number; destinationPort?: number },
  payload: Uint8Array | number[],
  ip: Partial<Ipv4Fields> = {},
): Uint8Array {
  const datagram = [
    ...word(ports.sourcePort ?? 40000),
    ...word(ports.destinationPort ?? 53),
    ...word(8 + payload.length),
    0,
    0,
    ...payload,
  ];
  const fields = { protocol: 17, ...ip };
  const checksum = slowChecksum(pseudoHeader(fields, 17, datagram.length), datagram) || 65535;
  datagram[6] = checksum >>> 8;
  datagram[7] = checksum & 255;
  return buildIpv4(fields, datagram);
}

export function buildIcmp(
  type: number,
  code: number,
  rest: number[],
  ip: Partial<Ipv4Fields> = {},
): Uint8Array {
  const message = [type, code, 0, 0, ...rest];
  const checksum = slowChecksum(message);
  message[2] = checksum >>> 8;
  message[3] = checksum & 255;
  return buildIpv4({ protocol: 1, ...ip }, message);
}

function pseudoHeader(ip: Partial<Ipv4Fields>, protocol: number, length: number): number[] {
  const addresses = [...long(ip.source ?? client), ...long(ip.destination ?? server)];
  return [...addresses, 0, protocol, ...word(length)];
}

/** What is wrong with the checksums and lengths of this unfragmented packet; '' when nothing is. */
export function faultOf(bytes: Uint8Array): string {
  const headerLength = (bytes[0]! & 15) * 4;
  const total = bytes[2]! * 256 + bytes[3]!;
  if (total !== bytes.length) return `total length ${total} of ${bytes.length} bytes`;
  if (slowChecksum(bytes.slice(0, headerLength)) !== 0) return 'IPv4 checksum';
  const transport = bytes.slice(headerLength);
  const protocol = bytes[9]!;
  if (protocol === 1) return slowChecksum(transport) === 0 ? '' : 'ICMP checksum';
  const pseudo = [...bytes.slice(12, 20), 0, protocol, ...word(transport.length)];
  if (slowChecksum(pseudo, transport) !== 0) return `checksum of protocol ${protocol}`;
  if (protocol === 17 && transport[4]! * 256 + transport[5]! !== transport.length) {
    return 'UDP length';
  }
  return '';
}

export type Memory = { readonly bytes: Uint8Array; readonly view: DataView };

/** A small arena of stale bytes, so that a byte that nobody wrote shows. */
export function staleMemory(length: number): Memory {
  const bytes = new Uint8Array(length).fill(0xa5);
  return { bytes, view: new DataView(bytes.buffer) };
}
