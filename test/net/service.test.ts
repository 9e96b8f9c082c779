/** The agent as a service, with the test as its manager (needs root). */
import { join } from 'node:path';
import t from 'tap';
import { createRunDirectory } from '../../lab/certificates.ts';
import { pause, until } from '../../lab/program.ts';
import { startHairpin } from '../support/hairpin.ts';
import { type NotifySocket, openNotifySocket } from '../support/notify-socket.ts';

/** Each datagram as it comes; answers the next that has the field with such a value. */
function listen(socket: NotifySocket) {
  const told: Record<string, string>[] = [];
  return async (name: string, value: RegExp): Promise<Record<string, string>> => {
    let found: Record<string, string> | undefined;
    await until(`${name}=${value}`, 10_000, () => {
      told.push(...socket.take());
      while (found === undefined && told.length > 0) {
        const next = told.shift()!;
        if (value.test(next[name] ?? '')) found = next;
      }
      return found !== undefined;
    });
    return found!;
  };
}

t.test('ready, alive, reloading, closed, stopping', async (t) => {
  const path = join(createRunDirectory(), 'notify.sock');
  const socket = openNotifySocket(path);
  t.teardown(() => socket.close());
  const environment = { NOTIFY_SOCKET: path, WATCHDOG_USEC: '1000000' };
  const hairpin = await startHairpin(t, { environment });
  const agent = hairpin.launchAgent();
  const next = listen(socket);
  const ready = await next('READY', /1/);
  t.equal(ready.WATCHDOG, '1', 'alive from the first breath on');
  if (ready.STATUS !== 'redirecting') await next('STATUS', /^redirecting$/);
  socket.take();
  await pause(1000);
  const signs = socket.take().filter(({ WATCHDOG }) => WATCHDOG === '1').length;
  t.ok(signs >= 2 && signs <= 5, `${signs} signs of life in a second`);

  agent.program.signal('SIGHUP');
  const reloading = await next('RELOADING', /1/);
  t.match(reloading, { MONOTONIC_USEC: /^\d+$/ });
  await next('READY', /1/);

  await hairpin.firewall.stop();
  await next('STATUS', /^closed: /);
  agent.program.signal('SIGTERM');
  await next('STOPPING', /1/);
  t.equal(await agent.program.ended, 0);
});
