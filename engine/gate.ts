/**
 * The gate: a few words of shared memory that say until when traffic may be redirected, for each
 * firewall its own. The
 * telemetry worker renews a lease, the data path reads it once per breath, and nobody has to act
 * for it to close: a worker that hangs or dies stops renewing, and the lease runs out.
 *
 * The deadline is a count of ticks of 100 ms of CLOCK_MONOTONIC (process.hrtime and clock_gettime
 * read the same clock), rounded down, so the gate never stays open past it. Ticks wrap after seven
 * years and are compared by difference.
 *
 * Ordering: Atomics are sequentially consistent. `renew` writes the deadline before the state, so
 * whoever sees Open sees a deadline at least as new as the renewal that opened it. `close` writes
 * the state first. A reader between two words of a close sees the old, still valid, lease.
 */

import { tickMs } from './ticks.ts';

type CauseRow = readonly [name: string, sentence: string];

const rows = {
  Open: ['open', 'the firewall takes telemetry'],
  Starting: ['starting', 'the firewall has not taken telemetry yet'],
  LeaseExpired: ['lease-expired', 'nothing has renewed the lease: the telemetry worker hangs'],
  TelemetryUnreachable: [
    'telemetry-unreachable',
    'the telemetry endpoint of the firewall cannot be reached',
  ],
  TelemetryTimeout: [
    'telemetry-timeout',
    'the telemetry endpoint of the firewall does not answer in time',
  ],
  TelemetryRefused: [
    'telemetry-refused',
    'the telemetry endpoint of the firewall answers with HTTP status',
  ],
  TelemetryCertificate: [
    'telemetry-certificate',
    'the certificate of the telemetry endpoint is not the one it should be',
  ],
  TelemetryClientCertificate: [
    'telemetry-client-certificate',
    'the telemetry endpoint does not accept our client certificate',
  ],
  TelemetryProtocol: [
    'telemetry-protocol',
    'the telemetry endpoint does not agree on HTTPS with us',
  ],
  TelemetryAnswer: [
    'telemetry-answer',
    'the telemetry endpoint answers with more than 64 KiB, which is no answer to telemetry',
  ],
  WorkerDead: ['worker-dead', 'the telemetry worker died'],
  Stopping: ['stopping', 'the agent is stopping'],
} as const satisfies Record<string, CauseRow>;

type CauseName = keyof typeof rows;
const keys = Object.keys(rows) as CauseName[];

/** Why the gate is as it is. `GateCause.Open` is 0. */
export const GateCause = Object.freeze(
  Object.fromEntries(keys.map((key, index) => [key, index])),
) as unknown as { readonly [K in CauseName]: GateCause };
export type GateCause = number & { readonly __brand?: 'GateCause' };

/** Labels in metrics and JSON, by number. */
export const gateCauseNames: readonly string[] = keys.map((key) => rows[key][0]);

/** What a person is shown; `detail` is the HTTP status of a refusal. */
export function gateCauseSentence(cause: GateCause, detail: number): string {
  const sentence = rows[keys[cause]!][1];
  return cause === GateCause.TelemetryRefused ? `${sentence} ${detail}` : sentence;
}

const deadlineWord = 0;
const causeWord = 1;
const detailWord = 2;
const generationWord = 3;
const renewalsWord = 4;
const wordCount = 5;
const gateByteLength = wordCount * Int32Array.BYTES_PER_ELEMENT;

export type GateStatus = {
  readonly open: boolean;
  readonly cause: string;
  readonly sentence: string;
  /** How often the gate opened or closed since the start. */
  readonly generation: number;
  readonly renewals: number;
  /** What is left of the lease, in milliseconds; 0 when closed. */
  readonly leaseMs: number;
};

function tickOf(nowMs: number): number {
  return Math.floor(nowMs / tickMs) | 0;
}

export class Gate {
  /** Hand this to a worker and open it there with `openGates`. */
  readonly shared: SharedArrayBuffer;
  private readonly words: Int32Array;

  /** @param row which of the firewalls' */
  constructor(shared: SharedArrayBuffer, row = 0) {
    this.shared = shared;
    this.words = new Int32Array(shared, row * gateByteLength, wordCount);
  }

  /** Two loads, no allocation: for the data path. `nowMs` is CLOCK_MONOTONIC. */
  isOpen(nowMs: number): boolean {
    if (Atomics.load(this.words, causeWord) !== 0) return false;
    return ((Atomics.load(this.words, deadlineWord) - tickOf(nowMs)) | 0) > 0;
  }

  /**
   * Closed because nothing was lost yet: before the first success, or at the end. No allocation.
   */
  isBeforeOrAfter(): boolean {
    const cause = Atomics.load(this.words, causeWord);
    return cause === GateCause.Starting || cause === GateCause.Stopping;
  }

  /** Open until `deadlineMs`. Returns false, and stays closed, when the agent is stopping. */
  renew(deadlineMs: number): boolean {
    const before = Atomics.load(this.words, causeWord);
    if (before === GateCause.Stopping) return false;
    Atomics.store(this.words, deadlineWord, tickOf(deadlineMs));
    Atomics.add(this.words, renewalsWord, 1);
    if (before === GateCause.Open) return true;
    // Compared, because the main thread may have said Stopping since the load.
    const found = Atomics.compareExchange(this.words, causeWord, before, GateCause.Open);
    if (found !== before) return false;
    Atomics.add(this.words, generationWord, 1);
    return true;
  }

  /** Close now. Stopping is final: no later cause replaces it. */
  close(cause: GateCause, detail = 0): void {
    let before = Atomics.load(this.words, causeWord);
    for (;;) {
      if (before === GateCause.Stopping) return;
      const found = Atomics.compareExchange(this.words, causeWord, before, cause);
      if (found === before) break;
      before = found;
    }
    Atomics.store(this.words, detailWord, detail);
    if (before === GateCause.Open) Atomics.add(this.words, generationWord, 1);
  }

  /** For people and metrics. A lease that ran out without anybody closing shows as LeaseExpired. */
  status(nowMs: number): GateStatus {
    const open = this.isOpen(nowMs);
    const stored = Atomics.load(this.words, causeWord);
    const cause = stored === GateCause.Open && !open ? GateCause.LeaseExpired : stored;
    const left = (Atomics.load(this.words, deadlineWord) - tickOf(nowMs)) | 0;
    return {
      open,
      cause: gateCauseNames[cause]!,
      sentence: gateCauseSentence(cause, Atomics.load(this.words, detailWord)),
      generation: Atomics.load(this.words, generationWord),
      renewals: Atomics.load(this.words, renewalsWord),
      leaseMs: open ? left * tickMs : 0,
    };
  }
}

/** New gates, one for each firewall, in one memory: closed, Starting. */
export function createGates(count: number): Gate[] {
  const shared = new SharedArrayBuffer(count * gateByteLength);
  const words = new Int32Array(shared);
  for (let row = 0; row < count; row++) words[row * wordCount + causeWord] = GateCause.Starting;
  return openGates(shared);
}

/** The same gates in another thread. */
export function openGates(shared: SharedArrayBuffer): Gate[] {
  const count = shared.byteLength / gateByteLength;
  return Array.from({ length: count }, (_, row) => new Gate(shared, row));
}
