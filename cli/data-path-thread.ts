/**
 * The data-path worker as the main thread sees it: started, restarted when it dies, stopped. While
 * it is dead its heartbeat is too, so the programs in the kernel follow `onAgentFailure` by
 * themselves; a new worker begins with the gate as it is and an empty flow table.
 */
import { MessageChannel, type MessagePort, type Worker } from 'node:worker_threads';
import type { Policy } from '../engine/classifier/lookup.ts';
import { Deaths } from '../engine/deaths.ts';
import { startWorker } from '../engine/start-worker.ts';
import type { DataPathData } from './data-path.ts';

/** What a worker starts with, but for its end of the policies' channel. */
export type DataPathStart = Omit<DataPathData, 'policies'>;

export type DataPathListener = {
  /** The worker died and is started again. */
  died(message: string): void;
  /** It died too often: the agent should stop. */
  failed(message: string): void;
};

/** The loop answers a stop within its drain time; beyond this it hangs and is terminated. */
const stopLimitMs = 2_000;

export class DataPathThread {
  private data: DataPathStart;
  private readonly wake: () => void;
  private readonly listener: DataPathListener;
  private readonly deaths: Deaths;
  private worker: Worker;
  private policies: MessagePort;
  private stopping = false;

  /** @param deaths shared with other workers, whose deaths count as well */
  constructor(
    data: DataPathStart,
    wake: () => void,
    listener: DataPathListener,
    deaths = new Deaths(),
  ) {
    this.deaths = deaths;
    this.data = data;
    this.wake = wake;
    this.listener = listener;
    [this.worker, this.policies] = this.start();
  }

  /** The data path takes it within a tick; a worker that has to be started again begins with it. */
  replacePolicy(policy: Policy): void {
    this.data = { ...this.data, engine: { ...this.data.engine, policy } };
    this.policies.postMessage(policy);
    this.wake();
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

  private start(): [Worker, MessagePort] {
    const { port1, port2 } = new MessageChannel();
    const workerData: DataPathData = { ...this.data, policies: port2 };
    const worker = startWorker('./data-path.worker', import.meta.url, {
      name: 'data-path',
      workerData,
      transferList: [port2],
    });
    let cause = '';
    worker.on('error', (error) => {
      cause = error.message;
    });
    worker.on('exit', (code) => {
      if (!this.stopping) this.onDeath(cause === '' ? `exit code ${code}` : cause);
    });
    // It must not keep the process alive by itself.
    port1.unref();
    return [worker, port1];
  }

  private onDeath(message: string): void {
    if (this.deaths.isTooMany(performance.now())) return this.listener.failed(message);
    this.listener.died(message);
    this.policies.close();
    [this.worker, this.policies] = this.start();
  }
}
