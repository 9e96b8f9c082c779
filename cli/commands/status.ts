/** `microperimeter status`: what the running agent says about itself. */
import { stringify } from 'yaml';
import { request } from '../../control/client.ts';
import { ExitCode } from '../exit-codes.ts';

export async function status(options: { socket: string; json: boolean }): Promise<number> {
  const answer = await request(options.socket, 'GET', '/status');
  if (answer.status !== 200) throw new Error(`the agent answered with status ${answer.status}`);
  const text = options.json ? `${JSON.stringify(answer.body, null, 2)}\n` : stringify(answer.body);
  process.stdout.write(text);
  return ExitCode.Ok;
}
