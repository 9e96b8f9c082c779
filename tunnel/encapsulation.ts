/**
 * A tunnel format: what stands between the outer UDP header and the inner IPv4 header, how it is
 * written and how it is checked. tunnel/ is pure: no system call, no clock, no memory of its own.
 */
import { type MacAddress, parseMac } from '../parsers/ethernet.ts';
import { ipv4MinimumHeaderLength } from '../parsers/ipv4.ts';
import type { Reason } from '../parsers/reason.ts';
import { udpHeaderLength } from '../parsers/udp.ts';
import type { Direction } from './pieces.ts';

/** What a tunnel header says; a reused record. `check` assigns every field on every path. */
export type TunnelHeader = {
  /** Where the inner IPv4 header starts. */
  innerAt: number;
  /** int32; 0 when there is none. */
  cookie: number;
  /** 1 when the header carries our cookie. */
  hasCookie: 0 | 1;
  /** A Direction, or -1 when the header does not say. */
  direction: -1 | Direction;
  /** 1 for a control packet (GENEVE's O bit), whose payload is not for the network. */
  control: 0 | 1;
  /** Which options were read, in the profile's own way of counting; 0 before the first. */
  seen: number;
};

export function createTunnelHeader(): TunnelHeader {
  return { innerAt: 0, cookie: 0, hasCookie: 0, direction: -1, control: 0, seen: 0 };
}

/** Forget what the last packet said; every `check` begins with it. */
export function resetTunnelHeader(header: TunnelHeader, innerAt: number): void {
  header.innerAt = innerAt;
  header.cookie = 0;
  header.hasCookie = 0;
  header.direction = -1;
  header.control = 0;
  header.seen = 0;
}

export type EncapsulationName = 'geneve' | 'gwlb' | 'gcp' | 'vxlan';

/**
 * Implementations neither allocate nor throw. The header length is fixed, so that every datagram
 * of one send has the same offset; what is received may be longer.
 */
export interface Encapsulation {
  readonly name: EncapsulationName;
  /** UDP destination port. */
  readonly port: number;
  /** Bytes between the UDP header and the inner IPv4 header, as written. */
  readonly headerLength: number;
  /** Bytes added to an inner packet: outer IPv4 (20), UDP (8) and `headerLength`. */
  readonly overhead: number;
  /** Bits of the flow's cookie that the header carries, int32: -1 for all, 0 for none. */
  readonly cookieMask: number;
  /** Write every byte of `headerLength`. `cookie` is int32. */
  write(view: DataView, at: number, direction: Direction, cookie: number): void;
  /** Check a UDP payload and fill `header`; Ok or a Tunnel… reason. Does not look at the packet. */
  check(view: DataView, at: number, end: number, header: TunnelHeader): Reason;
}

/** Bytes that a tunnel header adds to an inner packet. */
export function overheadOf(headerLength: number): number {
  return ipv4MinimumHeaderLength + udpHeaderLength + headerLength;
}

/** The largest inner packet, in bytes, when the path carries outer packets of `pathMtu` bytes. */
export function innerMtu(pathMtu: number, encapsulation: Encapsulation): number {
  return pathMtu - encapsulation.overhead;
}

/** Inner Ethernet addresses when the configuration names none: workload end and firewall end. */
export const defaultInnerSource = '02:00:00:00:00:01';
export const defaultInnerDestination = '02:00:00:00:00:02';

/** Cold: throws RangeError for what is not a MAC address. */
export function requireMac(text: string): MacAddress {
  const address = parseMac(text);
  if (address === undefined) throw new RangeError(`not a MAC address: ${text}`);
  return address;
}

/** Virtual network identifiers have 24 bits. Cold: throws RangeError. */
export function requireVni(vni: number): number {
  if (!Number.isInteger(vni) || vni < 0 || vni > 0xffffff) {
    throw new RangeError(`a VNI is a whole number from 0 to 16777215, not ${vni}`);
  }
  return vni;
}
