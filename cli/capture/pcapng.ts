/**
 * Blocks of pcapng files (draft-ietf-opsawg-pcapng), in the byte order of little-endian hosts. A
 * block is its type, its length, a body, options, and its length again; everything is padded to 4.
 */

const blockType = {
  sectionHeader: 0x0a0d_0d0a,
  interfaceDescription: 1,
  interfaceStatistics: 5,
  enhancedPacket: 6,
} as const;
const byteOrderMagic = 0x1a2b_3c4d;
/** LINKTYPE_RAW: an IPv4 or IPv6 header comes first. */
const linkTypeRaw = 101;

const option = {
  comment: 1,
  shbHardware: 2,
  shbApplication: 4,
  ifName: 2,
  ifDescription: 3,
  ifResolution: 9,
  packetFlags: 2,
  statisticsReceived: 4,
  statisticsDropped: 5,
} as const;
/** if_tsresol: a time is in units of 10^-6 seconds. */
const microseconds = 6;

export const PacketWay = { Unknown: 0, Inbound: 1, Outbound: 2 } as const;
export type PacketWay = (typeof PacketWay)[keyof typeof PacketWay];

/** Begins a file. */
export function sectionHeader(application: string, comment: string): Buffer {
  const body = Buffer.alloc(16);
  body.writeUInt32LE(byteOrderMagic, 0);
  body.writeUInt16LE(1, 4);
  // The length of the section is not known: -1.
  body.fill(0xff, 8);
  return block(blockType.sectionHeader, body, [
    textOption(option.comment, comment),
    textOption(option.shbApplication, application),
  ]);
}

/** Interfaces are numbered in their order, from 0. */
export function interfaceDescription(
  name: string,
  description: string,
  snapLength: number,
): Buffer {
  const body = Buffer.alloc(8);
  body.writeUInt16LE(linkTypeRaw, 0);
  body.writeUInt32LE(snapLength, 4);
  return block(blockType.interfaceDescription, body, [
    textOption(option.ifName, name),
    textOption(option.ifDescription, description),
    optionOf(option.ifResolution, Buffer.of(microseconds)),
  ]);
}

export function enhancedPacket(
  interfaceNumber: number,
  timeMs: number,
  bytes: Uint8Array,
  originalLength: number,
  way: PacketWay,
  comment: string,
): Buffer {
  const body = Buffer.alloc(20 + padded(bytes.length));
  const { high, low } = timestamp(timeMs);
  body.writeUInt32LE(interfaceNumber, 0);
  body.writeUInt32LE(high, 4);
  body.writeUInt32LE(low, 8);
  body.writeUInt32LE(bytes.length, 12);
  body.writeUInt32LE(originalLength, 16);
  body.set(bytes, 20);
  const flags = Buffer.alloc(4);
  flags.writeUInt32LE(way, 0);
  return block(blockType.enhancedPacket, body, [
    textOption(option.comment, comment),
    optionOf(option.packetFlags, flags),
  ]);
}

/** Ends a file: what an interface brought and what of it was lost, as far as it is known. */
export function interfaceStatistics(
  interfaceNumber: number,
  timeMs: number,
  received: number,
  dropped: number,
): Buffer {
  const body = Buffer.alloc(12);
  const { high, low } = timestamp(timeMs);
  body.writeUInt32LE(interfaceNumber, 0);
  body.writeUInt32LE(high, 4);
  body.writeUInt32LE(low, 8);
  return block(blockType.interfaceStatistics, body, [
    optionOf(option.statisticsReceived, counter(received)),
    optionOf(option.statisticsDropped, counter(dropped)),
  ]);
}

function timestamp(timeMs: number): { readonly high: number; readonly low: number } {
  const time = Math.round(timeMs * 1000);
  return { high: Math.floor(time / 2 ** 32), low: time >>> 0 };
}

function counter(value: number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeUInt32LE(value >>> 0, 0);
  bytes.writeUInt32LE(Math.floor(value / 2 ** 32), 4);
  return bytes;
}

function textOption(code: number, text: string): Buffer {
  return optionOf(code, Buffer.from(text));
}

function optionOf(code: number, value: Uint8Array): Buffer {
  const bytes = Buffer.alloc(4 + padded(value.length));
  bytes.writeUInt16LE(code, 0);
  bytes.writeUInt16LE(value.length, 2);
  bytes.set(value, 4);
  return bytes;
}

function block(type: number, body: Uint8Array, options: readonly Uint8Array[]): Buffer {
  const length = Buffer.alloc(4);
  const endOfOptions = Buffer.alloc(4);
  const head = Buffer.alloc(8);
  const parts = [head, body, ...options, endOfOptions, length];
  const size = parts.reduce((sum, part) => sum + part.length, 0);
  head.writeUInt32LE(type, 0);
  head.writeUInt32LE(size, 4);
  length.writeUInt32LE(size, 0);
  return Buffer.concat(parts, size);
}

function padded(length: number): number {
  return (length + 3) & ~3;
}
