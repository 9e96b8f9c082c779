/** `microperimeter reload`: the running agent reads its configuration again. */
import { request } from '../../control/client.ts';
import type { ReloadAnswer } from '../../control/server.ts';
import { ExitCode } from '../exit-codes.ts';

/** Reading and compiling the most rules that a file may have takes some ten seconds. */
export const answerTimeoutMs = 60_000;
/** A file may have changed in every line. */
const shownLines = 100;

type Options = {
  readonly socket: string;
  /** Whether connections that are known are decided again. */
  readonly reclassify: boolean;
  readonly json: boolean;
};

/** 2 when the file is wrong or needs a restart: then the agent goes on as before. */
export async function reload(options: Options): Promise<number> {
  const path = options.reclassify ? '/reload?reclassify' : '/reload';
  const answer = await request(options.socket, 'POST', path, answerTimeoutMs);
  if (answer.status !== 200 && answer.status !== 409) {
    throw new Error(`the agent answered with status ${answer.status}`);
  }
  const result = answer.body as ReloadAnswer;
  process.stdout.write(
    options.json ? `${JSON.stringify(result, null, 2)}\n` : drawAnswer(result, 'reloaded'),
  );
  return result.ok ? ExitCode.Ok : ExitCode.Usage;
}

/** @param done what was done, when it was */
export function drawAnswer(answer: ReloadAnswer, done: string): string {
  const { changed, ok, refused, warnings } = answer;
  const warned = section('warnings', warnings);
  if (!ok) return `nothing has changed:\n${list(refused)}${warned}`;
  if (changed.length === 0) return `${done}: the file says what is in force\n${warned}`;
  return `${done}:\n${list(changed)}${warned}`;
}

function section(title: string, lines: readonly string[]): string {
  return lines.length === 0 ? '' : `${title}:\n${list(lines)}`;
}

function list(lines: readonly string[]): string {
  const shown = lines.slice(0, shownLines).map((line) => `  ${line}\n`);
  const more = lines.length - shown.length;
  return `${shown.join('')}${more > 0 ? `  and ${more} more (--json has all)\n` : ''}`;
}
