/**
 * Reading the configuration again while the agent runs: what can change changes as a whole, or
 * nothing does. Requests that come while one is at work wait for it and then read the file anew.
 *
 * A trial puts another file in force for a time. Unless it is confirmed in that time, what was in
 * force before is again: the timer is the agent's, so that no terminal and no network is needed for
 * it. An agent that dies or is started again in the meantime knows only its own file, which a trial
 * does not touch.
 */
import { readFileSync, statSync } from 'node:fs';
import type { ReloadAnswer } from '../control/server.ts';
import type { ConfigurationStatus } from '../control/status.ts';
import type { CompileAnswer, Compiled } from './compile.ts';
import { ConfigError, formatProblem } from './config/parse.ts';
import type { Logger } from './log.ts';

type Apply = (next: Compiled, reclassify: boolean) => Promise<void>;
type Compile = (file: string, before: SharedArrayBuffer) => Promise<CompileAnswer>;

export class Reloader {
  private readonly file: string;
  private readonly logger: Logger;
  private readonly compile: Compile;
  private readonly apply: Apply;
  private current: Compiled;
  private text: Buffer;
  private loadedMs = Date.now();
  private trial: Trial | undefined;
  private seen = { stamp: '', differs: false };
  private last: Promise<unknown> = Promise.resolve();

  /**
   * @param current what is in force, read from `file` just now
   * @param apply puts a policy in force; when it throws, everything must be as it was
   */
  constructor(file: string, current: Compiled, logger: Logger, compile: Compile, apply: Apply) {
    this.file = file;
    this.current = current;
    this.text = textOf(file);
    this.logger = logger;
    this.compile = compile;
    this.apply = apply;
  }

  /** Never rejects: what went wrong is in the answer and in the log. */
  reload(askedBy: string, reclassify = false): Promise<ReloadAnswer> {
    return this.inTurn(`reload, asked by ${askedBy}`, async () => {
      if (this.trial !== undefined) return refusal(onTrial);
      const text = textOf(this.file);
      const before = this.current;
      const answer = await this.load(this.file, reclassify);
      if (!answer.ok) return answer;
      this.keep(text);
      if (!reclassify) return answer;
      // Flows may be of a policy before the one in force.
      if (before === this.current) await this.apply(before, true);
      return { ...answer, changed: [...answer.changed, reclassified] };
    });
  }

  /** Put another file in force until `forMs` have passed, or it is confirmed. Never rejects. */
  try(candidate: string, forMs: number, reclassify = false): Promise<ReloadAnswer> {
    return this.inTurn(`trial for ${forMs / 1000} s`, async () => {
      if (this.trial !== undefined) return refusal(onTrial);
      const before = this.current;
      const text = textOf(candidate);
      const answer = await this.load(candidate, reclassify);
      if (!answer.ok || before === this.current) return answer;
      const timer = setTimeout(() => void this.rollBack('nobody confirmed it in time'), forMs);
      const changed = reclassify ? [...answer.changed, reclassified] : answer.changed;
      const endMs = performance.now() + forMs;
      this.trial = { before, text, timer, changed, reclassify, endMs };
      return { ...answer, changed };
    });
  }

  /** What is on trial stays. Whoever asks for it writes it to the agent's file. */
  confirm(): Promise<ReloadAnswer> {
    return this.inTurn('confirmation', async () => {
      const { trial } = this;
      if (trial === undefined) return refusal(notOnTrial);
      this.endTrial();
      this.keep(trial.text);
      return { ...accepted, changed: trial.changed };
    });
  }

  /** What was in force before the trial is again. */
  rollBack(reason: string): Promise<ReloadAnswer> {
    return this.inTurn(`roll back: ${reason}`, async () => {
      const { trial } = this;
      if (trial === undefined) return refusal(notOnTrial);
      await this.apply(trial.before, trial.reclassify);
      this.current = trial.before;
      this.endTrial();
      return { ...accepted, changed: trial.changed.map((words) => `no more: ${words}`) };
    });
  }

  /** For those who want it as it is in force, not as the file is now. */
  configuration(): { readonly file: string; readonly text: string } {
    return { file: this.file, text: this.text.toString() };
  }

  status(): ConfigurationStatus {
    const { file, trial } = this;
    const leftMs = trial === undefined ? 0 : Math.max(0, trial.endMs - performance.now());
    return {
      file,
      loadedAt: new Date(this.loadedMs).toISOString(),
      differs: this.differs(),
      ...(trial === undefined
        ? {}
        : {
            pending: {
              secondsLeft: Math.ceil(leftMs / 1000),
              rollbackAt: new Date(Date.now() + leftMs).toISOString(),
              changed: trial.changed,
            },
          }),
    };
  }

  /** Nothing is rolled back any more: the agent ends. */
  close(): void {
    this.endTrial();
  }

  private endTrial(): void {
    clearTimeout(this.trial?.timer);
    this.trial = undefined;
  }

  private keep(text: Buffer): void {
    this.text = text;
    this.loadedMs = Date.now();
    this.seen = { stamp: '', differs: false };
  }

  /** Read again only when the file was touched. */
  private differs(): boolean {
    const found = statSync(this.file, { throwIfNoEntry: false });
    const stamp = `${found?.mtimeMs} ${found?.size} ${found?.ino}`;
    if (stamp !== this.seen.stamp) {
      this.seen = { stamp, differs: !textOf(this.file).equals(this.text) };
    }
    return this.seen.differs;
  }

  private inTurn(what: string, work: () => Promise<ReloadAnswer>): Promise<ReloadAnswer> {
    const answer = this.last.then(work).catch((error) => refusal(...reasons(error)));
    this.last = answer;
    answer.then((result) => this.log(what, result));
    return answer;
  }

  private async load(file: string, reclassify: boolean): Promise<ReloadAnswer> {
    const { changed, next, refused, warnings } = await this.compile(file, this.current.source);
    if (next !== undefined) {
      await this.apply(next, reclassify);
      this.current = next;
    }
    return { ok: refused.length === 0, changed, refused, warnings };
  }

  private log(what: string, { changed, ok, refused, warnings }: ReloadAnswer): void {
    const count = changed.length === 1 ? '1 change' : `${changed.length} changes`;
    if (ok) this.logger.info({ changed: some(changed) }, `${what}: ${count}`);
    else {
      const headline = `${what}: nothing has changed`;
      this.logger.error({ refused: some(refused) }, headline);
    }
    if (warnings.length > 0) this.logger.warn({ warnings: some(warnings) }, 'the configuration');
  }
}

type Trial = {
  readonly before: Compiled;
  readonly text: Buffer;
  readonly timer: NodeJS.Timeout;
  readonly changed: readonly string[];
  /** Then its end decides them again, too. */
  readonly reclassify: boolean;
  /** By `performance.now`. */
  readonly endMs: number;
};

const accepted = { ok: true, changed: [], refused: [], warnings: [] } as const;
const reclassified = 'connections that are known are decided again, within seconds';
const onTrial = 'a configuration is on trial: microperimeter confirm or rollback first';
const notOnTrial = 'no configuration is on trial: it was rolled back, or there was none';

function refusal(...refused: string[]): ReloadAnswer {
  return { ok: false, changed: [], refused, warnings: [] };
}

/** Empty when it cannot be read: whoever compiles it says why. */
function textOf(file: string): Buffer {
  try {
    return readFileSync(file);
  } catch {
    return Buffer.alloc(0);
  }
}

/** A line of the log has an end; the answer on the control socket has everything. */
function some(lines: readonly string[]): readonly string[] {
  const shown = 20;
  if (lines.length <= shown) return lines;
  return [...lines.slice(0, shown), `and ${lines.length - shown} more`];
}

function reasons(error: unknown): string[] {
  if (error instanceof ConfigError) {
    return error.problems.map((problem) => formatProblem(error.file, problem));
  }
  return [error instanceof Error ? error.message : String(error)];
}
