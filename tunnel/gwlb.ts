/**
 * GENEVE as AWS Gateway Load Balancer speaks it to its appliances: VNI 0, bare IPv4, three options
 * of class 0x0108. The appliance returns the header byte for byte, so the options must come back in
 * their order, with the endpoint and the attachment that were sent. Nothing tells the direction.
 *
 *      0                   1                   2                   3
 *      0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
 *     +-------------------------------+---------------+-----+---------+
 *     |             0x0108            |    Type 1     |  0  |    2    |
 *     +-------------------------------+---------------+-----+---------+
 *     |                      Endpoint id, 64 bit                      |
 *     |                                                               |
 *     +-------------------------------+---------------+-----+---------+
 *     |             0x0108            |    Type 2     |  0  |    2    |
 *     +-------------------------------+---------------+-----+---------+
 *     |                     Attachment id, 64 bit                     |
 *     |                                                               |
 *     +-------------------------------+---------------+-----+---------+
 *     |             0x0108            |    Type 3     |  0  |    1    |
 *     +-------------------------------+---------------+-----+---------+
 *     |                          Flow cookie                          |
 *     +---------------------------------------------------------------+
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
import type { Direction } from './pieces.ts';

const awsClass = 0x0108;
/** Of the options, which stand in this order. */
const endpointType = 1;
const attachmentType = 2;
const cookieType = 3;
const idLength = 8;
const cookieLength = 4;
const idOptionLength = optionHeaderLength + idLength;
const cookieAt = 2 * idOptionLength + optionHeaderLength;

export type GwlbOptions = {
  /** UDP destination port. */
  port: number;
  /** 64 bits each, as 16 hexadecimal digits. */
  endpointId: string;
  attachmentId: string;
};

/** Cold: throws RangeError for values that the header has no room for. */
export function createGwlb(options: GwlbOptions): Encapsulation {
  return new Gwlb(options);
}

class Gwlb extends GatewayTunnel {
  readonly name = 'gwlb';
  readonly cookieMask = -1;

  constructor({ port, endpointId, attachmentId }: GwlbOptions) {
    for (const id of [endpointId, attachmentId]) {
      if (id.length !== 2 * idLength) throw new RangeError(`not 16 hexadecimal digits: ${id}`);
    }
    super(port, awsClass, [
      { type: endpointType, words: optionWords(endpointId) },
      { type: attachmentType, words: optionWords(attachmentId) },
      { type: cookieType, words: [0] },
    ]);
  }

  write(view: DataView, at: number, _direction: Direction, cookie: number): void {
    this.writeTemplate(view, at);
    view.setInt32(at + geneveBaseLength + cookieAt, cookie);
  }

  /** `header.seen` is the type of the last option of ours. */
  protected readOption(
    view: DataView,
    at: number,
    dataLength: number,
    header: TunnelHeader,
  ): Reason {
    const type = optionKey(view, at) - (awsClass << 8);
    if (type < endpointType || type > cookieType) return unknownOption(view, at);
    if (type !== header.seen + 1) return Reason.TunnelBadOptions;
    header.seen = type;
    if (dataLength !== (type === cookieType ? cookieLength : idLength)) {
      return Reason.TunnelBadOptions;
    }
    const dataAt = at + optionHeaderLength;
    if (type === cookieType) {
      header.cookie = view.getInt32(dataAt);
      header.hasCookie = 1;
      return Reason.Ok;
    }
    const offset = (type - 1) * idOptionLength + optionHeaderLength;
    return this.identify(view, dataAt, offset, idLength);
  }

  protected complete(header: TunnelHeader): Reason {
    return header.seen >= attachmentType ? Reason.Ok : Reason.TunnelIdentity;
  }
}
