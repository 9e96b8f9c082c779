/** The agent's capture stream (control/capture.ts) as packets. */
import {
  type CaptureHeader,
  frameHeaderLength,
  type Lost,
  type RuleName,
} from '../../control/capture.ts';
import type { Direction } from '../../engine/io.ts';
import { noTapRule, TapPoint, TapWay, TapWord, tapRecordHeader } from '../../engine/tap.ts';
import { type ReasonKind, reasonKinds, reasonNames } from '../../parsers/reason.ts';
import { parseAddress } from '../../parsers/text.ts';
import { outerHeaderLength, writeOuterHeaders } from './outer.ts';

export type TappedPacket = {
  /** Since 1970, in milliseconds, with a fraction. */
  readonly timeMs: number;
  readonly point: 'before' | 'tunnel' | 'after';
  readonly direction: Direction;
  /** In the tunnel: from the firewall, else to it. */
  readonly isFromFirewall: boolean;
  /** Name of the reason, and its kind. */
  readonly reason: string;
  readonly kind: ReasonKind;
  /** Empty when no flow is known. */
  readonly rule: string;
  readonly firewall: string;
  readonly interface: number;
  /** From an IPv4 header on; in the tunnel the outer one, which is made. */
  readonly bytes: Uint8Array;
  readonly originalLength: number;
  /** Where the inner IPv4 header begins, in the tunnel; else 0. */
  readonly innerAt: number;
};

export type CaptureEvent =
  | { readonly kind: 'header'; readonly header: CaptureHeader }
  | { readonly kind: 'packet'; readonly packet: TappedPacket }
  | { readonly kind: 'lost'; readonly lost: number };

/** Throws an Error when the stream is not one of ours. */
export async function* readCaptureStream(
  chunks: AsyncIterable<Uint8Array>,
): AsyncGenerator<CaptureEvent> {
  let rest = Buffer.alloc(0);
  let decoder: Decoder | undefined;
  for await (const chunk of chunks) {
    rest = rest.length === 0 ? Buffer.from(chunk) : Buffer.concat([rest, chunk]);
    let at = 0;
    while (at + frameHeaderLength <= rest.length) {
      const kind = rest.readUInt32LE(at);
      const end = at + frameHeaderLength + rest.readUInt32LE(at + 4);
      if (end > rest.length) break;
      const content = rest.subarray(at + frameHeaderLength, end);
      at = end;
      if (kind === 'r'.charCodeAt(0)) {
        if (decoder === undefined) throw new Error('the capture begins without its header');
        yield* decoder.packets(content);
        continue;
      }
      const value = JSON.parse(content.toString()) as CaptureHeader | RuleName | Lost;
      if (decoder === undefined) {
        decoder = new Decoder(value as CaptureHeader);
        yield { kind: 'header', header: value as CaptureHeader };
      } else if ('lost' in value) yield { kind: 'lost', lost: value.lost };
      else decoder.name(value as RuleName);
    }
    rest = rest.subarray(at);
  }
}

class Decoder {
  private readonly header: CaptureHeader;
  private readonly names = new Map<string, string>();

  constructor(header: CaptureHeader) {
    this.header = header;
  }

  name({ generation, name, rule }: RuleName): void {
    this.names.set(`${generation} ${rule}`, name);
  }

  *packets(content: Uint8Array): Generator<CaptureEvent> {
    // Aligned for words: a frame may begin anywhere in what was received.
    const bytes = Uint8Array.from(content);
    const words = new Int32Array(bytes.buffer);
    const doubles = new Float64Array(bytes.buffer);
    for (let at = 0; at < bytes.length; at += words[(at >> 2) + TapWord.size]!) {
      const record = words.subarray(at >> 2, (at + tapRecordHeader) >> 2);
      if (record[TapWord.point] === TapPoint.None) continue;
      const captured = bytes.subarray(
        at + tapRecordHeader,
        at + tapRecordHeader + record[TapWord.captured]!,
      );
      yield { kind: 'packet', packet: this.packet(doubles[at >> 3]!, record, captured) };
    }
  }

  private packet(timeMs: number, record: Int32Array, captured: Uint8Array): TappedPacket {
    const word = (index: number) => record[index] as number;
    const { firewalls } = this.header;
    const rule = word(TapWord.rule);
    const reason = word(TapWord.reason);
    const isInTunnel = word(TapWord.point) === TapPoint.Tunnel;
    const outer = isInTunnel ? outerHeaderLength : 0;
    const innerAt = word(TapWord.innerAt);
    return {
      timeMs,
      point: (['before', 'tunnel', 'after'] as const)[word(TapWord.point) - 1]!,
      direction: word(TapWord.direction) as Direction,
      isFromFirewall: isInTunnel && word(TapWord.way) === TapWay.FromFirewall,
      reason: reasonNames[reason] ?? `reason ${reason}`,
      kind: reasonKinds[reason] ?? 'none',
      rule: rule === noTapRule ? '' : (this.names.get(`${word(TapWord.generation)} ${rule}`) ?? ''),
      firewall: firewalls[word(TapWord.firewall)]?.name ?? '',
      interface: word(TapWord.link),
      bytes: isInTunnel ? this.withOuter(record, captured) : captured,
      originalLength: word(TapWord.original) + outer,
      innerAt: innerAt === 0 ? 0 : innerAt + outer,
    };
  }

  private withOuter(record: Int32Array, captured: Uint8Array): Uint8Array {
    const { firewalls, ports } = this.header;
    const peer = record[TapWord.peer] as number;
    const known = firewalls.find(({ address }) => parseAddress(address) === peer) ?? firewalls[0];
    const source = parseAddress(known?.source ?? '0.0.0.0') ?? 0;
    const port = ports[record[TapWord.direction] === 0 ? 0 : 1];
    const isToFirewall = record[TapWord.way] === TapWay.ToFirewall;
    const packet = new Uint8Array(outerHeaderLength + captured.length);
    writeOuterHeaders(
      packet,
      isToFirewall ? source : peer,
      isToFirewall ? peer : source,
      port,
      record[TapWord.original] as number,
    );
    packet.set(captured, outerHeaderLength);
    return packet;
  }
}
