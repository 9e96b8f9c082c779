/** UDP datagrams at a rate: our own generator and sink (bench/load), and one trial with them. */
import { fileURLToPath } from 'node:url';
import { type Program, start, until } from '../../lab/program.ts';
import type { Sent } from '../load/send-datagrams.ts';
import type { Taken } from '../load/take-datagrams.ts';
import { lastWords } from '../measure.ts';
import { type Cost, startMeter } from '../meters.ts';
import type { Path } from '../peer.ts';

const sendFile = fileURLToPath(new URL('../load/send-datagrams.js', import.meta.url));
const takeFile = fileURLToPath(new URL('../load/take-datagrams.js', import.meta.url));
const graceMs = 10_000;
/** The sink speaks every 100 ms while something comes. Then it is over. */
const quietMs = 400;
/** Queues on the way may hold megabytes. */
const drainLimitMs = 5000;

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
  /** What the sender said; the first is that it is ready. */
  private readonly answers: string[] = [];
  private sinkReady = false;
  private seen: Taken = { trial: 0, taken: 0 };
  private seenAtMs = 0;
  private trials = 0;

  private constructor(path: Path, port: number) {
    this.path = path;
    this.sink = start(path.server, process.execPath, [takeFile, String(port)], {
      onLine: (line) => {
        if (this.sinkReady) this.seen = JSON.parse(line) as Taken;
        this.sinkReady = true;
        this.seenAtMs = performance.now();
      },
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
      return opened.answers.length > 0 && opened.sinkReady;
    });
    return opened;
  }

  /**
   * Send `rate` datagrams of `size` bytes a second for `seconds`, `joined` of them as one, and
   * count what arrives.
   */
  async trial(size: number, rate: number, seconds: number, joined = 1): Promise<Trial> {
    const { answers, sender } = this;
    const trial = ++this.trials;
    const asked = answers.length;
    const stop = startMeter(this.path.pid);
    sender.write(`${trial} ${size} ${rate} ${seconds} ${joined}`);
    await until('the generator ends', seconds * 1000 + graceMs, () => {
      if (sender.exitCode !== undefined) throw new Error(`generator: ${lastWords(sender)}`);
      return answers.length > asked;
    });
    const cost = stop();
    const { sent, seconds: lasted } = JSON.parse(answers.at(-1)!) as Sent;
    const taken = await this.settle(trial, sent);
    return {
      offered: sent / lasted,
      arrived: taken / lasted,
      taken,
      loss: sent === 0 ? 1 : Math.max(0, 1 - taken / sent),
      cost,
    };
  }

  async close(): Promise<void> {
    await Promise.all([this.sender.stop('SIGKILL'), this.sink.stop('SIGKILL')]);
  }

  /** How many have come when all have, or when nothing more comes. */
  private async settle(trial: number, sent: number): Promise<number> {
    const begun = performance.now();
    const taken = () => (this.seen.trial === trial ? this.seen.taken : 0);
    await until('everything has arrived', drainLimitMs, () => {
      const quietSince = Math.max(begun, this.seenAtMs);
      return taken() >= sent || performance.now() - quietSince > quietMs;
    }).catch(() => {});
    return taken();
  }
}
