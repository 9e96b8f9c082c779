/**
 * From a packet of the corpus to one that is wrong in a few fields, in its length or in what the
 * virtio header says; then, mostly, with lengths and checksums put right again, for a packet that
 * the first check refuses says nothing of the later ones.
 */
import { onesSum, transportChecksum } from './decode.ts';
import type { Random } from './random.ts';
import { type Sample, VirtioGso } from './samples.ts';

type Draft = { -readonly [K in keyof Sample]: Sample[K] };

/** Numbers at which a comparison, a mask or a size turns. */
const edges = [
  0, 1, 4, 7, 8, 15, 16, 19, 20, 21, 28, 40, 59, 60, 63, 64, 127, 128, 255, 256, 536, 576, 1024,
  1400, 1452, 1453, 1500, 0x1fff, 0x2000, 0x2001, 0x3fff, 0x4000, 0x7fff, 0x8000, 65507, 65515,
  65528, 65534, 65535,
];
const addresses = [
  0x0a01000a, 0x0a020014, 0x0a020015, 0x0a090004, 0x0a0100ff, 0xc0000207, 0xe0000001, 0x7f000001,
  0xa9fe0001, 0xffffffff, 0,
];
const portNumbers = [0, 22, 53, 67, 68, 80, 443, 6081, 40000, 40001, 65535];
const protocols = [0, 1, 6, 17, 47, 50, 132, 255];

/** Offset and width of each field of an IPv4 header, then of what follows it. */
const ipFields = [
  [0, 1],
  [1, 1],
  [2, 2],
  [4, 2],
  [6, 2],
  [8, 1],
  [9, 1],
  [10, 2],
  [12, 4],
  [16, 4],
];
const nextFields = [
  [0, 2],
  [2, 2],
  [4, 2],
  [4, 4],
  [6, 2],
  [8, 4],
  [12, 1],
  [13, 1],
  [14, 2],
  [16, 2],
  [18, 2],
  [20, 1],
  [21, 1],
];

const headerLengthOf = (bytes: Buffer) => (bytes.length > 0 ? (bytes[0] & 15) * 4 : 0);

export class Mutator {
  private readonly random: Random;
  private readonly samples: readonly Sample[];
  private readonly small: readonly Sample[];

  constructor(random: Random, samples: readonly Sample[]) {
    this.random = random;
    this.samples = samples;
    this.small = samples.filter(({ bytes }) => bytes.length <= 4096);
  }

  /** A sample as it is; large ones seldom, for they take long. */
  pick(): Sample {
    return this.random.pick(this.random.once(64) ? this.samples : this.small);
  }

  /** A sample with up to four changes; one of five stays as it is. */
  next(): Sample {
    const { random } = this;
    const sample = this.pick();
    return random.once(5) ? sample : this.change(sample, 1 + random.below(4));
  }

  change(sample: Sample, times: number): Sample {
    const draft = { ...sample, bytes: Buffer.from(sample.bytes) };
    for (let i = 0; i < times; i++) this.changeOnce(draft);
    this.mend(draft);
    return draft;
  }

  private changeOnce(draft: Draft): void {
    const { random } = this;
    const { bytes } = draft;
    switch (random.below(16)) {
      case 0:
      case 1:
      case 2:
        return this.setField(bytes, 0, random.pick(ipFields));
      case 3:
      case 4:
      case 5:
        return this.setField(bytes, headerLengthOf(bytes), random.pick(nextFields));
      case 6:
        if (bytes.length > 0) bytes[random.below(bytes.length)] ^= 1 << random.below(8);
        return;
      case 7:
        draft.bytes = bytes.subarray(0, random.below(bytes.length + 1));
        return;
      case 8:
        draft.bytes = Buffer.concat([bytes, Buffer.alloc(random.below(64), random.next())]);
        return;
      case 9:
        return this.splice(draft);
      case 10:
        return this.insertOptions(draft);
      case 11:
        return swapEnds(bytes);
      case 12:
        return this.fragment(bytes);
      case 13:
        return this.port(bytes);
      default:
        return this.changeVirtio(draft);
    }
  }

  private setField(bytes: Buffer, base: number, [offset, width]: readonly number[]): void {
    const { random } = this;
    const at = base + offset;
    if (at + width > bytes.length) return;
    const old = bytes.readUIntBE(at, width);
    let value = random.next();
    if (width === 4) value = random.pick(addresses);
    else if (base === 0 && offset === 9) value = random.pick(protocols);
    else if (random.once(3)) value = old + random.below(17) - 8;
    else if (random.once(2)) value = random.pick(edges);
    bytes.writeUIntBE((value >>> 0) % 2 ** (8 * width), at, width);
  }

  private splice(draft: Draft): void {
    const { random } = this;
    const other = random.pick(this.small).bytes;
    const head = draft.bytes.subarray(0, random.below(draft.bytes.length + 1));
    draft.bytes = Buffer.concat([head, other.subarray(random.below(other.length + 1))]);
  }

  private insertOptions(draft: Draft): void {
    const { random } = this;
    const header = headerLengthOf(draft.bytes);
    const words = 1 + random.below(10);
    if (draft.bytes.length < header || header + 4 * words > 60 || header < 20) return;
    const options = Buffer.alloc(4 * words);
    for (let i = 0; i < options.length; i++)
      options[i] = random.pick([0, 1, 2, 4, 7, 130, 148, 255]);
    const { bytes } = draft;
    draft.bytes = Buffer.concat([bytes.subarray(0, header), options, bytes.subarray(header)]);
    draft.bytes[0] = (draft.bytes[0] & 0xf0) | (header / 4 + words);
  }

  private fragment(bytes: Buffer): void {
    const { random } = this;
    if (bytes.length < 8) return;
    const units = random.pick([0, 0, 1, 2, 3, 185, 8190, 8191, random.below(8192)]);
    bytes.writeUInt16BE((random.pick([0, 2, 4, 6, 8]) << 12) | units, 6);
  }

  private port(bytes: Buffer): void {
    const at = headerLengthOf(bytes) + 2 * this.random.below(2);
    if (at + 2 <= bytes.length) bytes.writeUInt16BE(this.random.pick(portNumbers), at);
  }

  private changeVirtio(draft: Draft): void {
    const { random } = this;
    switch (random.below(6)) {
      case 0:
        draft.gso = random.pick([...Object.values(VirtioGso), random.below(256)]);
        return;
      case 1:
        // Not 0 and not tiny, mostly: each segment costs as much as a packet.
        draft.gsoSize = random.once(8) ? random.pick(edges) : 200 + random.below(1400);
        return;
      case 2:
        draft.checksumStart = random.once(2) ? headerLengthOf(draft.bytes) : random.pick(edges);
        return;
      case 3:
        draft.checksumOffset = random.pick([0, 2, 6, 16, ...edges]);
        return;
      case 4:
        draft.checksumStart = 0;
        return;
      default:
        draft.gso = VirtioGso.None;
    }
  }

  /** Total length, transport checksum and header checksum, each mostly. */
  private mend(draft: Draft): void {
    const { random } = this;
    const { bytes } = draft;
    const header = headerLengthOf(bytes);
    if (bytes.length < 20 || header < 20 || header > bytes.length) return;
    if (random.below(4) > 0) bytes.writeUInt16BE(Math.min(bytes.length, 65535), 2);
    const total = Math.min(bytes.readUInt16BE(2), bytes.length);
    const room = total - header;
    if (random.below(3) > 0) {
      if (bytes[9] === 17 && room >= 8) bytes.writeUInt16BE(room, header + 4);
      const hasField = (bytes[9] === 6 && room >= 20) || (bytes[9] === 17 && room >= 8);
      if (hasField && draft.checksumStart === 0) {
        const at = header + (bytes[9] === 6 ? 16 : 6);
        bytes.writeUInt16BE(transportChecksum(bytes, header, total), at);
      }
    }
    if (random.below(8) > 0) mendHeader(bytes);
  }
}

/** The header checksum of the IPv4 packet at the start of `bytes`, put right. */
export function mendHeader(bytes: Buffer): void {
  bytes.writeUInt16BE(0, 10);
  bytes.writeUInt16BE(0xffff - onesSum(bytes, 0, headerLengthOf(bytes)), 10);
}

/** The packet of the other direction, as far as addresses and ports go. */
function swapEnds(bytes: Buffer): void {
  const header = headerLengthOf(bytes);
  if (bytes.length < 20) return;
  const source = bytes.readUInt32BE(12);
  bytes.writeUInt32BE(bytes.readUInt32BE(16), 12);
  bytes.writeUInt32BE(source, 16);
  if (bytes.length < header + 4 || header < 20) return;
  if (bytes[9] !== 6 && bytes[9] !== 17) return;
  const port = bytes.readUInt16BE(header);
  bytes.writeUInt16BE(bytes.readUInt16BE(header + 2), header);
  bytes.writeUInt16BE(port, header + 2);
}
