/**
 * The data-path worker as the main thread sees it: started, restarted when it dies, stopped. While
 * it is dead its heartbeat is too, so the programs in the kernel follow `onAgentFailure` by
 * themselves; a new worker begins with the gate as it is and an empty flow table.
 */
import { Worker } from 'node:worker_threads';
import { Deaths } from '../engine/deaths.ts';
import type { DataPathData } from './data-path.ts';

export type DataPathListener = {
  /** The worker died and is started again. */
  died(message: string): void;
  /** It died too often: the agent should stop. */
  failed(message: string): void;
};

/** The loop answers a stop within its drain time; beyond this it hangs and is terminated. */
const stopLimitMs = 2_000;

const workerFile = import.meta.filename.endsWith('.ts')
  ? './data-path.worker.ts'
  : './data-path.worker.js';

export class DataPathThread {
  private readonly data: DataPathData;
  private readonly wake: () => void;
  private readonly listener: DataPathListener;
  private readonly deaths = new Deaths();
  private worker: Worker;
  private stopping = false;

  constructor(data: DataPathData, wake: () => void, listener: DataPathListener) {
    this.data = data;
    this.wake = wake;
    this.listener = listener;
    this.worker = this.start();
  }

  /** Resolves when the worker has ended; packets on their way back have been delivered. */
  async stop(): Promise<void> {
    this.stopping = true;
    const { worker } = this;
    if (worker.threadId < 0) return;
    const exited = new Promise((resolve) => worker.once('exit', resolve));
    const timer = setTimeout(() => void worker.terminate(), stopLimitMs);
    Atomics.store(new Int32Array(this.data.stop), 0, 1);
    this.wake();
    await exited;
    clearTimeout(timer);
  }

  private start(): Worker {
    const worker = new Worker(new URL(workerFile, import.meta.url), {
      name: 'data-path',
      workerData: this.data,
    });
    let cause = '';
    worker.on('error', (error) => {
      cause = error.message;
    });
    worker.on('exit', (code) => {
      if (!this.stopping) this.onDeath(cause === '' ? `exit code ${code}` : cause);
    });
    return worker;
  }

  private onDeath(message: string): void {
    if (this.deaths.isTooMany(performance.now())) return this.listener.failed(message);
    this.listener.died(message);
    this.worker = this.start();
  }
}
