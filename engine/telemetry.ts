/**
 * When to try the firewall's telemetry endpoint, and what the outcome means for the gate. Pure:
 * time is passed in (CLOCK_MONOTONIC, milliseconds), and nothing here sends or sleeps.
 *
 * While the gate is open, a round starts `interval` after the start of the last success. A round
 * has up to `retries` attempts, the k-th beginning k x timeout after the round and having to end
 * within its timeout, so that a refused connection, which fails at once, does not use up the round
 * in a millisecond. The first success ends the round and gives a lease of
 * interval + timeout x retries from the start of that attempt: exactly until a whole failed round
 * would end. The round's last failure closes the gate at once.
 *
 * While it is closed there is nothing to lose: one attempt per interval. Before the first success,
 * within the start-up grace, one attempt per timeout, so that a firewall that boots beside the
 * workload is found soon; the state is `starting` until the grace has passed.
 */
import type { TelemetryConfig } from './config.ts';
import { leaseMs } from './config.ts';
import { GateCause, gateCauseSentence } from './gate.ts';

export type TelemetryState = 'starting' | 'open' | 'closed';

/** Why an attempt failed. `message` is for the log: the error's own words. */
export type Failure = {
  readonly cause: GateCause;
  /** HTTP status when the cause is TelemetryRefused; else 0. */
  readonly detail: number;
  readonly message: string;
};

/** One change of state, to be logged once. */
export type StateChange = {
  readonly level: 'info' | 'warn' | 'error';
  readonly state: TelemetryState;
  readonly cause: GateCause;
  readonly sentence: string;
  readonly message: string;
};

/** What to do with the gate. */
export type Decision =
  | { readonly gate: 'keep'; readonly change: StateChange | undefined }
  | {
      readonly gate: 'renew';
      readonly deadlineMs: number;
      readonly change: StateChange | undefined;
    }
  | {
      readonly gate: 'close';
      readonly cause: GateCause;
      readonly detail: number;
      readonly change: StateChange | undefined;
    };

const keep: Decision = { gate: 'keep', change: undefined };

export class TelemetryPlan {
  private readonly config: TelemetryConfig;
  private readonly graceEndMs: number;
  private current: TelemetryState = 'starting';
  private lastFailure: Failure | undefined;
  private roundStartMs: number;
  /** Attempts of this round that have begun. */
  private attempts = 0;
  private nextAtMs: number;
  private attemptStartMs = 0;

  constructor(config: TelemetryConfig, nowMs: number) {
    this.config = config;
    this.graceEndMs = nowMs + config.startupGraceMs;
    this.roundStartMs = nowMs;
    this.nextAtMs = nowMs;
  }

  get state(): TelemetryState {
    return this.current;
  }

  /** When the next attempt should begin; in the past: now. */
  get nextAttemptMs(): number {
    return this.nextAtMs;
  }

  /** An attempt begins now. Returns when it must have ended; later counts as a timeout. */
  begin(nowMs: number): number {
    if (this.attempts === 0) this.roundStartMs = nowMs;
    this.attemptStartMs = nowMs;
    // From when it was due, not from when the timer fired, so that lateness does not add up in a
    // round; but never less than half a timeout.
    const dueMs = this.roundStartMs + this.attempts * this.config.timeoutMs;
    this.attempts++;
    return Math.max(dueMs + this.config.timeoutMs, nowMs + this.config.timeoutMs / 2);
  }

  succeeded(): Decision {
    const { intervalMs } = this.config;
    const deadlineMs = this.attemptStartMs + leaseMs(this.config);
    this.nextAtMs = this.attemptStartMs + intervalMs;
    this.attempts = 0;
    this.lastFailure = undefined;
    if (this.current === 'open') return { gate: 'renew', deadlineMs, change: undefined };
    this.current = 'open';
    return {
      gate: 'renew',
      deadlineMs,
      change: {
        level: 'info',
        state: 'open',
        cause: GateCause.Open,
        sentence: gateCauseSentence(GateCause.Open, 0),
        message: '',
      },
    };
  }

  failed(failure: Failure, nowMs: number): Decision {
    const { intervalMs, timeoutMs, retries } = this.config;
    if (this.current === 'open' && this.attempts < retries) {
      this.nextAtMs = this.roundStartMs + this.attempts * timeoutMs;
      this.lastFailure = failure;
      return keep;
    }
    const wasStarting = this.current === 'starting' && nowMs < this.graceEndMs;
    this.nextAtMs = this.attemptStartMs + (wasStarting ? timeoutMs : intervalMs);
    this.attempts = 0;
    if (wasStarting) {
      this.lastFailure = failure;
      return keep;
    }
    return this.close(failure);
  }

  private close(failure: Failure): Decision {
    const { cause, detail, message } = failure;
    const before = this.lastFailure;
    const same = this.current === 'closed' && before?.cause === cause && before.detail === detail;
    const level = this.current === 'starting' ? 'warn' : 'error';
    this.current = 'closed';
    this.lastFailure = failure;
    const sentence = gateCauseSentence(cause, detail);
    const change: StateChange | undefined = same
      ? undefined
      : { level, state: 'closed', cause, sentence, message };
    return { gate: 'close', cause, detail, change };
  }
}
