/** What a running agent says about itself, asked by a command. */
import { request } from '../control/client.ts';
import type { AgentStatus } from '../control/status.ts';

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
