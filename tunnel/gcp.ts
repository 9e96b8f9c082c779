/**
 * GENEVE as Google's in-band network security integration speaks it to its appliances: VNI 0, bare
 * IPv4, options of class 0x0132 that are read by their type, in whatever order they come.
 *
 *      0                   1                   2                   3
 *      0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
 *     +-------------------------------+---------------+-----+---------+
 *     |             0x0132            |    Type 1     |  0  |    1    |
 *     +-------------------------------+---------------+-----+-+-----+-+
 *     |                 Network cookie, 28 bit                |  0  |D|
 *     +-------------------------------+---------------+-----+-+-----+-+
 *     |             0x0132            |    Type 2     |  0  |    n    |
 *     +-------------------------------+---------------+-----+---------+
 *     |                     Endpoint id, n words                      |
 *     +-------------------------------+---------------+-----+---------+
 *     |             0x0132            |    Type 3     |  0  |    2    |
 *     +-------------------------------+---------------+-----+---------+
 *     |                       Profile id, 64 bit                      |
 *     |                                                               |
 *     +---------------------------------------------------------------+
 *
 * D is 1 for egress, as tshark's decoder has it: the other way round than in our own option. The
 * flow's cookie travels as the network cookie, without its last 4 bits.
 */
import { Reason } from '../parsers/reason.ts';
import type { Encapsulation, TunnelHeader } from './encapsulation.ts';
import { GatewayTunnel } from './gateway.ts';
import {
  geneveBaseLength,
  optionHeaderLength,
  optionKey,
  optionWords,
  unknownOption,
} from './geneve-header.ts';
import { Direction } from './pieces.ts';

const googleClass = 0x0132;
const networkType = 1;
const endpointType = 2;
const profileType = 3;
const networkLength = 4;
const profileLength = 8;
const egressFlag = 0x01;
const networkCookieMask = 0xfffffff0 | 0;
const endpointDataAt = 2 * optionHeaderLength + networkLength;
/** Of `header.seen`, a bit for each type. */
const identified = (1 << endpointType) | (1 << profileType);

export type GcpOptions = {
  /** UDP destination port. */
  port: number;
  /** 4 to 124 bytes as hexadecimal digits, a multiple of 4 bytes. */
  endpointId: string;
  /** 64 bits as 16 hexadecimal digits. */
  profileId: string;
};

/** Cold: throws RangeError for values that the header has no room for. */
export function createGcp(options: GcpOptions): Encapsulation {
  return new Gcp(options);
}

class Gcp extends GatewayTunnel {
  readonly name = 'gcp';
  readonly cookieMask = networkCookieMask;
  readonly #endpointLength: number;

  constructor({ port, endpointId, profileId }: GcpOptions) {
    if (endpointId === '') throw new RangeError('an endpoint id has at least 4 bytes');
    if (profileId.length !== 2 * profileLength) {
      throw new RangeError(`not 16 hexadecimal digits: ${profileId}`);
    }
    super(port, googleClass, [
      { type: networkType, words: [0] },
      { type: endpointType, words: optionWords(endpointId) },
      { type: profileType, words: optionWords(profileId) },
    ]);
    this.#endpointLength = endpointId.length / 2;
  }

  write(view: DataView, at: number, direction: Direction, cookie: number): void {
    this.writeTemplate(view, at);
    const flag = direction === Direction.Egress ? egressFlag : 0;
    const dataAt = at + geneveBaseLength + optionHeaderLength;
    view.setInt32(dataAt, (cookie & networkCookieMask) | flag);
  }

  protected readOption(
    view: DataView,
    at: number,
    dataLength: number,
    header: TunnelHeader,
  ): Reason {
    const type = optionKey(view, at) - (googleClass << 8);
    if (type < networkType || type > profileType) return unknownOption(view, at);
    if ((header.seen & (1 << type)) !== 0) return Reason.TunnelBadOptions;
    header.seen |= 1 << type;
    const dataAt = at + optionHeaderLength;
    if (type === networkType) return readNetwork(view, dataAt, dataLength, header);
    const length = type === endpointType ? this.#endpointLength : profileLength;
    const profileDataAt = endpointDataAt + this.#endpointLength + optionHeaderLength;
    const offset = type === endpointType ? endpointDataAt : profileDataAt;
    if (dataLength !== length) return Reason.TunnelIdentity;
    return this.identify(view, dataAt, offset, length);
  }

  protected complete(header: TunnelHeader): Reason {
    return (header.seen & identified) === identified ? Reason.Ok : Reason.TunnelIdentity;
  }
}

function readNetwork(view: DataView, at: number, length: number, header: TunnelHeader): Reason {
  if (length !== networkLength) return Reason.TunnelBadOptions;
  const word = view.getInt32(at);
  header.cookie = word & networkCookieMask;
  header.hasCookie = 1;
  header.direction = (word & egressFlag) !== 0 ? Direction.Egress : Direction.Ingress;
  return Reason.Ok;
}
