/** UDP datagrams at a rate: our own generator and sink (bench/load), and one trial with them. */
import { fileURLToPath } from 'node:url';
import { type Program, start, until } from '../../lab/program.ts';
import type { Sent } from '../load/send-datagrams.ts';
import { lastWords } from '../measure.ts';
import { type Cost, startMeter } from '../meters.ts';
import type { Path } from '../peer.ts';

const sendFile = fileURLToPath(new URL('../load/send-datagrams.js', import.meta.url));
const takeFile = fileURLToPath(new URL('../load/take-datagrams.js', import.meta.url));
const graceMs = 10_000;
/** The sink speaks when it has been quiet for 40 ms. */
const quietMs = 100;
/** Queues on the way may hold megabytes; when nothing at all arrives, this is waited for. */
const drainLimitMs = 2000;

export type Trial = {
  /** Datagrams a second that were sent and that arrived. */
  readonly offered: number;
  readonly arrived: number;
  /** Datagrams that arrived. */
  readonly taken: number;
  /** Share of those sent, 0 to 1. */
  readonly loss: number;
  /** While sending. */
  readonly cost: Cost;
};

export class Datagrams {
  private readonly path: Path;
  private readonly sender: Program;
  private readonly sink: Program;
  private readonly answers: string[] = [];
  private readonly counts: number[] = [];

  private constructor(path: Path, port: number) {
    this.path = path;
    this.sink = start(path.server, process.execPath, [takeFile, String(port)], {
      onLine: (line) => this.counts.push((JSON.parse(line) as { taken: number }).taken),
    });
    this.sender = start(path.client, process.execPath, [sendFile, path.address, String(port)], {
      onLine: (line) => this.answers.push(line),
    });
  }

  /** Ready to send and to take, at a UDP port of the server. */
  static async open(path: Path, port: number): Promise<Datagrams> {
    const opened = new Datagrams(path, port);
    await until('the datagram programs are ready', graceMs, () => {
      for (const program of [opened.sender, opened.sink]) {
        if (program.exitCode !== undefined) throw new Error(lastWords(program));
      }
      return opened.answers.length > 0 && opened.counts.length > 0;
    });
    return opened;
  }

  /**
   * Send `rate` datagrams of `size` bytes a second for `seconds`, `joined` of them as one, and
   * count what arrives.
   */
  async trial(size: number, rate: number, seconds: number, joined = 1): Promise<Trial> {
    const before = this.counts.at(-1) ?? 0;
    const { answers, sender } = this;
    const asked = answers.length;
    const told = this.counts.length;
    const stop = startMeter(this.path.pid);
    sender.write(`${size} ${rate} ${seconds} ${joined}`);
    await until('the generator ends', seconds * 1000 + graceMs, () => {
      if (sender.exitCode !== undefined) throw new Error(`generator: ${lastWords(sender)}`);
      return answers.length > asked;
    });
    const cost = stop();
    const result = JSON.parse(answers.at(-1)!) as Sent;
    await this.settle(told);
    const taken = (this.counts.at(-1) ?? 0) - before;
    return {
      offered: result.sent / result.seconds,
      arrived: taken / result.seconds,
      taken,
      loss: result.sent === 0 ? 1 : Math.max(0, 1 - taken / result.sent),
      cost,
    };
  }

  async close(): Promise<void> {
    await Promise.all([this.sender.stop('SIGKILL'), this.sink.stop('SIGKILL')]);
  }

  /** Until the sink has told what it took, and nothing more has come for a while. */
  private async settle(told: number): Promise<void> {
    const deadline = performance.now() + drainLimitMs;
    let seen = -1;
    while (performance.now() < deadline && (seen !== this.counts.length || seen === told)) {
      seen = this.counts.length;
      await new Promise((resolve) => setTimeout(resolve, quietMs));
    }
  }
}
