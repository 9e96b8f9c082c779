/**
 * Frames of pcapng files (draft-ietf-opsawg-pcapng) of either byte order: what Wireshark, dumpcap
 * and `microperimeter capture` write. Blocks other than packets and interfaces are passed over.
 */
import { UsageError } from '../usage-error.ts';

export type Frame = {
  readonly linkType: number;
  /** Where it stands in the file, as far as it was captured. */
  readonly start: number;
  readonly end: number;
};

export const pcapngMagic = 0x0a0d_0d0a;
const byteOrderMagic = 0x1a2b_3c4d;
const interfaceBlock = 1;
const simplePacketBlock = 3;
const enhancedPacketBlock = 6;
const smallestBlock = 12;
const enhancedHeader = 28;
const simpleHeader = 12;

/** Ends where the file is cut. Throws a UsageError for what is no pcapng. */
export function* pcapngFrames(view: DataView, file: string): Generator<Frame> {
  let little = true;
  let linkTypes: number[] = [];
  for (let at = 0; at + smallestBlock <= view.byteLength; ) {
    if (view.getUint32(at) === pcapngMagic) {
      little = view.getUint32(at + 8, true) === byteOrderMagic;
      if (!little && view.getUint32(at + 8) !== byteOrderMagic) throw damaged(file, at);
      linkTypes = [];
    }
    const type = view.getUint32(at, little);
    const size = view.getUint32(at + 4, little);
    if (size < smallestBlock || size % 4 !== 0) throw damaged(file, at);
    if (at + size > view.byteLength) return;
    if (type === interfaceBlock) linkTypes.push(view.getUint16(at + 8, little));
    else {
      const frame = frameOf(view, at, size, type, little, linkTypes);
      if (frame !== undefined) yield frame;
    }
    at += size;
  }
}

function frameOf(
  view: DataView,
  at: number,
  size: number,
  type: number,
  little: boolean,
  linkTypes: readonly number[],
): Frame | undefined {
  if (type === enhancedPacketBlock && size >= enhancedHeader + 4) {
    const start = at + enhancedHeader;
    const captured = view.getUint32(at + 20, little);
    const linkType = linkTypes[view.getUint32(at + 8, little)] ?? -1;
    return { linkType, start, end: Math.min(start + captured, at + size - 4) };
  }
  if (type === simplePacketBlock && size >= simpleHeader + 4) {
    const start = at + simpleHeader;
    // Of the first interface, and cut to its snap length: as much as the block has.
    const original = view.getUint32(at + 8, little);
    return { linkType: linkTypes[0] ?? -1, start, end: Math.min(start + original, at + size - 4) };
  }
  return undefined;
}

function damaged(file: string, at: number): UsageError {
  return new UsageError(`${file} is damaged: at byte ${at} is no block of pcapng`);
}
