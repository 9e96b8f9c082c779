/**
 * `microperimeter capture`: packets as the agent sees them, with what becomes of them and why. They
 * come over the control socket; filtering and writing is this process's work, not the agent's.
 */
import type { Readable } from 'node:stream';
import { type CaptureHeader, largestSnapLength, pointNames } from '../../control/capture.ts';
import { openStream } from '../../control/client.ts';
import { compileFilter, type PacketFilter } from '../../linux/libpcap.ts';
import { type CaptureOutput, openOutput, type RingOptions } from '../capture/files.ts';
import { readCaptureStream, type TappedPacket } from '../capture/frames.ts';
import {
  enhancedPacket,
  interfaceDescription,
  interfaceStatistics,
  PacketWay,
  sectionHeader,
} from '../capture/pcapng.ts';
import { commentOf, lineOf } from '../capture/words.ts';
import { parseDuration } from '../config/text.ts';
import { ExitCode } from '../exit-codes.ts';
import { colorsFor, formatCount } from '../screen/format.ts';
import { UsageError } from '../usage-error.ts';

type Options = {
  readonly socket: string;
  readonly write?: string;
  readonly filter?: string;
  readonly point: string;
  readonly direction?: string;
  readonly dropped: boolean;
  readonly rule?: string;
  readonly snaplen: string;
  readonly count?: string;
  readonly duration?: string;
  readonly ringFiles?: string;
  readonly fileSize: string;
};

/** What is said in each file, and on the terminal where packets are missed. */
const blindSpot =
  'What the kernel passes, drops or carries by itself never comes to the agent and is not here. ' +
  'Outer IPv4 and UDP headers are made for this file: source port, identification and UDP ' +
  'checksum are not those of the wire.';

/** Until it is interrupted, or has what it was asked for. */
export async function capture(options: Options): Promise<number> {
  const wanted = wantedPackets(options);
  const limit = wholeNumber('--count', options.count ?? '0', 0, Number.MAX_SAFE_INTEGER);
  const durationMs = options.duration === undefined ? 0 : parseDuration(options.duration);
  if (durationMs === undefined) {
    throw new UsageError(`--duration is a time such as 30s or 5m, not ${options.duration}`);
  }
  const snapLength = wholeNumber('--snaplen', options.snaplen, 1, largestSnapLength);
  const ring = ringOf(options);
  const query = new URLSearchParams({ snaplen: String(snapLength), points: pointsOf(options) });
  const stream = await openStream(options.socket, `/capture?${query}`);
  const end = () => void stream.destroy();
  const timer = durationMs > 0 ? setTimeout(end, durationMs) : undefined;
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, end);
  const sink = new Sink(options.write, snapLength, ring);
  try {
    for await (const event of readCaptureStream(untilDestroyed(stream))) {
      if (event.kind === 'header') sink.begin(event.header);
      else if (event.kind === 'lost') sink.lost = event.lost;
      else if (wanted(event.packet)) {
        sink.take(event.packet);
        if (sink.taken === limit) break;
      }
    }
  } catch (error) {
    // Whoever read what we write has seen enough.
    if ((error as NodeJS.ErrnoException).code !== 'EPIPE') throw error;
    return ExitCode.Ok;
  } finally {
    clearTimeout(timer);
    stream.destroy();
  }
  sink.close();
  return ExitCode.Ok;
}

/** An end that we have asked for is none to complain of. */
async function* untilDestroyed(stream: Readable): AsyncGenerator<Uint8Array> {
  try {
    for await (const chunk of stream) yield chunk as Uint8Array;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code !== 'ECONNRESET' && code !== 'ERR_STREAM_PREMATURE_CLOSE') throw error;
  }
}

/** A file, or lines on the terminal; and at the end a sentence about how much it was. */
class Sink {
  lost = 0;
  taken = 0;
  private readonly file: string | undefined;
  private readonly snapLength: number;
  private readonly ring: RingOptions | undefined;
  private readonly colors = colorsFor(process.stdout);
  private output: CaptureOutput | undefined;
  private interfaces = 1;
  private lastMs = 0;

  constructor(file: string | undefined, snapLength: number, ring: RingOptions | undefined) {
    this.file = file;
    this.snapLength = snapLength;
    this.ring = ring;
  }

  begin({ host, interfaces, version }: CaptureHeader): void {
    this.interfaces = interfaces.length;
    this.lastMs = Date.now();
    if (this.file === undefined) return;
    if (this.file === '-' && process.stdout.isTTY) {
      throw new UsageError('a capture is not for a terminal: -w FILE, or pipe it to tshark -r -');
    }
    const head = Buffer.concat([
      sectionHeader(`microperimeter ${version}`, `captured on ${host}. ${blindSpot}`),
      ...interfaces.map((name) => interfaceDescription(name, 'before the tunnel', this.snapLength)),
      ...interfaces.map((name) => interfaceDescription(name, 'after the tunnel', this.snapLength)),
      interfaceDescription('tunnel', 'between the agent and the firewalls', this.snapLength),
    ]);
    this.output = openOutput(this.file, head, this.ring, () => this.trailer());
    if (this.file !== '-') process.stderr.write('capturing; end it with Ctrl-C\n');
  }

  take(packet: TappedPacket): void {
    this.taken++;
    this.lastMs = packet.timeMs;
    if (this.output === undefined) process.stdout.write(`${this.colored(packet)}\n`);
    else {
      this.output.write(
        enhancedPacket(
          this.interfaceOf(packet),
          packet.timeMs,
          packet.bytes,
          packet.originalLength,
          wayOf(packet),
          commentOf(packet),
        ),
      );
    }
  }

  close(): void {
    this.output?.close(this.trailer());
    const lost =
      this.lost === 0 ? '' : `; ${formatCount(this.lost)} lost: too many to keep up with`;
    const where = this.file === undefined || this.file === '-' ? '' : ` to ${this.file}`;
    process.stderr.write(`${formatCount(this.taken)} packets${where}${lost}\n`);
  }

  private trailer(): Uint8Array {
    return interfaceStatistics(0, this.lastMs, this.taken + this.lost, this.lost);
  }

  private interfaceOf({ interface: link, point }: TappedPacket): number {
    if (point === 'tunnel') return 2 * this.interfaces;
    return point === 'before' ? link : this.interfaces + link;
  }

  private colored(packet: TappedPacket): string {
    const line = lineOf(packet);
    if (packet.kind === 'dropped') return this.colors.red(line);
    return packet.reason.startsWith('passed') ? this.colors.dim(line) : line;
  }
}

function wayOf({ direction, isFromFirewall, point }: TappedPacket): PacketWay {
  if (point === 'tunnel') return isFromFirewall ? PacketWay.Inbound : PacketWay.Outbound;
  return direction === 0 ? PacketWay.Outbound : PacketWay.Inbound;
}

/** In the tunnel the filter may match the outer packet or the inner one. */
function wantedPackets({ direction, dropped, filter, rule }: Options) {
  if (direction !== undefined && direction !== 'egress' && direction !== 'ingress') {
    throw new UsageError(`--direction is egress or ingress, not ${direction}`);
  }
  const wantedDirection = direction === undefined ? -1 : direction === 'egress' ? 0 : 1;
  const matches: PacketFilter = filter === undefined ? () => true : compileFilter(filter);
  return (packet: TappedPacket): boolean => {
    const { bytes, innerAt, kind, originalLength } = packet;
    if (wantedDirection >= 0 && packet.direction !== wantedDirection) return false;
    if (dropped && kind !== 'dropped') return false;
    if (rule !== undefined && packet.rule !== rule) return false;
    if (matches(bytes, originalLength)) return true;
    return innerAt > 0 && matches(bytes.subarray(innerAt), originalLength - innerAt);
  };
}

function pointsOf({ point }: Options): string {
  for (const word of point.split(',')) {
    if (word === '' || !pointNames.includes(word as (typeof pointNames)[number])) {
      throw new UsageError(`--point is before, tunnel, after, or several with commas, not ${word}`);
    }
  }
  return point;
}

function ringOf({ fileSize, ringFiles, write }: Options): RingOptions | undefined {
  if (ringFiles === undefined) return undefined;
  if (write === undefined || write === '-') throw new UsageError('--ring-files needs -w FILE');
  return {
    files: wholeNumber('--ring-files', ringFiles, 1, 10_000),
    bytes: wholeNumber('--file-size', fileSize, 1, 100_000) * 1_000_000,
  };
}

function wholeNumber(name: string, text: string, least: number, most: number): number {
  const value = Number(text);
  if (Number.isInteger(value) && value >= least && value <= most && text !== '') return value;
  throw new UsageError(`${name} is a whole number from ${least} to ${most}, not ${text}`);
}
