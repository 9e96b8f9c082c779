/**
 * What every GENEVE profile has in common (RFC 8926 section 3.4 and 3.5): the base header and the
 * walk over the options. A profile says which options it writes and what it makes of those that it
 * knows.
 *
 *      0                   1                   2                   3
 *      0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
 *     +---+-----------+-+-+-----------+-------------------------------+
 *     |Ver|  Opt Len  |O|C|    Rsvd.  |          Protocol type        |
 *     +---+-----------+-+-+-----------+---------------+---------------+
 *     |        Virtual network identifier             |    Reserved   |
 *     +-------------------------------+-+-------------+-----+---------+
 *     |          Option class         |C|    Type     |R|R|R| Length  |
 *     +-------------------------------+-+-------------+-----+---------+
 *     |                          Option data                          |
 *
 * Opt Len and Length count words of 4 bytes. Reserved bits are ignored on receipt.
 */
import { etherTypeIpv4 } from '../parsers/ethernet.ts';
import { Reason } from '../parsers/reason.ts';
import {
  type Encapsulation,
  type EncapsulationName,
  overheadOf,
  requireVni,
  resetTunnelHeader,
  type TunnelHeader,
} from './encapsulation.ts';
import type { Direction } from './pieces.ts';

const firstOffset = 0;
const flagsOffset = 1;
const protocolOffset = 2;
const vniOffset = 4;

const optionTypeOffset = 2;
const optionLengthOffset = 3;

const controlFlag = 0x80;
const criticalFlag = 0x40;
const optionLengthMask = 0x1f;

export const geneveBaseLength = 8;
export const optionHeaderLength = 4;
/** In an option's type: who does not know the option must drop the packet. */
export const optionCriticalFlag = 0x80;
/** Five bits of words. */
const optionMaximumDataLength = optionLengthMask << 2;

export type GeneveLayout = {
  readonly port: number;
  readonly vni: number;
  /** Bytes of all options that are written, their headers included. */
  readonly optionsLength: number;
  /** EtherType of what follows the options. */
  readonly protocol: number;
  /** Bytes of an inner Ethernet header, or 0. */
  readonly ethernetLength: number;
};

/** Cold: throws RangeError for values that the header has no room for. */
export abstract class GeneveTunnel implements Encapsulation {
  abstract readonly name: EncapsulationName;
  abstract readonly cookieMask: number;
  readonly port: number;
  readonly headerLength: number;
  readonly overhead: number;
  private readonly vni: number;
  private readonly optionsLength: number;
  private readonly protocol: number;

  constructor(layout: GeneveLayout) {
    this.port = layout.port;
    this.vni = requireVni(layout.vni);
    this.optionsLength = layout.optionsLength;
    this.protocol = layout.protocol;
    this.headerLength = geneveBaseLength + layout.optionsLength + layout.ethernetLength;
    this.overhead = overheadOf(this.headerLength);
  }

  abstract write(view: DataView, at: number, direction: Direction, cookie: number): void;

  /**
   * An option at `at`, with `dataLength` bytes behind its header. Options that the profile does not
   * know are for `unknownOption`.
   */
  protected abstract readOption(
    view: DataView,
    at: number,
    dataLength: number,
    header: TunnelHeader,
  ): Reason;

  /** Whether the options were all that the profile asks for. Not asked for control packets. */
  protected abstract complete(header: TunnelHeader): Reason;

  /** The first 8 bytes. `critical`: one of the options is. */
  protected writeBase(view: DataView, at: number, critical: boolean): void {
    view.setUint8(at + firstOffset, this.optionsLength >> 2);
    view.setUint8(at + flagsOffset, critical ? criticalFlag : 0);
    view.setUint16(at + protocolOffset, this.protocol);
    view.setUint32(at + vniOffset, this.vni << 8);
  }

  check(view: DataView, at: number, end: number, header: TunnelHeader): Reason {
    resetTunnelHeader(header, at);
    if (end - at < geneveBaseLength) return Reason.TunnelTooShort;
    const first = view.getUint8(at + firstOffset);
    if (first >> 6 !== 0) return Reason.TunnelBadVersion;
    const optionsAt = at + geneveBaseLength;
    const optionsEnd = optionsAt + ((first & 0x3f) << 2);
    if (optionsEnd > end) return Reason.TunnelTooShort;
    header.innerAt = optionsEnd;
    if (view.getUint32(at + vniOffset) >>> 8 !== this.vni) return Reason.TunnelVni;
    const badOption = this.readOptions(view, optionsAt, optionsEnd, header);
    if (badOption !== Reason.Ok) return badOption;
    if ((view.getUint8(at + flagsOffset) & controlFlag) !== 0) {
      // Whatever a control packet carries, it is not a packet for the network.
      header.control = 1;
      return Reason.Ok;
    }
    const incomplete = this.complete(header);
    if (incomplete !== Reason.Ok) return incomplete;
    const protocol = view.getUint16(at + protocolOffset);
    return protocol === this.protocol ? Reason.Ok : Reason.TunnelBadProtocol;
  }

  /**
   * The C bit only says that a critical option is among them; every option is looked at anyway, so
   * a critical one without the C bit is caught too.
   */
  private readOptions(view: DataView, at: number, end: number, header: TunnelHeader): Reason {
    while (at < end) {
      // Both ends are multiples of 4 bytes away from the start: an option header always fits.
      const dataLength = (view.getUint8(at + optionLengthOffset) & optionLengthMask) << 2;
      const next = at + optionHeaderLength + dataLength;
      if (next > end) return Reason.TunnelBadOptions;
      const reason = this.readOption(view, at, dataLength, header);
      if (reason !== Reason.Ok) return reason;
      at = next;
    }
    return Reason.Ok;
  }
}

/** Class and type of the option at `at` as one number of 24 bits. */
export function optionKey(view: DataView, at: number): number {
  return view.getUint32(at) >>> 8;
}

/** Skipped by its length, unless it is critical. */
export function unknownOption(view: DataView, at: number): Reason {
  const critical = (view.getUint8(at + optionTypeOffset) & optionCriticalFlag) !== 0;
  return critical ? Reason.TunnelCriticalOption : Reason.Ok;
}

/** Cold: the data of an option, from hexadecimal digits. Throws RangeError. */
export function optionWords(hex: string): number[] {
  const words = hex.match(/[0-9a-f]{8}/gi) ?? [];
  if (words.join('') !== hex || words.length > optionMaximumDataLength >> 2) {
    throw new RangeError(`not the data of a GENEVE option: ${hex}`);
  }
  return words.map((word) => Number.parseInt(word, 16) | 0);
}

/** An option of a class: 31 words of 32 bits at most. */
export type OptionData = { readonly type: number; readonly words: readonly number[] };

/**
 * Options whose bytes are known beforehand: written word by word from a template, compared with it
 * when they come back.
 */
export class OptionTemplate {
  readonly length: number;
  private readonly words: Int32Array;

  constructor(optionClass: number, options: readonly OptionData[]) {
    this.words = Int32Array.from(
      options.flatMap(({ type, words }) => [
        (optionClass << 16) | (type << 8) | words.length,
        ...words,
      ]),
    );
    this.length = this.words.byteLength;
  }

  write(view: DataView, at: number): void {
    for (let index = 0; index < this.words.length; index++) {
      view.setInt32(at + (index << 2), this.words[index]);
    }
  }

  /** Whether `length` bytes at `at` are those of the template from `offset` on. */
  matches(view: DataView, at: number, offset: number, length: number): boolean {
    for (let index = 0; index < length; index += 4) {
      if (view.getInt32(at + index) !== this.words[(offset + index) >> 2]) return false;
    }
    return true;
  }
}

/** What follows the options of the profiles that carry bare IPv4. */
export const bareIpv4 = { protocol: etherTypeIpv4, ethernetLength: 0 } as const;
