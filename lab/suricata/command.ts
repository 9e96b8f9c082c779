/**
 * Questions to a running Suricata over its command socket: JSON over a Unix stream, one answer to
 * each question, after a line that agrees on the protocol's version (Suricata user guide, "Unix
 * Socket").
 */
import { createConnection } from 'node:net';

const protocolVersion = '0.2';
const answerLimitMs = 2000;

/** Packets of a connection that Suricata still remembers. */
export type FlowPackets = { readonly toServer: number; readonly toClient: number };

type Answer = { readonly return: string; readonly message: unknown };

/** For each id, in order; undefined where the connection is forgotten. */
export async function askFlowPackets(
  socketPath: string,
  ids: readonly number[],
): Promise<(FlowPackets | undefined)[]> {
  const questions = ids.map((id) => ({
    command: 'get-flow-stats-by-id',
    arguments: { flow_id: id },
  }));
  const answers = await converse(socketPath, [{ version: protocolVersion }, ...questions]);
  return answers.slice(1).map((answer) => {
    if (answer.return !== 'OK') return undefined;
    const stats = answer.message as { pkts_toserver: number; pkts_toclient: number };
    return { toServer: stats.pkts_toserver, toClient: stats.pkts_toclient };
  });
}

/** Answers are lines; the next question waits for the answer to the one before. */
function converse(socketPath: string, questions: readonly object[]): Promise<Answer[]> {
  return new Promise((resolve, reject) => {
    const answers: Answer[] = [];
    let rest = '';
    const socket = createConnection(socketPath);
    const ask = () => socket.write(`${JSON.stringify(questions[answers.length])}\n`);
    socket.setTimeout(answerLimitMs, () => socket.destroy(new Error('Suricata does not answer')));
    socket.on('connect', ask);
    socket.on('error', reject);
    socket.on('data', (data: Buffer) => {
      rest += data.toString();
      const lines = rest.split('\n');
      rest = lines.pop() ?? '';
      for (const line of lines) answers.push(JSON.parse(line) as Answer);
      if (lines.length === 0) return;
      if (answers.length < questions.length) return void ask();
      socket.end();
      resolve(answers);
    });
  });
}
