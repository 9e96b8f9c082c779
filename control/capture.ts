/**
 * A running capture as a stream of frames for one client: what the data paths' taps have, with the
 * names that the records speak of. It is on for as long as somebody reads.
 *
 *     frame   kind (1 byte: 'j' JSON, 'r' records), 3 bytes of 0, length (uint32), content
 *
 * The first is JSON, a CaptureHeader; then records of engine/tap.ts as they are, in the byte order
 * of the host, each rule's name (RuleName) before the first record that has it, and how many
 * packets were lost (Lost) whenever that changes.
 */
import { Readable } from 'node:stream';
import { noTapRule, TapPoint, TapReader, TapWord } from '../engine/tap.ts';

export type CaptureHeader = {
  readonly version: string;
  readonly host: string;
  /** By their index. */
  readonly interfaces: readonly string[];
  readonly firewalls: readonly {
    readonly name: string;
    readonly address: string;
    /** Of this host, towards it. */
    readonly source: string;
  }[];
  /** UDP ports of the tunnel at the firewall, of egress and ingress. */
  readonly ports: readonly [number, number];
};

export type RuleName = {
  readonly rule: number;
  readonly generation: number;
  readonly name: string;
};
export type Lost = { readonly lost: number };

export type CaptureQuery = {
  /** Bytes of each packet at most. */
  readonly snapLength: number;
  /** Bits, 1 << TapPoint. */
  readonly points: number;
};

export const largestSnapLength = 262_144;
export const frameHeaderLength = 8;
export const pointNames = ['', 'before', 'tunnel', 'after'] as const;
/** A ring of 4 MiB lasts for this long at 3 Gbit/s. */
const lookMs = 10;
/** Beyond this a client is waited for. */
const bufferedBytes = 1024 * 1024;

/** From the query part of a URL. Throws RangeError with a sentence about what is wrong. */
export function parseCaptureQuery(parameters: URLSearchParams): CaptureQuery {
  const snapLength = Number(parameters.get('snaplen') ?? largestSnapLength);
  if (!Number.isInteger(snapLength) || snapLength < 1 || snapLength > largestSnapLength) {
    throw new RangeError(`snaplen is a whole number from 1 to ${largestSnapLength}`);
  }
  const words = (parameters.get('points') ?? 'before,tunnel,after').split(',');
  let points = 0;
  for (const word of words) {
    const point = pointNames.indexOf(word as (typeof pointNames)[number]);
    if (point <= 0) throw new RangeError(`points are before, tunnel and after, not ${word}`);
    points |= 1 << point;
  }
  return { snapLength, points };
}

export class CaptureSource {
  private readonly readers: readonly TapReader[];
  private readonly ruleName: (rule: number, generation: number) => string;
  private isOpen = false;

  /** @param taps memory of each data path's tap */
  constructor(
    taps: readonly SharedArrayBuffer[],
    ruleName: (rule: number, generation: number) => string,
  ) {
    this.readers = taps.map((memory) => new TapReader(memory));
    this.ruleName = ruleName;
  }

  /** Ends when it is destroyed. Undefined when another one is open. */
  open(query: CaptureQuery, header: CaptureHeader): Readable | undefined {
    if (this.isOpen) return undefined;
    this.isOpen = true;
    const stream = new CaptureStream(this.readers, this.ruleName, query, header);
    stream.once('close', () => {
      this.isOpen = false;
    });
    return stream;
  }
}

/** Pushes what the taps have while its reader keeps up; what it does not take, the rings lose. */
class CaptureStream extends Readable {
  private readonly readers: readonly TapReader[];
  private readonly ruleName: (rule: number, generation: number) => string;
  private readonly timer: NodeJS.Timeout;
  private readonly told = new Set<string>();
  private lost = 0;
  private isWanted = true;

  constructor(
    readers: readonly TapReader[],
    ruleName: (rule: number, generation: number) => string,
    query: CaptureQuery,
    header: CaptureHeader,
  ) {
    super({ highWaterMark: bufferedBytes });
    this.readers = readers;
    this.ruleName = ruleName;
    for (const reader of readers) reader.begin(query.snapLength, query.points);
    this.push(jsonFrame(header));
    this.timer = setInterval(() => this.look(), lookMs);
  }

  override _read(): void {
    this.isWanted = true;
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    clearInterval(this.timer);
    for (const reader of this.readers) reader.end();
    done(error);
  }

  private look(): void {
    for (const reader of this.readers) {
      while (this.isWanted) {
        const records = reader.take();
        if (records.length === 0) break;
        for (const name of this.namesIn(records)) this.push(jsonFrame(name));
        this.isWanted = this.push(frame('r', records));
      }
    }
    const lost = this.readers.reduce((sum, reader) => sum + reader.lost, 0);
    if (lost === this.lost) return;
    this.lost = lost;
    this.push(jsonFrame({ lost } satisfies Lost));
  }

  /** Of rules that have not been told yet. */
  private namesIn(records: Uint8Array): RuleName[] {
    const { told } = this;
    const words = new Int32Array(records.buffer, records.byteOffset, records.length >> 2);
    const names: RuleName[] = [];
    for (let at = 0; at < words.length; at += words[at + TapWord.size]! >> 2) {
      const rule = words[at + TapWord.rule]!;
      const generation = words[at + TapWord.generation]!;
      if (words[at + TapWord.point] === TapPoint.None || rule === noTapRule) continue;
      const key = `${generation} ${rule}`;
      if (told.has(key)) continue;
      told.add(key);
      names.push({ rule, generation, name: this.ruleName(rule, generation) });
    }
    return names;
  }
}

function jsonFrame(value: object): Uint8Array {
  return frame('j', Buffer.from(JSON.stringify(value)));
}

function frame(kind: 'j' | 'r', content: Uint8Array): Uint8Array {
  const bytes = Buffer.allocUnsafe(frameHeaderLength + content.length);
  bytes.writeUInt32LE(kind.charCodeAt(0), 0);
  bytes.writeUInt32LE(content.length, 4);
  bytes.set(content, frameHeaderLength);
  return bytes;
}
