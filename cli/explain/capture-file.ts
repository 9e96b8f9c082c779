/**
 * The IPv4 packets of a capture, one after the other, each copied to the same zeroed buffer: so
 * a packet that the capture cut short can be read like a whole one. Files are pcapng
 * (pcapng-file.ts) or classic pcap (draft-ietf-opsawg-pcap, libpcap's savefile.c):
 *
 *     file header     24 bytes: magic, version 2.4, zone, accuracy, snap length, link type
 *     packet header   16 bytes: seconds, fraction, bytes captured, bytes on the wire
 */
import { readFileSync, statSync } from 'node:fs';
import { UsageError } from '../usage-error.ts';
import { type Frame, pcapngFrames, pcapngMagic } from './pcapng-file.ts';

/** Read at once; larger captures can be cut with `editcap -c`. */
const maximumBytes = 1_073_741_824;
const fileHeaderLength = 24;
const packetHeaderLength = 16;
/** Microseconds and nanoseconds, as read in their own byte order. */
const magics = [0xa1b2c3d4, 0xa1b23c4d];

type Link = { readonly typeAt: number; readonly packetAt: number };

/** LINKTYPE_… of tcpdump.org/linktypes.html: where the EtherType and the packet begin. */
const linkTypes: Readonly<Record<number, Link>> = {
  1: { typeAt: 12, packetAt: 14 },
  113: { typeAt: 14, packetAt: 16 },
  276: { typeAt: 0, packetAt: 20 },
  // Raw IP, in the numbers of several systems.
  12: { typeAt: -1, packetAt: 0 },
  14: { typeAt: -1, packetAt: 0 },
  101: { typeAt: -1, packetAt: 0 },
  228: { typeAt: -1, packetAt: 0 },
};
const etherTypeIpv4 = 0x0800;
/** 802.1Q and 802.1ad: four more bytes, the last two an EtherType again. */
const vlanTypes = [0x8100, 0x88a8];

export type CapturedPacket = {
  /** The packet begins at 0; what was not captured is 0. */
  readonly view: DataView;
  /** Bytes from the IPv4 header that the capture has. */
  readonly captured: number;
};

export type Capture = {
  readonly packets: Iterable<CapturedPacket>;
  /** Frames that hold no IPv4; complete when `packets` has ended. */
  readonly others: () => number;
};

/** @throws UsageError for what is no capture file, or of a link type that we do not know */
export function openCapture(file: string): Capture {
  let bytes: Uint8Array;
  try {
    if (statSync(file).size > maximumBytes) {
      throw new UsageError(`${file} is larger than 1 GiB: cut it with editcap -c`);
    }
    bytes = readFileSync(file);
  } catch (error) {
    if (error instanceof UsageError) throw error;
    throw new UsageError(`${file} cannot be read: ${(error as NodeJS.ErrnoException).code}`);
  }
  return readCapture(bytes, file);
}

/** `file` is the name to show. */
export function readCapture(bytes: Uint8Array, file: string): Capture {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const isPcapng = bytes.length >= 4 && view.getUint32(0) === pcapngMagic;
  const frames = isPcapng ? pcapngFrames(view, file) : classicFrames(view, file);
  // A file of one unknown link type is told before anything is made of it.
  const first = frames.next();
  if (first.done !== true) linkOf(first.value, file);
  let others = 0;
  const scratch = new Uint8Array(65_536);
  const packet = new DataView(scratch.buffer);
  function* packets(): Generator<CapturedPacket> {
    let used = 0;
    for (let next = first; next.done !== true; next = frames.next()) {
      const { end, start } = next.value;
      const packetAt = ipv4At(view, start, end, linkOf(next.value, file));
      if (packetAt < 0) {
        others++;
        continue;
      }
      const captured = Math.min(end - packetAt, scratch.length);
      scratch.fill(0, 0, used);
      scratch.set(bytes.subarray(packetAt, packetAt + captured));
      used = captured;
      yield { view: packet, captured };
    }
  }
  return { packets: packets(), others: () => others };
}

function linkOf({ linkType }: Frame, file: string): Link {
  const link = linkTypes[linkType];
  if (link !== undefined) return link;
  throw new UsageError(
    `${file} has link type ${linkType}: Ethernet, Linux SLL and raw IP are read`,
  );
}

function* classicFrames(view: DataView, file: string): Generator<Frame> {
  const size = view.byteLength;
  const isWhole = size >= fileHeaderLength;
  const little = isWhole && magics.includes(view.getUint32(0, true));
  if (!isWhole || (!little && !magics.includes(view.getUint32(0)))) {
    throw new UsageError(`${file} is no capture file: neither pcap nor pcapng`);
  }
  // The upper bits tell of a frame check sequence.
  const linkType = view.getUint32(20, little) & 0xffff;
  linkOf({ linkType, start: 0, end: 0 }, file);
  for (let at = fileHeaderLength; at + packetHeaderLength <= size; ) {
    const start = at + packetHeaderLength;
    at = start + view.getUint32(at + 8, little);
    // A capture that ended in the middle of a packet.
    yield { linkType, start, end: Math.min(at, size) };
  }
}

/** Where the IPv4 header begins, or -1. */
function ipv4At(view: DataView, start: number, end: number, { typeAt, packetAt }: Link): number {
  let at = start + packetAt;
  if (typeAt >= 0) {
    if (at > end) return -1;
    let type = view.getUint16(start + typeAt);
    while (vlanTypes.includes(type) && at + 4 <= end) {
      type = view.getUint16(at + 2);
      at += 4;
    }
    if (type !== etherTypeIpv4) return -1;
  }
  return at < end && view.getUint8(at) >> 4 === 4 ? at : -1;
}
