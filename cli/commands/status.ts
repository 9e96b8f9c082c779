/** `microperimeter status`: what the running agent says about itself, on one screen. */
import { ExitCode } from '../exit-codes.ts';
import { colorsFor } from '../screen/format.ts';
import { drawStatus } from '../screen/status.ts';
import { isComplete, readStatus } from '../status-of-agent.ts';

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
