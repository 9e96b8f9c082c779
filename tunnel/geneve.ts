/**
 * GENEVE (RFC 8926) with one option of ours, which tells the direction and carries the flow's
 * cookie.
 *
 *      0                   1                   2                   3
 *      0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
 *     +-------------------------------+-+-------------+-----+---------+
 *     |          Option class         |C|    Type     |R|R|R| Length  |
 *     +---------------+---------------+-+-------------+-----+---------+
 *     | Flags       D |    Version    |            Reserved           |
 *     +---------------+---------------+-------------------------------+
 *     |                          Flow cookie                          |
 *     +---------------------------------------------------------------+
 *
 * D is 1 for ingress.
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
  requireMac,
  type TunnelHeader,
} from './encapsulation.ts';
import {
  GeneveTunnel,
  geneveBaseLength,
  optionCriticalFlag,
  optionHeaderLength,
  optionKey,
  unknownOption,
} from './geneve-header.ts';
import { Direction } from './pieces.ts';

const dataFlagsOffset = 4;
const dataVersionOffset = 5;
const dataCookieOffset = 8;
const ourDataLength = 8;
const ourLength = optionHeaderLength + ourDataLength;

const directionFlag = 0x01;
/** Layout of our option's data. Another version is an option that we do not know. */
const ourVersion = 1;

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

class Geneve extends GeneveTunnel {
  readonly name = 'geneve';
  readonly cookieMask = -1;
  readonly #option: number;
  readonly #critical: boolean;
  readonly #ethernet: boolean;
  readonly #source: MacAddress;
  readonly #destination: MacAddress;

  constructor(options: GeneveOptions) {
    const { optionClass, optionType, port, vni } = options;
    if (!Number.isInteger(optionClass) || optionClass < 0 || optionClass > 0xffff) {
      throw new RangeError(`an option class is a number from 0 to 65535, not ${optionClass}`);
    }
    if (!Number.isInteger(optionType) || optionType < 0 || optionType > 0xff) {
      throw new RangeError(`an option type is a number from 0 to 255, not ${optionType}`);
    }
    const ethernet = options.inner === 'ethernet';
    const protocol = ethernet ? etherTypeEthernet : etherTypeIpv4;
    const ethernetLength = ethernet ? ethernetHeaderLength : 0;
    super({ port, vni, optionsLength: ourLength, protocol, ethernetLength });
    this.#option = (optionClass << 8) | optionType;
    this.#critical = (optionType & optionCriticalFlag) !== 0;
    this.#ethernet = ethernet;
    this.#source = requireMac(options.innerSource ?? defaultInnerSource);
    this.#destination = requireMac(options.innerDestination ?? defaultInnerDestination);
  }

  write(view: DataView, at: number, direction: Direction, cookie: number): void {
    this.writeBase(view, at, this.#critical);
    const option = at + geneveBaseLength;
    view.setUint32(option, (this.#option << 8) | (ourDataLength >> 2));
    view.setUint8(option + dataFlagsOffset, direction === Direction.Ingress ? directionFlag : 0);
    view.setUint8(option + dataVersionOffset, ourVersion);
    view.setUint16(option + dataVersionOffset + 1, 0);
    view.setInt32(option + dataCookieOffset, cookie);
    if (!this.#ethernet) return;
    writeEthernet(view, option + ourLength, this.#source, this.#destination, etherTypeIpv4);
  }

  override check(view: DataView, at: number, end: number, header: TunnelHeader): Reason {
    const reason = super.check(view, at, end, header);
    if (!this.#ethernet || reason !== Reason.Ok || header.control === 1) return reason;
    const ethernetAt = header.innerAt;
    if (end - ethernetAt < ethernetHeaderLength) return Reason.TunnelTooShort;
    header.innerAt = ethernetAt + ethernetHeaderLength;
    return etherType(view, ethernetAt) === etherTypeIpv4 ? Reason.Ok : Reason.TunnelBadProtocol;
  }

  protected readOption(
    view: DataView,
    at: number,
    dataLength: number,
    header: TunnelHeader,
  ): Reason {
    if (optionKey(view, at) !== this.#option) return unknownOption(view, at);
    if (dataLength !== ourDataLength || header.hasCookie === 1) return Reason.TunnelBadOptions;
    if (view.getUint8(at + dataVersionOffset) !== ourVersion) return Reason.Ok;
    const ingress = (view.getUint8(at + dataFlagsOffset) & directionFlag) !== 0;
    header.direction = ingress ? Direction.Ingress : Direction.Egress;
    header.cookie = view.getInt32(at + dataCookieOffset);
    header.hasCookie = 1;
    return Reason.Ok;
  }

  protected complete(): Reason {
    return Reason.Ok;
  }
}
