/** The status page of a running agent (control/page), where the configuration asks for one. */
import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { isSea } from 'node:sea';
import { type PageProvider, startPage } from '../control/page/server.ts';
import type { Settings } from '../engine/config.ts';
import { UsageError } from './usage-error.ts';

const explainLimitMs = 10_000;
/** Guessing a shorter one is a matter of days. */
const tokenLength = 16;

/**
 * @param file the configuration, which `explain` reads
 * @throws UsageError for a token that is none, ControlError for an address that is taken
 */
export async function startStatusPage(
  { control }: Settings,
  file: string,
  provider: Omit<PageProvider, 'explain'>,
): Promise<{ close(): Promise<void> } | undefined> {
  if (control.http === undefined) return undefined;
  const { address, port, tokenFile } = control.http;
  const token = tokenFile === '' ? undefined : readToken(tokenFile);
  return await startPage({ address, port, token }, { ...provider, explain: explainer(file) });
}

function readToken(path: string): string {
  let token: string;
  try {
    token = readFileSync(path, 'utf8').trim();
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    throw new UsageError(`control.http.tokenFile: ${path} cannot be read: ${code}`);
  }
  if (token.length >= tokenLength) return token;
  throw new UsageError(
    `control.http.tokenFile: ${path} has less than ${tokenLength} characters: openssl rand -hex 24`,
  );
}

/**
 * By the command of that name in a process of its own: compiling many rules would keep this one
 * from all else for seconds. One at a time.
 */
function explainer(file: string): PageProvider['explain'] {
  let last: Promise<unknown> = Promise.resolve();
  return (words, direction) => {
    const answer = last.then(() => explain(file, words, direction));
    last = answer.catch(() => {});
    return answer;
  };
}

function explain(file: string, words: readonly string[], direction: string): Promise<object> {
  const program = isSea() ? [] : [process.argv[1] ?? ''];
  const options = ['--config', file, '--json', '--direction', direction, '--'];
  return new Promise((resolve, reject) => {
    execFile(
      process.execPath,
      [...program, 'explain', ...options, ...words],
      { timeout: explainLimitMs },
      (error, stdout, stderr) => {
        if (error === null) return resolve(JSON.parse(stdout) as object);
        const [sentence = ''] = stderr.replace(/^microperimeter: /, '').split('\n');
        reject(new Error(sentence === '' ? error.message : sentence));
      },
    );
  });
}
