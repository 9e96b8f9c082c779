import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { request } from '../../control/client.ts';
import { ControlError } from '../../control/errors.ts';
import { startControlServer } from '../../control/server.ts';
import { noTrials } from './provider.ts';

const directory = mkdtempSync(join(tmpdir(), 'mp-control-'));
t.teardown(() => rmSync(directory, { recursive: true, force: true }));
let count = 0;
const newPath = () => join(directory, `${count++}.sock`);

function provider() {
  const asked = { stops: 0 };
  return {
    asked,
    ...noTrials,
    capture: () => undefined,
    flows: () => ({ matching: 0, flows: [] }),
    reload: async () => ({ ok: true, changed: [], refused: [], warnings: [] }),
    status: () => ({ state: 'running', flows: 3 }),
    stop: () => {
      asked.stops++;
    },
  };
}

async function codeOf(promise: Promise<unknown>): Promise<string> {
  try {
    await promise;
    return 'none';
  } catch (error) {
    return error instanceof ControlError ? error.code : String(error);
  }
}

/** A socket file whose owner was killed. */
function leaveStaleSocket(path: string): void {
  const code = `require('net').createServer().listen(${JSON.stringify(path)}, () => process.kill(process.pid, 'SIGKILL'))`;
  spawnSync(process.execPath, ['-e', code]);
}

t.test('status and stop', async (t) => {
  const path = newPath();
  const { asked, ...given } = provider();
  const server = await startControlServer(path, given);
  t.equal(statSync(path).mode & 0o777, 0o600, 'for its owner alone');
  t.same(await request(path, 'GET', '/status'), {
    status: 200,
    body: { state: 'running', flows: 3 },
  });
  t.match(await request(path, 'POST', '/stop'), { status: 202 });
  t.equal(asked.stops, 1);
  t.match(await request(path, 'GET', '/stop'), { status: 405 });
  t.match(await request(path, 'POST', '/status'), { status: 405 });
  t.match(await request(path, 'GET', '/'), { status: 404 });
  t.equal(asked.stops, 1);
  await server.close();
  await server.close();
  t.notOk(existsSync(path), 'removed on close');
});

t.test('closing does not wait for whoever holds a connection', async (t) => {
  const path = newPath();
  const server = await startControlServer(path, provider());
  const holder = connect(path);
  await new Promise((resolve) => holder.once('connect', resolve));
  const closed = new Promise((resolve) => holder.once('close', resolve));
  await server.close();
  await closed;
  t.pass('closed');
});

t.test('what is at the path already', async (t) => {
  const stale = newPath();
  leaveStaleSocket(stale);
  t.ok(existsSync(stale));
  t.equal(await codeOf(request(stale, 'GET', '/status')), 'ERR_NOT_RUNNING');
  const server = await startControlServer(stale, provider());
  t.match(await request(stale, 'GET', '/status'), { status: 200 }, 'a dead socket is replaced');
  t.equal(await codeOf(startControlServer(stale, provider())), 'ERR_ALREADY_RUNNING');
  t.match(await request(stale, 'GET', '/status'), { status: 200 }, 'a live one is not disturbed');
  await server.close();

  const file = newPath();
  writeFileSync(file, 'precious');
  t.equal(await codeOf(startControlServer(file, provider())), 'ERR_CONTROL_SOCKET');
  t.ok(statSync(file).isFile(), 'anything else is left alone');
  const nowhere = join(directory, 'missing', 'control.sock');
  t.equal(await codeOf(startControlServer(nowhere, provider())), 'ERR_CONTROL_SOCKET');
  t.equal(await codeOf(request(nowhere, 'GET', '/status')), 'ERR_NOT_RUNNING');
});
