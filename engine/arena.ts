/**
 * The memory that packets live in: allocated once, never grown, never resizable. A packet is two
 * numbers, `at` and `length`; `bytes` and `view` cover the whole arena.
 *
 * It is a WebAssembly memory because its ArrayBuffer keeps one address for life, so that system
 * calls write into it, TypeScript reads it through typed arrays and a WebAssembly function sums
 * checksums over it, all without a copy.
 *
 *     | device slots            | datagram slots          | scratch: headers | answer | held |
 *     | headroom | 64 KiB packet | 64 KiB datagram          |
 */

import { heldSlotLength, heldSlots } from './held-fragments.ts';

/** The largest IPv4 packet (RFC 791: total length is 16 bits). */
export const maximumPacketLength = 65535;

/**
 * Bytes kept free before a device packet. Terms: virtio header as the kernel writes it before the
 * packet (12), so that the IP header lands right after the headroom; rounded up to keep the IP
 * header on a 64-byte line.
 */
export const headroom = 64;

const pageLength = 65536;
/** A slot: headroom + packet, rounded to 64 so that slots do not share a cache line. */
export const slotLength = headroom + Math.ceil(maximumPacketLength / 64) * 64;

/**
 * Headers built in one breath: the worst batch is 64 super-packets of 64 KiB in segments of 536
 * bytes (RFC 879 minimum MSS) with 60 + 60 bytes of inner and 80 of tunnel header each; a real one
 * is a tenth of that. When a batch exhausts it the engine flushes and starts over.
 */
const scratchLength = 4 * 1024 * 1024;

/** The longest answer of ours: an ICMP error of 576 bytes (RFC 1812 section 4.3.2.3). */
const answerLength = 1024;

const heldLength = heldSlots * heldSlotLength;

export type Arena = {
  readonly bytes: Uint8Array;
  readonly view: DataView;
  readonly memory: WebAssembly.Memory;
  /** Offset of packet `slot` of the device batch: the first byte after the headroom. */
  readonly deviceSlots: Int32Array;
  /** Offset of datagram `slot` of the socket batch. */
  readonly datagramSlots: Int32Array;
  /** Offset and exclusive end of the scratch area. */
  readonly scratchAt: number;
  readonly scratchEnd: number;
  /** Room for one packet that we make ourselves (`answerLength` bytes). */
  readonly answerAt: number;
  /** Room for the fragments that wait for their first one, redirecting and reinjecting. */
  readonly heldAt: readonly [number, number];
};

/**
 * @param deviceCount how many device packets fit in one batch
 * @param datagramCount how many datagrams (64 KiB each, before they are taken apart) in one batch
 */
export function createArena(deviceCount: number, datagramCount: number): Arena {
  const slotsLength = (deviceCount + datagramCount) * slotLength;
  const heldAt = slotsLength + scratchLength + answerLength;
  const endAt = heldAt + 2 * heldLength;
  const pages = Math.ceil(endAt / pageLength);
  const memory = new WebAssembly.Memory({ initial: pages, maximum: pages });
  const deviceSlots = new Int32Array(deviceCount);
  for (let slot = 0; slot < deviceCount; slot++) deviceSlots[slot] = slot * slotLength + headroom;
  const datagramSlots = new Int32Array(datagramCount);
  for (let slot = 0; slot < datagramCount; slot++) {
    datagramSlots[slot] = (deviceCount + slot) * slotLength + headroom;
  }
  return {
    bytes: new Uint8Array(memory.buffer),
    view: new DataView(memory.buffer),
    memory,
    deviceSlots,
    datagramSlots,
    scratchAt: slotsLength,
    scratchEnd: slotsLength + scratchLength,
    answerAt: slotsLength + scratchLength,
    heldAt: [heldAt, heldAt + heldLength],
  };
}
