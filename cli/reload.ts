/**
 * Reading the configuration again while the agent runs: what can change changes as a whole, or
 * nothing does. Requests that come while one is at work wait for it and then read the file anew.
 */
import type { ReloadAnswer } from '../control/server.ts';
import type { CompileAnswer, Compiled } from './compile.ts';
import { ConfigError, formatProblem } from './config/parse.ts';
import type { Logger } from './log.ts';

type Compile = (file: string, before: SharedArrayBuffer) => Promise<CompileAnswer>;

export class Reloader {
  private readonly file: string;
  private readonly logger: Logger;
  private readonly compile: Compile;
  private readonly apply: (next: Compiled) => Promise<void>;
  private source: SharedArrayBuffer;
  private last: Promise<unknown> = Promise.resolve();

  /**
   * @param source of what is in force
   * @param apply puts a policy in force; when it throws, everything must be as it was
   */
  constructor(
    file: string,
    source: SharedArrayBuffer,
    logger: Logger,
    compile: Compile,
    apply: (next: Compiled) => Promise<void>,
  ) {
    this.file = file;
    this.source = source;
    this.logger = logger;
    this.compile = compile;
    this.apply = apply;
  }

  /** Never rejects: what went wrong is in the answer and in the log. */
  reload(askedBy: string): Promise<ReloadAnswer> {
    const answer = this.last.then(() => this.reloadOnce());
    this.last = answer;
    answer.then((result) => this.log(askedBy, result));
    return answer;
  }

  private async reloadOnce(): Promise<ReloadAnswer> {
    try {
      const { changed, next, refused, warnings } = await this.compile(this.file, this.source);
      if (next !== undefined) {
        await this.apply(next);
        this.source = next.source;
      }
      return { ok: refused.length === 0, changed, refused, warnings };
    } catch (error) {
      return { ok: false, changed: [], refused: reasons(error), warnings: [] };
    }
  }

  private log(askedBy: string, { changed, ok, refused, warnings }: ReloadAnswer): void {
    const count = changed.length === 1 ? '1 change' : `${changed.length} changes`;
    if (ok) this.logger.info({ changed: some(changed) }, `reloaded, asked by ${askedBy}: ${count}`);
    else {
      const headline = `not reloaded, asked by ${askedBy}: nothing has changed`;
      this.logger.error({ refused: some(refused) }, headline);
    }
    if (warnings.length > 0) this.logger.warn({ warnings: some(warnings) }, 'the configuration');
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
