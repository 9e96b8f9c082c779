/** Addresses and control messages of the tunnel's sends, as bytes. */
import * as abi from './abi/net.ts';
import { LITTLE_ENDIAN } from './syscall.ts';

/** One control message, padded to 8; a send has up to two: UDP_SEGMENT, then IP_TOS. */
export const controlLength = abi.cmsghdr.size + 8;

/** The parts of both control messages that never change: UDP_SEGMENT (u16), then IP_TOS (int). */
export function writeControlHeaders(view: DataView, at: number): void {
  view.setUint32(at + abi.cmsghdr.cmsg_len, abi.cmsghdr.size + 2, LITTLE_ENDIAN);
  view.setInt32(at + abi.cmsghdr.cmsg_level, abi.SOL_UDP, LITTLE_ENDIAN);
  view.setInt32(at + abi.cmsghdr.cmsg_type, abi.UDP_SEGMENT, LITTLE_ENDIAN);
  at += controlLength;
  view.setUint32(at + abi.cmsghdr.cmsg_len, abi.cmsghdr.size + 4, LITTLE_ENDIAN);
  view.setInt32(at + abi.cmsghdr.cmsg_level, abi.IPPROTO_IP, LITTLE_ENDIAN);
  view.setInt32(at + abi.cmsghdr.cmsg_type, abi.IP_TOS, LITTLE_ENDIAN);
}

/** Their values; returns how many bytes of control messages the send has. */
export function writeControlValues(
  view: DataView,
  at: number,
  segmentSize: number,
  tos: number,
): number {
  view.setUint16(at + abi.cmsghdr.size, segmentSize, LITTLE_ENDIAN);
  view.setInt32(at + controlLength + abi.cmsghdr.size, tos, LITTLE_ENDIAN);
  return (segmentSize === 0 ? 0 : controlLength) + (tos === 0 ? 0 : controlLength);
}

/** A sockaddr_in at the start of `view`; `address` as int32 of its wire bytes. */
export function writeSocketAddress(view: DataView, address: number, port: number): void {
  view.setUint16(abi.sockaddr_in.sin_family, abi.AF_INET, LITTLE_ENDIAN);
  view.setUint16(abi.sockaddr_in.sin_port, port);
  view.setInt32(abi.sockaddr_in.sin_addr, address);
}

/** A pointer that `setPointer` wrote. */
export function getPointer(view: DataView, at: number): number {
  return view.getUint32(at, LITTLE_ENDIAN) + view.getUint32(at + 4, LITTLE_ENDIAN) * 0x1_0000_0000;
}
