/**
 * The telemetry worker as the main thread sees it: started, listened to, restarted with the gates
 * closed when it dies, stopped within a bounded time.
 */
import type { Worker } from 'node:worker_threads';
import type { TelemetryConfig } from './config.ts';
import { Deaths } from './deaths.ts';
import { type Gate, GateCause } from './gate.ts';
import { startWorker } from './start-worker.ts';
import type { StateChange } from './telemetry.ts';
import type { TelemetryCredentials } from './telemetry-client.ts';
import type { AgentIdentity } from './telemetry-report.ts';

export type TelemetryWorkerData = {
  /** One for each firewall, in the order of the gates. */
  readonly targets: readonly {
    readonly url: string;
    readonly credentials: TelemetryCredentials;
    readonly identity: AgentIdentity;
  }[];
  readonly schedule: TelemetryConfig;
  /** `Gate.shared`. */
  readonly gates: SharedArrayBuffer;
  /** `countersByteLength` bytes (engine/counters.ts). */
  readonly counters: SharedArrayBuffer;
};

/** What the worker tells its parent. `failure` is empty when the stop event was delivered. */
export type TelemetryMessage =
  | { readonly type: 'change'; readonly firewall: number; readonly change: StateChange }
  | { readonly type: 'stopped'; readonly failure: string };

export type TelemetryListener = {
  /** The state of a firewall's gate changed; once per change. */
  change(firewall: number, change: StateChange): void;
  /** The worker died with `message` and is started again, the gates closed meanwhile. */
  died(message: string): void;
  /** It died too often: the gates stay closed and the agent should stop. */
  failed(message: string): void;
};

/** Beyond `timeout`, for a worker that is asked to stop: then it is terminated. */
const stopMarginMs = 1_000;

export class TelemetryThread {
  private readonly data: TelemetryWorkerData;
  private readonly gates: readonly Gate[];
  private readonly listener: TelemetryListener;
  private readonly deaths = new Deaths();
  private worker: Worker;
  private stopping = false;
  private stopFailure = '';

  /** Starts the worker. `gates` must be those whose memory is in `data`. */
  constructor(data: TelemetryWorkerData, gates: readonly Gate[], listener: TelemetryListener) {
    this.data = data;
    this.gates = gates;
    this.listener = listener;
    this.worker = this.start();
  }

  /**
   * Close the gates for good, send the stop events and end the worker: within `timeout` plus one
   * second. Resolves with why a stop event was not delivered; empty when all were.
   */
  async stop(): Promise<string> {
    this.stopping = true;
    for (const gate of this.gates) gate.close(GateCause.Stopping);
    const worker = this.worker;
    if (worker.threadId < 0) return 'the telemetry worker is dead';
    this.stopFailure = 'the telemetry worker did not stop in time';
    const exited = new Promise((resolve) => worker.once('exit', resolve));
    const timer = setTimeout(
      () => void worker.terminate(),
      this.data.schedule.timeoutMs + stopMarginMs,
    );
    worker.postMessage('stop');
    await exited;
    clearTimeout(timer);
    return this.stopFailure;
  }

  private start(): Worker {
    const worker = startWorker('./telemetry.worker', import.meta.url, {
      name: 'telemetry',
      workerData: this.data,
    });
    let cause = '';
    worker.on('message', (message: TelemetryMessage) => {
      if (message.type === 'change') this.listener.change(message.firewall, message.change);
      else this.stopFailure = message.failure;
    });
    worker.on('error', (error) => {
      cause = error.message;
    });
    worker.on('exit', (code) => {
      if (!this.stopping) this.onDeath(cause === '' ? `exit code ${code}` : cause);
    });
    return worker;
  }

  private onDeath(message: string): void {
    for (const gate of this.gates) gate.close(GateCause.WorkerDead);
    if (this.deaths.isTooMany(performance.now())) {
      this.listener.failed(message);
      return;
    }
    this.listener.died(message);
    this.worker = this.start();
  }
}
