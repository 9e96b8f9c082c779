/**
 * Reading the configuration again while the agent runs: what can change changes as a whole, or
 * nothing does. Requests that come while one is at work wait for it and then read the file anew.
 */
import type { ReloadAnswer } from '../control/server.ts';
import type { Config } from '../engine/config.ts';
import { differenceOf } from './config/difference.ts';
import { readConfigFile } from './config/file.ts';
import { ConfigError, formatProblem } from './config/parse.ts';
import type { Logger } from './log.ts';

export class Reloader {
  private readonly file: string;
  private readonly logger: Logger;
  private readonly apply: (next: Config) => Promise<void>;
  private config: Config;
  private last: Promise<unknown> = Promise.resolve();

  /** @param apply puts a policy in force; when it throws, everything must be as it was */
  constructor(
    file: string,
    config: Config,
    logger: Logger,
    apply: (next: Config) => Promise<void>,
  ) {
    this.file = file;
    this.config = config;
    this.logger = logger;
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
      const { config, warnings } = readConfigFile(this.file);
      const { changed, refused } = differenceOf(this.config, config);
      const words = warnings.map((problem) => formatProblem(this.file, problem));
      if (refused.length > 0) return { ok: false, changed: [], refused, warnings: words };
      // A policy that is put in force again would only begin its counters anew.
      if (JSON.stringify(config) !== JSON.stringify(this.config)) await this.apply(config);
      this.config = config;
      return { ok: true, changed, refused, warnings: words };
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
