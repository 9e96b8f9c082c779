/** `microperimeter status`: what the running agent says about itself, on one screen. */
import { request } from '../../control/client.ts';
import type { AgentStatus } from '../../control/status.ts';
import { ExitCode } from '../exit-codes.ts';
import { colorsFor } from '../screen/format.ts';
import { drawStatus } from '../screen/status.ts';

/** 0 while it redirects, NotRedirecting otherwise. */
export async function status(options: { socket: string; json: boolean }): Promise<number> {
  const answer = await readStatus(options.socket);
  process.stdout.write(
    options.json
      ? `${JSON.stringify(answer, null, 2)}\n`
      : isComplete(answer)
        ? drawStatus(answer, colorsFor(process.stdout), Date.now())
        : `${answer.state}: the agent is not up yet\n`,
  );
  return answer.state === 'redirecting' ? ExitCode.Ok : ExitCode.NotRedirecting;
}

/** Throws a ControlError when there is no agent. */
export async function readStatus(socket: string): Promise<AgentStatus | StartingStatus> {
  const answer = await request(socket, 'GET', '/status');
  if (answer.status !== 200) throw new Error(`the agent answered with status ${answer.status}`);
  return answer.body as AgentStatus | StartingStatus;
}

/** Before everything is open there is nothing else to tell. */
type StartingStatus = { readonly state: 'starting' };

export function isComplete(status: AgentStatus | StartingStatus): status is AgentStatus {
  return 'gate' in status;
}
