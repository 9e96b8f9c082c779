/** Entry of the thread that reads and compiles one configuration. */
import { parentPort, workerData } from 'node:worker_threads';
import { RulesTooLargeError } from '../engine/classifier/tables.ts';
import { compileFile } from './compile.ts';
import type { CompileMessage, CompileTask } from './compile-thread.ts';
import { ConfigError } from './config/parse.ts';

// The YAML reader asks the environment for a flag at each token; a plain object answers at once.
process.env = { ...process.env };
const { file, before } = workerData as CompileTask;
parentPort?.postMessage(compile());

function compile(): CompileMessage {
  try {
    return { type: 'answer', answer: compileFile(file, before) };
  } catch (error) {
    if (error instanceof ConfigError) {
      return { type: 'config', file: error.file, problems: error.problems };
    }
    if (!(error instanceof RulesTooLargeError)) throw error;
    return { type: 'rules', code: error.code, message: error.message };
  }
}
