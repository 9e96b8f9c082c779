/** `microperimeter lab`: the testbed of the source tree; an installed agent does not carry it. */
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { UsageError } from '../usage-error.ts';

/** The exit code of `scripts/lab`, which gets `words` as they are. */
export function lab(words: readonly string[]): Promise<number> {
  // A bundle has no directory of its own.
  const here: string | undefined = import.meta.dirname;
  const script = join(here ?? '', '..', '..', '..', 'scripts', 'lab');
  if (here === undefined || !existsSync(script)) {
    throw new UsageError('the lab is part of the source tree: sudo ./scripts/lab, there');
  }
  return new Promise((resolve, reject) => {
    const child = spawn(script, words, { stdio: 'inherit' });
    child.once('error', reject);
    child.once('close', (code) => resolve(code ?? 1));
  });
}
