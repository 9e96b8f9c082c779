/**
 * `microperimeter apply`, `confirm`, `rollback`: another configuration on trial. The running agent
 * takes it, and takes it back by itself unless it is confirmed in time; the agent's file changes
 * only then. So a configuration that locks its author out ends before a reboot would help.
 */
import { realpathSync, unlinkSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { request } from '../../control/client.ts';
import type { ReloadAnswer } from '../../control/server.ts';
import { readConfigFile } from '../config/file.ts';
import { parseDuration } from '../config/text.ts';
import { readText, writeAtomically } from '../config/write.ts';
import { ExitCode } from '../exit-codes.ts';
import { describeSession, findSshSession } from '../ssh-session.ts';
import { UsageError } from '../usage-error.ts';
import { answerTimeoutMs, drawAnswer } from './reload.ts';

type Options = { readonly socket: string; readonly confirm: string; readonly reclassify: boolean };

/** 2 when the file is wrong or needs a restart: then the agent goes on as before. */
export async function apply(file: string, options: Options): Promise<number> {
  const { confirm, reclassify, socket } = options;
  const ms = parseDuration(confirm) ?? 0;
  if (ms < 1000) throw new UsageError(`--confirm is a time such as 60s or 5m, not ${confirm}`);
  readConfigFile(file);
  const candidateText = readText(file);
  const running = await configurationOf(socket);
  // Beside the socket, where the agent surely reads: as a service it sees no /home and no /root.
  const candidate = join(dirname(socket), 'candidate.yaml');
  writeAtomically(candidate, candidateText, 0o600);
  const seconds = Math.round(ms / 1000);
  const query = new URLSearchParams({ candidate, seconds: String(seconds) });
  if (reclassify) query.set('reclassify', '');
  const answer = await request(socket, 'POST', `/apply?${query}`, answerTimeoutMs);
  const result = answer.body as ReloadAnswer;
  process.stdout.write(drawAnswer(result, 'on trial'));
  if (!result.ok || result.changed.length === 0) {
    unlinkSync(candidate);
    return result.ok ? ExitCode.Ok : ExitCode.Usage;
  }
  if (isSameFile(file, running.file)) {
    const kept = `${running.file}.candidate`;
    writeAtomically(kept, candidateText, 0o600);
    writeAtomically(running.file, running.text);
    process.stdout.write(
      `${running.file} has the old configuration until you confirm; yours is in ${kept}\n`,
    );
  }
  const session = findSshSession();
  const lost =
    session === undefined ? '' : `If your SSH ${describeSession(session)} is lost, wait. `;
  process.stdout.write(
    `${lost}It is rolled back in ${seconds} s unless you say: microperimeter confirm\n`,
  );
  return ExitCode.Ok;
}

export async function confirm({ socket }: { socket: string }): Promise<number> {
  const { ok, refused } = await ask(socket, '/confirm');
  if (!ok) return refuse(refused);
  const { file, text } = await configurationOf(socket);
  if (readText(file) !== text) writeAtomically(file, text);
  process.stdout.write(`confirmed: ${file} has it, and it stays\n`);
  return ExitCode.Ok;
}

export async function rollback({ socket }: { socket: string }): Promise<number> {
  const { ok, refused } = await ask(socket, '/rollback');
  if (!ok) return refuse(refused);
  process.stdout.write('rolled back: what was in force before is again\n');
  return ExitCode.Ok;
}

function refuse(refused: readonly string[]): number {
  process.stderr.write(`microperimeter: ${refused.join('\n')}\n`);
  return ExitCode.Usage;
}

async function ask(socket: string, path: string): Promise<ReloadAnswer> {
  return (await request(socket, 'POST', path, answerTimeoutMs)).body as ReloadAnswer;
}

async function configurationOf(socket: string): Promise<{ file: string; text: string }> {
  return (await request(socket, 'GET', '/configuration')).body as { file: string; text: string };
}

function isSameFile(a: string, b: string): boolean {
  return realpathSync(a) === realpathSync(b);
}
