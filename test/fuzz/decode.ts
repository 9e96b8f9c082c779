/**
 * What the fuzzers know of packets, written apart from the parsers under test and slower: one
 * function that reads an IPv4 packet as a whole, and sums. `undefined` is a packet that nobody
 * should forward.
 */

/** Which part of a datagram a packet is, and whether it is an ICMP error. */
export type Part = 'whole' | 'first' | 'later' | 'error';

export type Decoded = {
  readonly part: Part;
  /** Of the packet itself, and of its flow: an ICMP error's is that of the packet it quotes. */
  readonly protocol: number;
  readonly flowProtocol: number;
  /** Unsigned; the flow's, from the view of who travels in this packet's direction. */
  readonly source: number;
  readonly target: number;
  readonly sourcePort: number;
  readonly targetPort: number;
  readonly headerLength: number;
  /** TCP's, with options; UDP's 8; else 0. */
  readonly transportLength: number;
  readonly total: number;
  readonly id: number;
  readonly dontFragment: boolean;
  readonly more: boolean;
  /** Bytes. */
  readonly offset: number;
  /** TCP flags; 0 where there are none. */
  readonly flags: number;
};

/** Ones' complement sum of the bytes as big-endian words, folded. */
export function onesSum(bytes: Uint8Array, from: number, to: number, initial = 0): number {
  let sum = initial;
  for (let at = from; at < to; at += 2) {
    sum += bytes[at] * 256 + (at + 1 < to ? bytes[at + 1] : 0);
  }
  while (sum > 0xffff) sum = (sum % 0x10000) + Math.floor(sum / 0x10000);
  return sum;
}

function pseudoSum(bytes: Uint8Array, headerLength: number, total: number): number {
  return onesSum(bytes, 12, 20) + bytes[9] + total - headerLength;
}

/** The checksum field of a TCP or UDP packet as it should be, by its own addresses. */
export function transportChecksum(bytes: Uint8Array, headerLength: number, total: number): number {
  const at = headerLength + (bytes[9] === 6 ? 16 : 6);
  const field = bytes[at] * 256 + bytes[at + 1];
  const sum = onesSum(bytes, headerLength, total, pseudoSum(bytes, headerLength, total));
  const without = onesSum(bytes, 0, 0, sum + (0xffff - field));
  return 0xffff - without;
}

/** TCP and UDP of an unfragmented packet; UDP's may be absent. */
export function transportRight(bytes: Uint8Array, headerLength: number, total: number): boolean {
  if (bytes[9] === 17 && bytes[headerLength + 6] === 0 && bytes[headerLength + 7] === 0)
    return true;
  const pseudo = pseudoSum(bytes, headerLength, total);
  return onesSum(bytes, headerLength, total, pseudo) === 0xffff;
}

const word = (bytes: Uint8Array, at: number) => bytes[at] * 256 + bytes[at + 1];
const long = (bytes: Uint8Array, at: number) => word(bytes, at) * 65536 + word(bytes, at + 2);

const errorTypes = [3, 4, 5, 11, 12];
const identifierTypes = [0, 8, 13, 14, 15, 16, 17, 18];

export function decode(bytes: Uint8Array): Decoded | undefined {
  if (bytes.length < 20 || bytes[0] >> 4 !== 4) return undefined;
  const headerLength = (bytes[0] % 16) * 4;
  const total = word(bytes, 2);
  if (headerLength < 20 || headerLength > total || total > bytes.length) return undefined;
  if (onesSum(bytes, 0, headerLength) !== 0xffff) return undefined;
  const fragment = word(bytes, 6);
  const offset = (fragment % 0x2000) * 8;
  const more = (fragment & 0x2000) !== 0;
  const protocol = bytes[9];
  const base = {
    part: (offset > 0 ? 'later' : more ? 'first' : 'whole') as Part,
    protocol,
    flowProtocol: protocol,
    source: long(bytes, 12),
    target: long(bytes, 16),
    sourcePort: 0,
    targetPort: 0,
    headerLength,
    transportLength: 0,
    total,
    id: word(bytes, 4),
    dontFragment: (fragment & 0x4000) !== 0,
    more,
    offset,
    flags: 0,
  };
  // The largest datagram has 65535 bytes, header included (RFC 791).
  if (offset + total > 65535) return undefined;
  if (offset > 0) return protocol === 6 && offset < 20 ? undefined : base;
  if (protocol === 6) return decodeTcp(bytes, base);
  if (protocol === 17) return decodeUdp(bytes, base);
  if (protocol === 1) return decodeIcmp(bytes, base);
  return base;
}

function decodeTcp(bytes: Uint8Array, base: Decoded): Decoded | undefined {
  const at = base.headerLength;
  const room = base.total - at;
  if (room < 20) return undefined;
  const transportLength = (bytes[at + 12] >> 4) * 4;
  if (transportLength < 20 || transportLength > room) return undefined;
  const flags = bytes[at + 13];
  return {
    ...base,
    transportLength,
    flags,
    sourcePort: word(bytes, at),
    targetPort: word(bytes, at + 2),
  };
}

function decodeUdp(bytes: Uint8Array, base: Decoded): Decoded | undefined {
  const at = base.headerLength;
  const room = base.total - at;
  if (room < 8) return undefined;
  const length = word(bytes, at + 4);
  if (length < 8 || (base.part === 'whole' && length > room)) return undefined;
  return {
    ...base,
    transportLength: 8,
    sourcePort: word(bytes, at),
    targetPort: word(bytes, at + 2),
  };
}

function decodeIcmp(bytes: Uint8Array, base: Decoded): Decoded | undefined {
  const at = base.headerLength;
  if (base.total - at < 8) return undefined;
  if (errorTypes.includes(bytes[at])) return decodeError(bytes, base);
  if (!identifierTypes.includes(bytes[at])) return base;
  return { ...base, sourcePort: word(bytes, at + 4), targetPort: word(bytes, at + 4) };
}

/** The flow of an ICMP error is that of the packet it quotes, the other way round. */
function decodeError(bytes: Uint8Array, base: Decoded): Decoded | undefined {
  const quote = base.headerLength + 8;
  if (base.part === 'first' || base.total - quote < 20 || bytes[quote] >> 4 !== 4) return undefined;
  const quotedHeader = (bytes[quote] % 16) * 4;
  const at = quote + quotedHeader;
  if (quotedHeader < 20 || at > base.total) return undefined;
  const error: Decoded = {
    ...base,
    part: 'error',
    flowProtocol: bytes[quote + 9],
    source: long(bytes, quote + 16),
    target: long(bytes, quote + 12),
  };
  const hasPorts = word(bytes, quote + 6) % 0x2000 === 0;
  if (!hasPorts || ![1, 6, 17].includes(error.flowProtocol)) return error;
  if (base.total - at < 8) return undefined;
  if (error.flowProtocol !== 1) {
    return { ...error, sourcePort: word(bytes, at + 2), targetPort: word(bytes, at) };
  }
  if (!identifierTypes.includes(bytes[at])) return error;
  return { ...error, sourcePort: word(bytes, at + 4), targetPort: word(bytes, at + 4) };
}

/** One name for both directions of a flow. */
export function flowName(packet: Decoded): string {
  const { flowProtocol, source, sourcePort, target, targetPort } = packet;
  const ends = [source * 65536 + sourcePort, target * 65536 + targetPort].sort((a, b) => a - b);
  return `${flowProtocol} ${ends[0]} ${ends[1]}`;
}

export type Geneve = {
  readonly cookie: number | undefined;
  /** 0 egress, 1 ingress. */
  readonly direction: number;
  readonly inner: Buffer;
};

/** A GENEVE datagram of VNI 48813 and option fff1:20 with an IPv4 packet in it, else undefined. */
export function decodeGeneve(bytes: Buffer): Geneve | undefined {
  if (bytes.length < 8 || bytes[0] >> 6 !== 0 || (bytes[1] & 0x80) !== 0) return undefined;
  const end = 8 + (bytes[0] % 64) * 4;
  if (end > bytes.length) return undefined;
  if (word(bytes, 2) !== 0x0800 || long(bytes, 4) >>> 8 !== 48813) return undefined;
  let cookie: number | undefined;
  let direction = 0;
  let ours = 0;
  for (let at = 8; at < end; ) {
    const length = 4 + (bytes[at + 3] % 32) * 4;
    if (at + length > end) return undefined;
    const isOurs = word(bytes, at) === 0xfff1 && bytes[at + 2] === 0x20;
    if (!isOurs && bytes[at + 2] >= 128) return undefined;
    if (isOurs && (length !== 12 || ours > 0)) return undefined;
    if (isOurs && bytes[at + 5] === 1) {
      cookie = bytes.readInt32BE(at + 8);
      direction = bytes[at + 4] & 1;
      ours++;
    }
    at += length;
  }
  return { cookie, direction, inner: bytes.subarray(end) };
}
