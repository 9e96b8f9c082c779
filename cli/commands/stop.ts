/** `microperimeter stop`: ask the running agent to stop, and wait until it is gone. */
import { setTimeout as sleep } from 'node:timers/promises';
import { request } from '../../control/client.ts';
import { ControlError } from '../../control/errors.ts';
import { ExitCode } from '../exit-codes.ts';

/** Longer than the longest `telemetry.timeout`, within which the stop event is sent. */
const waitMs = 65_000;
const pollMs = 100;

export async function stop(options: { socket: string }): Promise<number> {
  const answer = await request(options.socket, 'POST', '/stop');
  if (answer.status !== 202) throw new Error(`the agent answered with status ${answer.status}`);
  const end = performance.now() + waitMs;
  while (performance.now() < end) {
    if (!(await isRunning(options.socket))) return ExitCode.Ok;
    await sleep(pollMs);
  }
  throw new Error(`the agent took the request but still runs after ${waitMs / 1000} s`);
}

async function isRunning(socket: string): Promise<boolean> {
  try {
    await request(socket, 'GET', '/status');
    return true;
  } catch (error) {
    if (error instanceof ControlError && error.code === 'ERR_NOT_RUNNING') return false;
    // It was reached and hung up: on its way out.
    return true;
  }
}
