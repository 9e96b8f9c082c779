/**
 * Makes the second data-path worker misbehave, for tests: `node --import` loads this into every
 * thread before the agent itself. While the file that FAULT names is there, its word is done.
 *
 *     die      ends by an error, and removes the file
 *     hang     does nothing for three seconds, and removes the file
 */
import { existsSync, readFileSync, rmSync } from 'node:fs';
import { Loop } from '../../engine/loop.ts';

const file = process.env.FAULT ?? '';
const { breathe } = Loop.prototype;
type Inside = { path: { handover?: { options: { self: number } } } };

Loop.prototype.breathe = function (this: Loop) {
  const { handover } = (this as unknown as Inside).path;
  if (handover?.options.self === 1 && existsSync(file)) {
    const word = readFileSync(file, 'utf8');
    rmSync(file);
    if (word === 'die') throw new Error('told to die');
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 3000);
  }
  return breathe.call(this);
};
