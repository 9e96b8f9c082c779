/** The only file that sees engine and linux together: it makes a running agent of a configuration. */
import type { Config } from '../engine/config.ts';
import { UnsupportedFeature } from '../linux/errors.ts';
import type { Logger } from './log.ts';

export type RunningAgent = {
  status(): object;
  /** Clean stop: everything of ours is gone when it resolves. */
  stop(): Promise<void>;
  /** Resolves with an exit code when the agent ends by itself. */
  readonly ended: Promise<number>;
};

export async function assemble(_config: Config, _logger: Logger): Promise<RunningAgent> {
  throw new UnsupportedFeature('data path in this build', '0', 0);
}
