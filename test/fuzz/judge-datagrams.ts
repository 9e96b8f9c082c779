/**
 * What the engine sent for one packet, judged by what the packet was: whole, cut into segments, or
 * into fragments. Everything sent must be right by itself and say what the packet said.
 */
import { type Decoded, decode, decodeGeneve, onesSum, transportRight } from './decode.ts';
import { gsoKind, type Sample } from './samples.ts';
import { must } from './trial.ts';
import { firewall, mtuLimit, type Sent, type World } from './world.ts';

const tunnelOverhead = 48;
const flag = { fin: 1, syn: 2, psh: 8, cwr: 128 };

/** What the tunnel carries at most, by the world's path MTU. */
export function innerMtuOf(world: World): number {
  return Math.max(68, Math.min(world.socket.mtu, mtuLimit) - tunnelOverhead);
}

/** @returns how many packets were sent, as they are counted: a fragmented one is one */
export function judgeDatagrams(
  sample: Sample,
  packet: Decoded,
  sent: readonly Sent[],
  direction: number,
  innerMtu: number,
): number {
  const inners: Buffer[] = [];
  for (const { datagrams, peer, tos } of sent) {
    must(peer === firewall, () => `sent to ${peer}`);
    must(tos === (sample.bytes[1] & 0xfc), () => `TOS ${tos}`);
    for (const bytes of datagrams) inners.push(judgeTunnel(bytes, direction, innerMtu));
  }
  const finished = finish(sample, packet);
  const { part, protocol, total } = packet;
  const isTcp = part === 'whole' && protocol === 6;
  if (gsoKind(sample) === 0 && total <= innerMtu) {
    must(inners.length === 1, () => `${inners.length} datagrams for a packet that fits`);
    judgeWhole(sample, packet, finished, inners[0], innerMtu);
    return 1;
  }
  if (gsoKind(sample) !== 0 || isTcp) {
    judgeSegments(sample, packet, finished, inners, innerMtu);
    return inners.length;
  }
  judgeFragments(packet, finished, inners);
  return 1;
}

/** @returns the packet inside */
function judgeTunnel(bytes: Buffer, direction: number, innerMtu: number): Buffer {
  const tunnel = decodeGeneve(bytes);
  must(
    tunnel?.cookie !== undefined,
    () => `no tunnel header: ${bytes.subarray(0, 24).toString('hex')}`,
  );
  must(tunnel.direction === direction, () => `direction ${tunnel.direction}`);
  must(tunnel.inner.length <= innerMtu, () => `${tunnel.inner.length} bytes, MTU ${innerMtu}`);
  if (isUnreadable(tunnel.inner, innerMtu)) return tunnel.inner;
  const inner = decode(tunnel.inner);
  must(
    inner !== undefined,
    () => `sent a bad packet: ${tunnel.inner.subarray(0, 64).toString('hex')}`,
  );
  must(inner.total === tunnel.inner.length, () => `total length ${inner.total}`);
  return tunnel.inner;
}

/** A first fragment, where the tunnel has less room than the longest headers. */
function isUnreadable(inner: Buffer, innerMtu: number): boolean {
  return inner.length >= 28 && (inner[6] & 0x20) !== 0 && innerMtu < 120;
}

/** The packet by its total length, its checksum complete as the kernel would complete it. */
function finish({ bytes, checksumOffset, checksumStart }: Sample, { total }: Decoded): Buffer {
  const finished = Buffer.from(bytes.subarray(0, total));
  if (checksumStart === 0) return finished;
  const sum = 0xffff - onesSum(finished, checksumStart, total);
  finished.writeUInt16BE(sum || 0xffff, checksumStart + checksumOffset);
  return finished;
}

function judgeWhole(
  sample: Sample,
  packet: Decoded,
  finished: Buffer,
  inner: Buffer,
  innerMtu: number,
): void {
  const isSyn = packet.part === 'whole' && packet.protocol === 6 && (packet.flags & flag.syn) !== 0;
  if (!isSyn) {
    must(finished.equals(inner), () => `changed: ${difference(finished, inner)}`);
    return;
  }
  const clamped = Buffer.from(finished);
  clampMss(clamped, packet, innerMtu - 40);
  // A checksum that was right stays right, and one that was wrong stays wrong.
  const field = packet.headerLength + 16;
  const { checksumOffset, checksumStart } = sample;
  const isOwn = checksumStart === packet.headerLength && checksumOffset === 16;
  const weird = checksumStart !== 0 && !isOwn;
  if (!weird) {
    const { headerLength, total } = packet;
    const before = transportRight(finished, headerLength, total);
    const after = transportRight(inner, headerLength, total);
    must(before === after, () => `checksum of a SYN: right before ${before}, after ${after}`);
  }
  inner.copy(clamped, field, field, field + 2);
  must(clamped.equals(inner) || weird, () => `SYN changed: ${difference(clamped, inner)}`);
}

/** Every MSS option, as far as the options make sense. */
function clampMss(bytes: Buffer, { headerLength, transportLength }: Decoded, mss: number): void {
  const end = headerLength + transportLength;
  for (let at = headerLength + 20; at < end - 1 && bytes[at] !== 0; ) {
    const length = bytes[at] === 1 ? 1 : bytes[at + 1];
    if (bytes[at] !== 1 && (length < 2 || at + length > end)) return;
    if (bytes[at] === 2 && length === 4 && bytes.readUInt16BE(at + 2) > mss) {
      bytes.writeUInt16BE(Math.max(mss, 1), at + 2);
    }
    at += length;
  }
}

function judgeSegments(
  sample: Sample,
  packet: Decoded,
  finished: Buffer,
  inners: readonly Buffer[],
  innerMtu: number,
): void {
  const { headerLength, protocol, total, transportLength } = packet;
  const headers = headerLength + transportLength;
  const ownOffset = protocol === 6 ? 16 : 6;
  const vouched = sample.checksumStart === headerLength && sample.checksumOffset === ownOffset;
  const right = vouched || transportRight(finished, headerLength, total);
  must(right, () => 'cutting repaired a wrong checksum');
  const limit =
    gsoKind(sample) === 0 ? innerMtu - headers : Math.min(sample.gsoSize, innerMtu - headers);
  let at = headers;
  inners.forEach((inner, index) => {
    const payload = inner.subarray(headers);
    const isLast = index === inners.length - 1;
    const size = Math.min(limit, total - at);
    must(
      payload.length === size,
      () => `segment ${index} has ${payload.length} bytes, not ${size}`,
    );
    const expected = Buffer.concat([
      finished.subarray(0, headers),
      finished.subarray(at, at + size),
    ]);
    expected.writeUInt16BE(expected.length, 2);
    expected.writeUInt16BE((packet.id + index) & 0xffff, 4);
    inner.copy(expected, 10, 10, 12);
    if (protocol === 6) {
      const sequence = finished.readUInt32BE(headerLength + 4) + at - headers;
      expected.writeUInt32BE(sequence % 2 ** 32, headerLength + 4);
      if (!isLast) expected[headerLength + 13] &= ~(flag.fin | flag.psh);
      if (index > 0) expected[headerLength + 13] &= ~flag.cwr;
    } else {
      expected.writeUInt16BE(8 + size, headerLength + 4);
    }
    const field = headerLength + (protocol === 6 ? 16 : 6);
    inner.copy(expected, field, field, field + 2);
    // A SYN that is cut has had its MSS clamped; nobody cuts SYNs but who forges them.
    const same = expected.equals(inner) || (packet.flags & flag.syn) !== 0;
    must(same, () => `segment ${index}: ${difference(expected, inner)}`);
    const sound = transportRight(inner, headerLength, inner.length);
    must(sound, () => `checksum of segment ${index}`);
    at += size;
  });
  must(at === total, () => `${total - at} bytes of payload are missing`);
}

function judgeFragments(packet: Decoded, finished: Buffer, inners: readonly Buffer[]): void {
  const { dontFragment, headerLength, more, offset, part, total } = packet;
  must(!dontFragment && part !== 'error', () => 'fragmented what may not be');
  let at = headerLength;
  inners.forEach((inner, index) => {
    const isLast = index === inners.length - 1;
    const field = inner.readUInt16BE(6);
    const begins = (field & 0x1fff) * 8;
    must(begins === offset + at - headerLength, () => `fragment ${index} at ${begins}`);
    must(((field & 0x2000) !== 0) === (more || !isLast), () => `fragment ${index}: ${field}`);
    const size = inner.length - headerLength;
    must(isLast || size % 8 === 0, () => `fragment ${index} of ${size} bytes`);
    const expected = Buffer.concat([
      finished.subarray(0, headerLength),
      finished.subarray(at, at + size),
    ]);
    inner.copy(expected, 2, 2, 4);
    inner.copy(expected, 6, 6, 8);
    inner.copy(expected, 10, 10, 12);
    if (index > 0) inner.copy(expected, 20, 20, headerLength);
    must(expected.equals(inner), () => `fragment ${index}: ${difference(expected, inner)}`);
    at += size;
  });
  must(at === total, () => `${total - at} bytes are missing`);
}

/** Where two packets begin to differ. */
export function difference(expected: Buffer, found: Buffer): string {
  let at = 0;
  while (at < expected.length && expected[at] === found[at]) at++;
  const show = (bytes: Buffer) => bytes.subarray(at, at + 16).toString('hex') || 'the end';
  return `of ${expected.length} and ${found.length} bytes, at ${at}: ${show(expected)}, ${show(found)}`;
}
