/**
 * VXLAN (RFC 7348 section 5): an Ethernet frame behind 8 bytes. There is room for neither a cookie
 * nor a direction: egress and ingress may use two VNIs, and an inline firewall may return what came
 * by one on the other, so the answer's VNI says nothing about its direction.
 *
 *      0                   1                   2                   3
 *      0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
 *     +---------------+-----------------------------------------------+
 *     |R|R|R|R|I|R|R|R|                   Reserved                    |
 *     +---------------+-------------------------------+---------------+
 *     |           VXLAN network identifier            |    Reserved   |
 *     +-----------------------------------------------+---------------+
 *     |                Ethernet header (14 bytes)                     |
 */
import {
  ethernetHeaderLength,
  etherType,
  etherTypeIpv4,
  type MacAddress,
  writeEthernet,
} from '../parsers/ethernet.ts';
import { Reason } from '../parsers/reason.ts';
import {
  defaultInnerDestination,
  defaultInnerSource,
  type Encapsulation,
  overheadOf,
  requireMac,
  requireVni,
  resetTunnelHeader,
  type TunnelHeader,
} from './encapsulation.ts';
import { Direction } from './pieces.ts';

const flagsOffset = 0;
const vniOffset = 4;
const baseLength = 8;

/** The I flag as the first word of the header: it must be set, all else is ignored on receipt. */
const vniFlag = 0x08000000;

export type VxlanOptions = {
  /** UDP destination port. */
  port: number;
  /** 24 bits each; may be equal. */
  egressVni: number;
  ingressVni: number;
  /** Addresses of the inner Ethernet header, such as 02:00:00:00:00:01. */
  innerSource?: string;
  innerDestination?: string;
};

/** Cold: throws RangeError for values that the header has no room for. */
export function createVxlan(options: VxlanOptions): Encapsulation {
  return new Vxlan(options);
}

class Vxlan implements Encapsulation {
  readonly name = 'vxlan';
  readonly port: number;
  readonly headerLength = baseLength + ethernetHeaderLength;
  readonly overhead = overheadOf(baseLength + ethernetHeaderLength);
  readonly cookieMask = 0;
  readonly #egressVni: number;
  readonly #ingressVni: number;
  readonly #source: MacAddress;
  readonly #destination: MacAddress;

  constructor(options: VxlanOptions) {
    this.port = options.port;
    this.#egressVni = requireVni(options.egressVni);
    this.#ingressVni = requireVni(options.ingressVni);
    this.#source = requireMac(options.innerSource ?? defaultInnerSource);
    this.#destination = requireMac(options.innerDestination ?? defaultInnerDestination);
  }

  write(view: DataView, at: number, direction: Direction, _cookie: number): void {
    const vni = direction === Direction.Egress ? this.#egressVni : this.#ingressVni;
    view.setUint32(at + flagsOffset, vniFlag);
    view.setUint32(at + vniOffset, vni << 8);
    writeEthernet(view, at + baseLength, this.#source, this.#destination, etherTypeIpv4);
  }

  check(view: DataView, at: number, end: number, header: TunnelHeader): Reason {
    resetTunnelHeader(header, at);
    if (end - at < this.headerLength) return Reason.TunnelTooShort;
    header.innerAt = at + this.headerLength;
    if ((view.getUint32(at + flagsOffset) & vniFlag) === 0) return Reason.TunnelBadFlags;
    const vni = view.getUint32(at + vniOffset) >>> 8;
    if (vni !== this.#egressVni && vni !== this.#ingressVni) return Reason.TunnelVni;
    const protocol = etherType(view, at + baseLength);
    return protocol === etherTypeIpv4 ? Reason.Ok : Reason.TunnelBadProtocol;
  }
}
