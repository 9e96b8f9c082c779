/** In the binary, the code of worker threads is an asset by its file's name. */
import { getAsset } from 'node:sea';
import { Worker, type WorkerOptions } from 'node:worker_threads';

/** As engine/start-worker.ts, which this replaces. */
export function startWorker(name: string, _caller: string, options: WorkerOptions): Worker {
  const code = getAsset(`${name.slice(name.lastIndexOf('/') + 1)}.cjs`, 'utf8');
  return new Worker(code, { ...options, eval: true });
}
