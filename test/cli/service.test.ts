import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { createLogger } from '../../cli/log.ts';
import { type Health, Service } from '../../cli/service.ts';
import { openServiceManager, watchdogMs } from '../../linux/sd-notify.ts';
import { openNotifySocket } from '../support/notify-socket.ts';

const directory = mkdtempSync(join(tmpdir(), 'mp-service-'));
t.teardown(() => rmSync(directory, { recursive: true, force: true }));
const logger = createLogger({ level: 'error', format: 'json', flows: '', which: 'all' });
const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

t.test('what is sent is what the manager reads', async (t) => {
  for (const path of [join(directory, 'a.sock'), `@microperimeter-test-${process.pid}`]) {
    const socket = openNotifySocket(path);
    const manager = openServiceManager({ NOTIFY_SOCKET: path })!;
    t.ok(manager.tell({ READY: '1', STATUS: 'closed: a reason\nREADY=0' }));
    const [before] = process.hrtime();
    t.ok(manager.tellReloading());
    const [told, reloading] = socket.take();
    t.same(told, { READY: '1', STATUS: 'closed: a reason READY=0' }, 'no field within a field');
    t.equal(reloading?.RELOADING, '1');
    const seconds = Number(reloading?.MONOTONIC_USEC) / 1e6;
    t.ok(seconds >= before && seconds < before + 2, `${seconds} s by CLOCK_MONOTONIC`);
    socket.close();
    t.equal(manager.tell({ READY: '1' }), false, 'a manager that is gone is no error');
    manager.close();
  }
});

t.test('without a manager nothing is told, and nothing fails', async (t) => {
  for (const NOTIFY_SOCKET of [undefined, '', 'vsock:2:1', 'relative/path']) {
    t.equal(openServiceManager({ NOTIFY_SOCKET }), undefined, `${NOTIFY_SOCKET}`);
  }
  t.throws(() => openServiceManager({ NOTIFY_SOCKET: '/nowhere/at.all' }), {
    code: 'ERR_SYSTEM_CALL',
    message: /connect\(\/nowhere\/at.all\) failed: ENOENT/,
  });
  const service = new Service({ NOTIFY_SOCKET: '/nowhere/at.all' }, logger);
  service.watch(() => ({ breaths: 1, words: '' }));
  t.equal(await service.whileReloading(async () => 1), 1);
  service.close();
});

t.test('the watchdog is for this process alone', async (t) => {
  const rows: [Record<string, string>, number][] = [
    [{}, 0],
    [{ WATCHDOG_USEC: '10000000' }, 10_000],
    [{ WATCHDOG_USEC: '10000000', WATCHDOG_PID: '7' }, 10_000],
    [{ WATCHDOG_USEC: '10000000', WATCHDOG_PID: '8' }, 0],
    [{ WATCHDOG_USEC: 'soon' }, 0],
  ];
  for (const [environment, ms] of rows) t.equal(watchdogMs(environment, 7), ms);
});

t.test('ready with the first breath, alive with each that is new', async (t) => {
  const path = join(directory, 'b.sock');
  const socket = openNotifySocket(path);
  const environment = { NOTIFY_SOCKET: path, WATCHDOG_USEC: '40000' };
  const service = new Service(environment, logger);
  t.teardown(() => {
    service.close();
    socket.close();
  });
  let health: Health = { breaths: 0, words: 'starting' };
  service.watch(() => health);
  await service.whileReloading(async () => {});
  await pause(60);
  const early = socket.take();
  t.equal(early.filter(({ READY }) => READY !== undefined).length, 0, 'not ready yet');
  t.equal(early.filter(({ STATUS }) => STATUS === 'starting').length, 1);

  health = { breaths: 1, words: 'redirecting' };
  await pause(60);
  const ready = socket.take();
  t.same(ready, [{ READY: '1', STATUS: 'redirecting', WATCHDOG: '1' }], 'once');
  health = { breaths: 2, words: 'redirecting' };
  await pause(60);
  t.same(socket.take(), [{ WATCHDOG: '1' }]);
  await pause(100);
  t.same(socket.take(), [], 'no sign of life without a breath, whatever this thread does');
  // A worker that is started again counts anew.
  health = { breaths: 1, words: 'redirecting' };
  await pause(60);
  t.same(socket.take(), [{ WATCHDOG: '1' }]);

  const { MONOTONIC_USEC: _, ...reloading } =
    (await service.whileReloading(async () => socket.take()[0])) ?? {};
  t.same(reloading, { RELOADING: '1' });
  await t.rejects(
    service.whileReloading(async () => {
      throw new Error('refused');
    }),
  );
  service.tellStopping();
  t.same(
    socket.take().map((fields) => Object.keys(fields)[0]),
    ['READY', 'RELOADING', 'READY', 'STOPPING'],
  );
});
