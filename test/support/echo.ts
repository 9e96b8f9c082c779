import type { Namespace } from '../../lab/namespace.ts';
import { until } from '../../lab/program.ts';
import { shell } from './hairpin.ts';

/**
 * On UDP port 7000 of a host, for one datagram and its answer; it listens when this returns.
 * @returns what ends with it
 */
export async function startEcho(host: Namespace): Promise<{ readonly ended: Promise<unknown> }> {
  const ended = shell(host, 'timeout 20 socat -b16384 -T1 UDP-LISTEN:7000 EXEC:cat; true');
  await until('the echo listens', 5000, async () =>
    (await shell(host, 'ss -Hlun sport = :7000')).includes(':7000'),
  );
  return { ended };
}
