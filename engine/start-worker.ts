/**
 * Where the code of worker threads is: in a file beside the one that starts them. A bundle puts
 * another file in the place of this one (packaging/embedded/start-worker.ts).
 */
import { Worker, type WorkerOptions } from 'node:worker_threads';

/**
 * Start `name`, such as `./telemetry.worker`, a file beside the caller.
 * @param caller its `import.meta.url`
 */
export function startWorker(name: string, caller: string, options: WorkerOptions): Worker {
  const extension = caller.slice(caller.lastIndexOf('.'));
  return new Worker(new URL(name + extension, caller), options);
}
