/**
 * The thread that reads and compiles configurations, as the main thread sees it: started for each
 * of them, gone with all its memory when it has answered.
 */
import { RulesTooLargeError } from '../engine/classifier/tables.ts';
import { startWorker } from '../engine/start-worker.ts';
import type { CompileAnswer } from './compile.ts';
import { ConfigError, type Problem } from './config/parse.ts';

export type CompileTask = {
  readonly file: string;
  readonly before: SharedArrayBuffer | undefined;
};

/** An error does not cross between threads as what it is. */
export type CompileMessage =
  | { readonly type: 'answer'; readonly answer: CompileAnswer }
  | { readonly type: 'config'; readonly file: string; readonly problems: readonly Problem[] }
  | { readonly type: 'rules'; readonly code: RulesTooLargeError['code']; readonly message: string };

/**
 * `compileFile` in a thread of its own. When that runs out of memory, it is the only one that
 * dies: the promise is rejected.
 */
export function compileInThread(
  file: string,
  before: SharedArrayBuffer | undefined,
): Promise<CompileAnswer> {
  const workerData: CompileTask = { file, before };
  const worker = startWorker('./compile.worker', import.meta.url, { name: 'compile', workerData });
  return new Promise((resolve, reject) => {
    worker.once('message', (message: CompileMessage) => {
      if (message.type === 'answer') resolve(message.answer);
      else if (message.type === 'config') reject(new ConfigError(message.file, message.problems));
      else reject(new RulesTooLargeError(message.code, message.message));
    });
    worker.once('error', (error: NodeJS.ErrnoException) =>
      reject(error.code === 'ERR_WORKER_OUT_OF_MEMORY' ? outOfMemory() : error),
    );
    // Nothing, when it has answered.
    worker.once('exit', (code) => reject(new Error(`the compiler ended with exit code ${code}`)));
  });
}

function outOfMemory(): RulesTooLargeError {
  const message = 'reading the rules takes more memory than there is; use fewer of them';
  return new RulesTooLargeError('RULES_TOO_LARGE', message);
}
