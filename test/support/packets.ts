/** Packets for tests, built the slow and obvious way; shares nothing with parsers/. */

export const TCP = { FIN: 1, SYN: 2, RST: 4, PSH: 8, ACK: 16, URG: 32, ECE: 64, CWR: 128 };

/** RFC 1071, naively: the ones' complement sum of big-endian words, complemented. */
function naiveChecksum(...parts: Uint8Array[]): number {
  const bytes = Buffer.concat(parts);
  let sum = 0;
  for (let i = 0; i < bytes.length; i += 2) sum += (bytes[i] << 8) | (bytes[i + 1] ?? 0);
  while (sum > 0xffff) sum = (sum & 0xffff) + Math.floor(sum / 0x10000);
  return ~sum & 0xffff;
}

/** `10.1.0.10` as the int32 that getInt32 reads off the wire. */
export function address(text: string): number {
  return Buffer.from(text.split('.').map(Number)).readInt32BE();
}

function word(value: number): Buffer {
  const buffer = Buffer.alloc(2);
  buffer.writeUInt16BE(value & 0xffff);
  return buffer;
}

function double(value: number): Buffer {
  const buffer = Buffer.alloc(4);
  buffer.writeUInt32BE(value >>> 0);
  return buffer;
}

export type Ip = {
  source: string;
  target: string;
  id?: number;
  ttl?: number;
  tos?: number;
  df?: boolean;
  mf?: boolean;
  /** Bytes. */
  offset?: number;
  options?: Uint8Array;
};

export function ipv4(ip: Ip, protocol: number, payload: Uint8Array): Buffer {
  const options = ip.options ?? new Uint8Array(0);
  const header = Buffer.alloc(20 + options.length);
  header[0] = 0x40 | (header.length / 4);
  header[1] = ip.tos ?? 0;
  header.writeUInt16BE(header.length + payload.length, 2);
  header.writeUInt16BE(ip.id ?? 0x1234, 4);
  header.writeUInt16BE((ip.df ? 0x4000 : 0) | (ip.mf ? 0x2000 : 0) | ((ip.offset ?? 0) / 8), 6);
  header[8] = ip.ttl ?? 64;
  header[9] = protocol;
  header.writeInt32BE(address(ip.source), 12);
  header.writeInt32BE(address(ip.target), 16);
  header.set(options, 20);
  header.writeUInt16BE(naiveChecksum(header), 10);
  return Buffer.concat([header, payload]);
}

function pseudo(ip: Ip, protocol: number, length: number): Buffer {
  return Buffer.concat([
    double(address(ip.source)),
    double(address(ip.target)),
    Buffer.from([0, protocol]),
    word(length),
  ]);
}

export type Tcp = {
  from: number;
  to: number;
  seq?: number;
  ack?: number;
  flags?: number;
  window?: number;
  options?: Uint8Array;
  payload?: Uint8Array;
  /** Leave only the pseudo-header sum in the checksum field, as the kernel does for offload. */
  partial?: boolean;
};

export function tcp(ip: Ip, segment: Tcp): Buffer {
  const options = segment.options ?? new Uint8Array(0);
  const payload = segment.payload ?? new Uint8Array(0);
  const header = Buffer.alloc(20 + options.length);
  header.writeUInt16BE(segment.from, 0);
  header.writeUInt16BE(segment.to, 2);
  header.writeUInt32BE((segment.seq ?? 1) >>> 0, 4);
  header.writeUInt32BE((segment.ack ?? 0) >>> 0, 8);
  header[12] = (header.length / 4) << 4;
  header[13] = segment.flags ?? TCP.ACK;
  header.writeUInt16BE(segment.window ?? 1000, 14);
  header.set(options, 20);
  const cover = pseudo(ip, 6, header.length + payload.length);
  const sum = segment.partial
    ? ~naiveChecksum(cover) & 0xffff
    : naiveChecksum(cover, header, payload);
  header.writeUInt16BE(sum, 16);
  return ipv4({ df: true, ...ip }, 6, Buffer.concat([header, payload]));
}

export function udp(ip: Ip, from: number, to: number, payload: Uint8Array): Buffer {
  const header = Buffer.concat([word(from), word(to), word(8 + payload.length), word(0)]);
  header.writeUInt16BE(
    naiveChecksum(pseudo(ip, 17, 8 + payload.length), header, payload) || 0xffff,
    6,
  );
  return ipv4(ip, 17, Buffer.concat([header, payload]));
}

export function icmp(ip: Ip, type: number, code: number, rest: Uint8Array): Buffer {
  const message = Buffer.concat([Buffer.from([type, code, 0, 0]), rest]);
  message.writeUInt16BE(naiveChecksum(message), 2);
  return ipv4(ip, 1, message);
}

export function echo(ip: Ip, type: 0 | 8, identifier: number): Buffer {
  return icmp(ip, type, 0, Buffer.concat([word(identifier), word(1), Buffer.from('ping')]));
}

/** An MSS option (RFC 9293 3.2). */
export function mssOption(mss: number): Buffer {
  return Buffer.concat([Buffer.from([2, 4]), word(mss)]);
}

/** Cut an IPv4 packet into fragments of at most `mtu` bytes, the textbook way (RFC 791). */
export function fragments(packet: Uint8Array, mtu: number, ip: Ip): Buffer[] {
  const payload = packet.subarray(20);
  const step = Math.floor((mtu - 20) / 8) * 8;
  const parts: Buffer[] = [];
  for (let offset = 0; offset < payload.length; offset += step) {
    const more = offset + step < payload.length;
    parts.push(
      ipv4({ ...ip, offset, mf: more }, packet[9], payload.subarray(offset, offset + step)),
    );
  }
  return parts;
}

/** Whether the IPv4 header and the transport checksum of an unfragmented packet are right. */
export function checksumsRight(packet: Uint8Array): boolean {
  const header = packet.subarray(0, (packet[0] & 15) * 4);
  if (naiveChecksum(header) !== 0) return false;
  const transport = packet.subarray(header.length);
  if (packet[9] === 1) return naiveChecksum(transport) === 0;
  const cover = Buffer.concat([
    packet.subarray(12, 20),
    Buffer.from([0, packet[9]]),
    word(transport.length),
  ]);
  return naiveChecksum(cover, transport) === 0;
}
