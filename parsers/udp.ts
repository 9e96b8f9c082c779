/**
 * The UDP header (RFC 768). After `checkUdp` said Ok no getter reads past `end`.
 *
 *      0                   1                   2                   3
 *      0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
 *     +-------------------------------+-------------------------------+
 *     |          Source port          |       Destination port        |
 *     +-------------------------------+-------------------------------+
 *     |            Length             |           Checksum            |
 *     +-------------------------------+-------------------------------+
 */
import { Reason } from './reason.ts';

const sourcePortOffset = 0;
const destinationPortOffset = 2;
const lengthOffset = 4;

export const udpChecksumOffset = 6;
export const udpHeaderLength = 8;

/** Ok when the header and as many bytes as its length field says lie before `end`. */
export function checkUdp(view: DataView, at: number, end: number): Reason {
  if (end - at < udpHeaderLength) return Reason.UdpTooShort;
  const length = view.getUint16(at + lengthOffset);
  if (length < udpHeaderLength || length > end - at) return Reason.UdpBadLength;
  return Reason.Ok;
}

export function udpSourcePort(view: DataView, at: number): number {
  return view.getUint16(at + sourcePortOffset);
}

export function udpDestinationPort(view: DataView, at: number): number {
  return view.getUint16(at + destinationPortOffset);
}

/** Header and payload, in bytes. */
export function udpLength(view: DataView, at: number): number {
  return view.getUint16(at + lengthOffset);
}

/** 0 means that the sender computed none. */
export function udpChecksum(view: DataView, at: number): number {
  return view.getUint16(at + udpChecksumOffset);
}

/** Invalidates the result of `checkUdp`. */
export function setUdpLength(view: DataView, at: number, length: number): void {
  view.setUint16(at + lengthOffset, length);
}

export function setUdpChecksum(view: DataView, at: number, checksum: number): void {
  view.setUint16(at + udpChecksumOffset, checksum);
}

/** Write every byte of the header. `length` counts the header too. */
export function writeUdp(
  view: DataView,
  at: number,
  sourcePort: number,
  destinationPort: number,
  length: number,
  checksum: number,
): void {
  view.setUint16(at + sourcePortOffset, sourcePort);
  view.setUint16(at + destinationPortOffset, destinationPort);
  view.setUint16(at + lengthOffset, length);
  view.setUint16(at + udpChecksumOffset, checksum);
}
