/**
 * GENEVE (RFC 8926) with one option of ours, which tells the direction and carries the flow's
 * cookie. Other options are skipped by their length; a critical one that we do not know drops the
 * packet (section 3.5). Reserved bits are ignored on receipt (section 3.4).
 *
 *      0                   1                   2                   3
 *      0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
 *     +---+-----------+-+-+-----------+-------------------------------+
 *     |Ver|  Opt Len  |O|C|    Rsvd.  |          Protocol type        |
 *     +---+-----------+-+-+-----------+---------------+---------------+
 *     |        Virtual network identifier             |    Reserved   |
 *     +-------------------------------+-+-------------+-----+---------+
 *     |          Option class         |C|    Type     |R|R|R| Length  |
 *     +---------------+---------------+-+-------------+-----+---------+
 *     | Flags       D |    Version    |            Reserved           |
 *     +---------------+---------------+-------------------------------+
 *     |                          Flow cookie                          |
 *     +---------------------------------------------------------------+
 *
 * Opt Len and Length count words of 4 bytes. D is 1 for ingress.
 */
import {
  ethernetHeaderLength,
  etherType,
  etherTypeEthernet,
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

const firstOffset = 0;
const flagsOffset = 1;
const protocolOffset = 2;
const vniOffset = 4;
const baseLength = 8;

const optionClassOffset = 0;
const optionTypeOffset = 2;
const optionLengthOffset = 3;
const optionHeaderLength = 4;
const dataFlagsOffset = 4;
const dataVersionOffset = 5;
const dataCookieOffset = 8;
const ourDataLength = 8;

const controlFlag = 0x80;
const criticalFlag = 0x40;
const optionCriticalFlag = 0x80;
const optionLengthMask = 0x1f;
const directionFlag = 0x01;
/** Layout of our option's data. Another version is an option that we do not know. */
const ourVersion = 1;

/** IANA port of GENEVE. */
export const genevePort = 6081;

export type GeneveOptions = {
  /** 24 bits. */
  vni: number;
  /** UDP destination port. */
  port: number;
  /** 16 bits; 0xfff0 to 0xffff are for experiments (RFC 8926 section 7). */
  optionClass: number;
  /** 8 bits, the highest of which makes the option critical. */
  optionType: number;
  /** What follows the options: an IPv4 header or an Ethernet header and then IPv4. */
  inner: 'ipv4' | 'ethernet';
  /** Addresses of the inner Ethernet header, such as 02:00:00:00:00:01. */
  innerSource?: string;
  innerDestination?: string;
};

/** Cold: throws RangeError for values that the header has no room for. */
export function createGeneve(options: GeneveOptions): Encapsulation {
  return new Geneve(options);
}

class Geneve implements Encapsulation {
  readonly name = 'geneve';
  readonly port: number;
  readonly headerLength: number;
  readonly overhead: number;
  readonly carriesCookie = true;
  readonly #vni: number;
  readonly #option: number;
  readonly #optionCritical: number;
  readonly #ethernet: boolean;
  readonly #source: MacAddress;
  readonly #destination: MacAddress;

  constructor(options: GeneveOptions) {
    const { optionClass, optionType } = options;
    if (!Number.isInteger(optionClass) || optionClass < 0 || optionClass > 0xffff) {
      throw new RangeError(`an option class is a number from 0 to 65535, not ${optionClass}`);
    }
    if (!Number.isInteger(optionType) || optionType < 0 || optionType > 0xff) {
      throw new RangeError(`an option type is a number from 0 to 255, not ${optionType}`);
    }
    this.port = options.port;
    this.#vni = requireVni(options.vni);
    this.#option = (optionClass << 8) | optionType;
    this.#optionCritical = (optionType & optionCriticalFlag) !== 0 ? criticalFlag : 0;
    this.#ethernet = options.inner === 'ethernet';
    this.#source = requireMac(options.innerSource ?? defaultInnerSource);
    this.#destination = requireMac(options.innerDestination ?? defaultInnerDestination);
    const ethernetLength = this.#ethernet ? ethernetHeaderLength : 0;
    this.headerLength = baseLength + optionHeaderLength + ourDataLength + ethernetLength;
    this.overhead = overheadOf(this.headerLength);
  }

  write(view: DataView, at: number, direction: Direction, cookie: number): void {
    view.setUint8(at + firstOffset, (optionHeaderLength + ourDataLength) >> 2);
    view.setUint8(at + flagsOffset, this.#optionCritical);
    view.setUint16(at + protocolOffset, this.#ethernet ? etherTypeEthernet : etherTypeIpv4);
    view.setUint32(at + vniOffset, this.#vni << 8);
    const option = at + baseLength;
    view.setUint32(option + optionClassOffset, (this.#option << 8) | (ourDataLength >> 2));
    view.setUint8(option + dataFlagsOffset, direction === Direction.Ingress ? directionFlag : 0);
    view.setUint8(option + dataVersionOffset, ourVersion);
    view.setUint16(option + dataVersionOffset + 1, 0);
    view.setInt32(option + dataCookieOffset, cookie);
    if (!this.#ethernet) return;
    const ethernetAt = option + optionHeaderLength + ourDataLength;
    writeEthernet(view, ethernetAt, this.#source, this.#destination, etherTypeIpv4);
  }

  check(view: DataView, at: number, end: number, header: TunnelHeader): Reason {
    resetTunnelHeader(header, at);
    if (end - at < baseLength) return Reason.TunnelTooShort;
    const first = view.getUint8(at + firstOffset);
    if (first >> 6 !== 0) return Reason.TunnelBadVersion;
    const optionsAt = at + baseLength;
    const optionsEnd = optionsAt + ((first & 0x3f) << 2);
    if (optionsEnd > end) return Reason.TunnelTooShort;
    header.innerAt = optionsEnd;
    if (view.getUint32(at + vniOffset) >>> 8 !== this.#vni) return Reason.TunnelVni;
    const reason = this.#readOptions(view, optionsAt, optionsEnd, header);
    if (reason !== Reason.Ok) return reason;
    if ((view.getUint8(at + flagsOffset) & controlFlag) !== 0) {
      // Whatever a control packet carries, it is not a packet for the network.
      header.control = 1;
      return Reason.Ok;
    }
    return this.#checkProtocol(view, at, end, header);
  }

  /**
   * The C bit only says that a critical option is among them; every option is looked at anyway, so
   * a critical one without the C bit is caught too.
   */
  #readOptions(view: DataView, at: number, end: number, header: TunnelHeader): Reason {
    while (at < end) {
      // Both ends are multiples of 4 bytes away from the start: an option header always fits.
      const dataLength = (view.getUint8(at + optionLengthOffset) & optionLengthMask) << 2;
      const next = at + optionHeaderLength + dataLength;
      if (next > end) return Reason.TunnelBadOptions;
      if (view.getUint32(at + optionClassOffset) >>> 8 === this.#option) {
        if (dataLength !== ourDataLength || header.hasCookie === 1) return Reason.TunnelBadOptions;
        this.#readOurs(view, at, header);
      } else if ((view.getUint8(at + optionTypeOffset) & optionCriticalFlag) !== 0) {
        return Reason.TunnelCriticalOption;
      }
      at = next;
    }
    return Reason.Ok;
  }

  #readOurs(view: DataView, at: number, header: TunnelHeader): void {
    if (view.getUint8(at + dataVersionOffset) !== ourVersion) return;
    const ingress = (view.getUint8(at + dataFlagsOffset) & directionFlag) !== 0;
    header.direction = ingress ? Direction.Ingress : Direction.Egress;
    header.cookie = view.getInt32(at + dataCookieOffset);
    header.hasCookie = 1;
  }

  #checkProtocol(view: DataView, at: number, end: number, header: TunnelHeader): Reason {
    const protocol = view.getUint16(at + protocolOffset);
    if (!this.#ethernet) {
      return protocol === etherTypeIpv4 ? Reason.Ok : Reason.TunnelBadProtocol;
    }
    if (protocol !== etherTypeEthernet) return Reason.TunnelBadProtocol;
    const ethernetAt = header.innerAt;
    if (end - ethernetAt < ethernetHeaderLength) return Reason.TunnelTooShort;
    header.innerAt = ethernetAt + ethernetHeaderLength;
    return etherType(view, ethernetAt) === etherTypeIpv4 ? Reason.Ok : Reason.TunnelBadProtocol;
  }
}
