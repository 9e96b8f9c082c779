/**
 * The flow log's file: what the data path left in the ring (engine/flow-log.ts), as lines of JSON.
 * Opened for appending, so that it may be truncated at any time. One write is under way at most; a
 * slow or full disk costs lines, which are counted, and nothing else.
 */
import { closeSync, openSync, write, writeSync } from 'node:fs';
import { describeFlow } from '../control/flow-line.ts';
import type { FlowNames } from '../control/flows.ts';
import { createFlowRecord, FlowLogReader, type FlowRecord } from '../engine/flow-log.ts';
import { monotonicMs } from '../engine/ticks.ts';

export type FlowLogOptions = {
  readonly file: string;
  readonly ring: SharedArrayBuffer;
  readonly names: FlowNames;
  /** Told once, until a write works again. */
  failed(message: string): void;
};

const drainMs = 200;
/** 3 MB a second; making them takes 5 % of a core. */
const linesPerSecond = 10_000;

export class FlowLog {
  /** Lines written, and lines lost for any cause. */
  private lines = 0;
  private lost = 0;
  private readonly options: FlowLogOptions;
  private readonly fd: number;
  private readonly reader: FlowLogReader;
  private readonly record: FlowRecord = createFlowRecord();
  private readonly timer: NodeJS.Timeout;
  private allowance = 0;
  private allowedAt = performance.now();
  private ringLost = 0;
  private untold = 0;
  private writing = false;
  private failing = false;
  private closed = false;

  /** @throws Error of node:fs when the file cannot be opened */
  constructor(options: FlowLogOptions) {
    this.options = options;
    this.fd = openSync(options.file, 'a', 0o640);
    this.reader = new FlowLogReader(options.ring);
    this.timer = setInterval(() => this.drain(), drainMs);
    this.timer.unref();
  }

  status(): { readonly file: string; readonly lines: number; readonly lost: number } {
    return { file: this.options.file, lines: this.lines, lost: this.lost };
  }

  /** Write what is in the ring, as far as the rate allows. */
  drain(): void {
    if (this.writing) return;
    const now = performance.now();
    const earned = ((now - this.allowedAt) * linesPerSecond) / 1000;
    this.allowance = Math.min(linesPerSecond, this.allowance + earned);
    this.allowedAt = now;
    const { lines, text } = this.take();
    if (text === '') return;
    this.writing = true;
    write(this.fd, text, (error) => {
      this.writing = false;
      this.wrote(lines, error);
      if (this.closed) closeSync(this.fd);
    });
  }

  /** Write what is left, whatever the rate, and close the file; the data path has ended. */
  close(): void {
    clearInterval(this.timer);
    this.closed = true;
    this.allowance = Number.POSITIVE_INFINITY;
    const { lines, text } = this.take();
    let failure: Error | null = null;
    try {
      writeSync(this.fd, text);
    } catch (error) {
      failure = error as Error;
    }
    this.wrote(lines, failure);
    if (!this.writing) closeSync(this.fd);
  }

  private wrote(lines: number, failure: Error | null): void {
    if (failure === null) this.lines += lines;
    else {
      this.lose(lines);
      if (!this.failing) this.options.failed(failure.message);
    }
    this.failing = failure !== null;
  }

  private lose(lines: number): void {
    this.lost += lines;
    this.untold += lines;
  }

  private take(): { lines: number; text: string } {
    const bootMs = Date.now() - monotonicMs();
    let lines = 0;
    let text = '';
    while (this.reader.read(this.record)) {
      if (this.allowance < 1) this.lose(1);
      else {
        this.allowance--;
        lines++;
        text += `${JSON.stringify(describeFlow(this.record, bootMs, this.options.names))}\n`;
      }
    }
    const { lost } = this.reader;
    this.lose((lost - this.ringLost) | 0);
    this.ringLost = lost;
    if (this.untold > 0) {
      const time = new Date().toISOString();
      text += `${JSON.stringify({ time, event: 'lost', lines: this.untold })}\n`;
      this.untold = 0;
    }
    return { lines, text };
  }
}
