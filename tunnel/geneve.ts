/**
 * GENEVE (RFC 8926) with one option of ours, which tells the direction and carries the flow's
 * cookie. Where they lie in it, and what else it holds, are settings, since other agents have
 * another option. By default:
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
 * D is 1 for ingress. Bytes of the option that are always the same and not 0, as the version, must
 * come back as they are: another option of our class and type is none that we know.
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
  OptionTemplate,
  optionCriticalFlag,
  optionHeaderLength,
  optionKey,
  optionWords,
  unknownOption,
} from './geneve-header.ts';
import { Direction } from './pieces.ts';

/** Our own option's data, as it is drawn above. */
export const standardOption = {
  optionData: '0001000000000000',
  directionBit: 7,
  cookieAt: 4,
} as const;

export type GeneveOptions = {
  /** 24 bits. */
  vni: number;
  /** UDP destination port. */
  port: number;
  /** 16 bits; 0xfff0 to 0xffff are for experiments (RFC 8926 section 7). */
  optionClass: number;
  /** 8 bits, the highest of which makes the option critical. */
  optionType: number;
  /** Hexadecimal digits, 8 for each of 1 to 31 words; the direction and the cookie go over it. */
  optionData?: string;
  /** Which bit of the data is 1 for ingress; 0 is the first on the wire. */
  directionBit?: number;
  /** The byte of the data, a multiple of 4, where the cookie begins; -1: it has no room for one. */
  cookieAt?: number;
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

type OptionLayout = Required<Pick<GeneveOptions, keyof typeof standardOption>>;

/** Cold: words of the option's data with all that does not depend on the flow. */
function dataWords({ cookieAt, directionBit, optionData }: OptionLayout): number[] {
  const words = optionWords(optionData);
  if (!Number.isInteger(directionBit) || directionBit < 0 || directionBit >= words.length * 32) {
    throw new RangeError(`the option's data has no bit ${directionBit}`);
  }
  if (cookieAt !== -1 && (cookieAt < 0 || cookieAt % 4 !== 0 || cookieAt >= words.length * 4)) {
    throw new RangeError(`the option's data has no word at ${cookieAt}`);
  }
  if (cookieAt === (directionBit >> 5) * 4) {
    throw new RangeError(`bit ${directionBit} is in the cookie at byte ${cookieAt}`);
  }
  return words;
}

class Geneve extends GeneveTunnel {
  readonly name = 'geneve';
  readonly cookieMask: number;
  readonly #option: number;
  readonly #critical: boolean;
  readonly #dataLength: number;
  /** The whole option as it is written, for egress and for ingress, the cookie 0. */
  readonly #templates: readonly [egress: OptionTemplate, ingress: OptionTemplate];
  readonly #directionAt: number;
  readonly #directionMask: number;
  /** From the option's start; 0: there is none. */
  readonly #cookieAt: number;
  /** Bytes that must come back as they are: their place and their value, by turns. */
  readonly #fixed: Uint8Array;
  readonly #ethernet: boolean;
  readonly #source: MacAddress;
  readonly #destination: MacAddress;

  constructor(options: GeneveOptions) {
    const { optionClass, optionType, port, vni } = options;
    const layout: OptionLayout = { ...standardOption, ...options };
    const { cookieAt, directionBit } = layout;
    if (!Number.isInteger(optionClass) || optionClass < 0 || optionClass > 0xffff) {
      throw new RangeError(`an option class is a number from 0 to 65535, not ${optionClass}`);
    }
    if (!Number.isInteger(optionType) || optionType < 0 || optionType > 0xff) {
      throw new RangeError(`an option type is a number from 0 to 255, not ${optionType}`);
    }
    const data = dataWords(layout);
    const dataLength = data.length * 4;
    const ethernet = options.inner === 'ethernet';
    const protocol = ethernet ? etherTypeEthernet : etherTypeIpv4;
    const ethernetLength = ethernet ? ethernetHeaderLength : 0;
    const optionsLength = optionHeaderLength + dataLength;
    super({ port, vni, optionsLength, protocol, ethernetLength });
    this.#option = (optionClass << 8) | optionType;
    this.#critical = (optionType & optionCriticalFlag) !== 0;
    this.#dataLength = dataLength;
    this.cookieMask = cookieAt === -1 ? 0 : -1;
    this.#cookieAt = cookieAt === -1 ? 0 : optionHeaderLength + cookieAt;
    this.#directionAt = optionHeaderLength + (directionBit >> 3);
    this.#directionMask = 0x80 >> (directionBit & 7);
    if (cookieAt !== -1) data[cookieAt >> 2] = 0;
    data[directionBit >> 5] &= ~(0x8000_0000 >>> (directionBit & 31));
    const template = (words: readonly number[]) =>
      new OptionTemplate(optionClass, [{ type: optionType, words }]);
    const ingress = [...data];
    ingress[directionBit >> 5] |= 0x8000_0000 >>> (directionBit & 31);
    this.#templates = [template(data), template(ingress)];
    this.#fixed = fixedBytes(data, this.#directionAt);
    this.#ethernet = ethernet;
    this.#source = requireMac(options.innerSource ?? defaultInnerSource);
    this.#destination = requireMac(options.innerDestination ?? defaultInnerDestination);
  }

  write(view: DataView, at: number, direction: Direction, cookie: number): void {
    this.writeBase(view, at, this.#critical);
    const option = at + geneveBaseLength;
    this.#templates[direction].write(view, option);
    if (this.#cookieAt !== 0) view.setInt32(option + this.#cookieAt, cookie);
    if (!this.#ethernet) return;
    const ethernetAt = option + optionHeaderLength + this.#dataLength;
    writeEthernet(view, ethernetAt, this.#source, this.#destination, etherTypeIpv4);
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
    if (dataLength !== this.#dataLength || header.hasCookie === 1) return Reason.TunnelBadOptions;
    const fixed = this.#fixed;
    for (let index = 0; index < fixed.length; index += 2) {
      if (view.getUint8(at + fixed[index]) !== fixed[index + 1]) return Reason.Ok;
    }
    const ingress = (view.getUint8(at + this.#directionAt) & this.#directionMask) !== 0;
    header.direction = ingress ? Direction.Ingress : Direction.Egress;
    header.cookie = this.#cookieAt === 0 ? 0 : view.getInt32(at + this.#cookieAt);
    header.hasCookie = 1;
    return Reason.Ok;
  }

  protected complete(): Reason {
    return Reason.Ok;
  }
}

/** Of an option's data: the bytes that are not 0, but for the direction's; from its header on. */
function fixedBytes(words: readonly number[], directionAt: number): Uint8Array {
  const found: number[] = [];
  for (let byte = 0; byte < words.length * 4; byte++) {
    const at = optionHeaderLength + byte;
    const value = (words[byte >> 2] >>> (24 - 8 * (byte & 3))) & 0xff;
    if (value !== 0 && at !== directionAt) found.push(at, value);
  }
  return Uint8Array.from(found);
}
