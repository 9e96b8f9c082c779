/** New TCP connections a second: connect, end, close, by our own program (bench/load). */
import { fileURLToPath } from 'node:url';
import { start, until } from '../../lab/program.ts';
import type { Connected } from '../load/connections.ts';
import { type Measurement, output } from '../measure.ts';

const programFile = fileURLToPath(new URL('../load/connections.js', import.meta.url));
const port = 5302;
const graceMs = 15_000;
/** SYN, SYN-ACK, ACK, FIN, ACK, FIN, ACK: at least this many headers of 40 bytes. */
const bytesEach = 6 * 40;
const failedLimit = 0.01;

export const newConnections: Measurement = {
  name: 'connections',
  run: async (path, effort) => {
    const server = start(path.server, process.execPath, [programFile, 'accept', String(port)]);
    try {
      await until('the server accepts', graceMs, () => server.output.includes('listening'));
      const check = await path.proof();
      const args = [programFile, 'connect', path.address, String(port), String(effort.seconds)];
      const text = await output(
        path.client,
        process.execPath,
        args,
        effort.seconds * 1000 + graceMs,
      );
      const { connections, failed, seconds } = JSON.parse(text) as Connected;
      if (failed > connections * failedLimit) {
        throw new Error(`${failed} connections of ${connections + failed} failed`);
      }
      await check(connections * bytesEach);
      return { connections: connections / seconds };
    } finally {
      await server.stop('SIGKILL');
    }
  },
};
