import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { compileInThread } from '../../cli/compile-thread.ts';
import { differenceOf } from '../../cli/config/difference.ts';
import { parseConfig } from '../../cli/config/parse.ts';
import { createLogger } from '../../cli/log.ts';
import { Reloader } from '../../cli/reload.ts';
import { startControlServer } from '../../control/server.ts';
import type { Settings } from '../../engine/config.ts';
import { noTrials } from '../control/provider.ts';
import { file, firewall } from './config-file.ts';

const directory = mkdtempSync(join(tmpdir(), 'mp-reload-'));
t.teardown(() => rmSync(directory, { recursive: true, force: true }));

const rules = (...lines: string[]) =>
  file({ x: `rules:\n${lines.map((line) => `  - ${line}`).join('\n')}` });

t.test('what a change of the file changes, in words', async (t) => {
  const [a, b, c] = ['a', 'b', 'c'].map((name) => `{ name: ${name}, action: pass }`);
  const unnamed = '{ remotePort: 1, action: pass }';
  const rows: [before: string, after: string, changed: string[], refused: string[]][] = [
    [rules(a!), `\n${rules(a!)}`, [], []],
    [rules(a!, b!), rules(a!, c!, b!), ['rule c: added as number 2 (line 8)'], []],
    [rules(a!, b!, c!), rules(a!, c!), ['rule b: removed (was number 2)'], []],
    [rules(a!, b!, c!), rules(c!, a!, b!), ['rule c: moved from 3 to 1'], []],
    [rules(a!, b!, c!), rules(b!, c!, a!), ['rule a: moved from 1 to 3'], []],
    [
      rules('{ name: a, remotePort: 80, action: pass }'),
      rules('{ name: a, direction: egress, remotePort: 81, action: drop, log: true }'),
      ['rule a (line 7): changed: direction, remotePort, action pass -> drop, log'],
      [],
    ],
    // Without names, a rule is what it says.
    [rules(unnamed, a!), rules(a!, unnamed), ['rule a: moved from 2 to 1'], []],
    [rules(unnamed, unnamed), rules(unnamed), ['rule #2: removed (was number 2)'], []],
    [
      file({ x: 'policy: { mode: observe, rollout: 10% }' }),
      file({ x: 'policy: { onTelemetryLoss: drop }\ndefault: pass\nworkload: { ipv6: drop }' }),
      [
        'workload.ipv6: pass -> drop',
        'policy.mode: observe -> enforce',
        'policy.rollout: 10% -> 100%',
        'policy.onTelemetryLoss: pass -> drop',
        'default: redirect -> pass',
      ],
      [],
    ],
    [
      file({ x: 'log: { flows: /var/log/f }' }),
      file({ x: 'log: { flows: /var/log/f, which: rules }' }),
      ['log.which: all -> rules'],
      [],
    ],
    [
      file(),
      file({ x: 'workload: { management: [10.0.0.1] }' }),
      ['workload.management: changed'],
      [],
    ],
    [
      file(),
      file({
        firewalls: firewall('name: fw-a, address: 10.9.0.5', 'url: https://10.9.0.4/x, ca: /a'),
        x: [
          'workload: { interfaces: [eth1] }',
          'tunnel: { mtu: 1400, vni: 7 }',
          'telemetry: { interval: 2s }',
          'limits: { flows: 64 }',
          'control: { socket: /tmp/x }',
        ].join('\n'),
      }),
      [],
      [
        'workload.interfaces: changed: needs a restart',
        'firewalls[0].address: changed: needs a restart',
        'firewalls[0].telemetry.url: https://10.9.0.4/v1/metrics -> https://10.9.0.4/x: needs a restart',
        'firewalls[0].telemetry.ca: /etc/ca.pem -> /a: needs a restart',
        'firewalls[0].returnFrom.address: changed: needs a restart',
        'tunnel.vni: 48813 -> 7: needs a restart',
        'tunnel.mtu: auto -> 1400: needs a restart',
        'tunnel.vxlan.egressVni: 48813 -> 7: needs a restart',
        'tunnel.vxlan.ingressVni: 48813 -> 7: needs a restart',
        'telemetry.interval: 5s -> 2s: needs a restart',
        'limits.flows: 1048576 -> 64: needs a restart',
        'control.socket: /run/microperimeter/control.sock -> /tmp/x: needs a restart',
      ],
    ],
  ];
  for (const [before, after, changed, refused] of rows) {
    const difference = differenceOf(parseConfig(before, 'f'), parseConfig(after, 'f'));
    t.same(difference, { changed, refused });
  }
});

/** Of the file as it is now; says nothing. */
async function startReloader(
  path: string,
  apply: ConstructorParameters<typeof Reloader>[4],
): Promise<Reloader> {
  const log = createLogger({ level: 'error', format: 'json', flows: '', which: 'all' });
  const { next } = await compileInThread(path, undefined);
  return new Reloader(path, next!, log.child({}, { level: 'silent' }), compileInThread, apply);
}

t.test('all or nothing, one after the other', async (t) => {
  const path = join(directory, 'config.yaml');
  const applied: Settings[] = [];
  let refuse = '';
  let atWork = 0;
  writeFileSync(path, file());
  const reloader = await startReloader(path, async ({ settings }) => {
    t.equal(++atWork, 1, 'one at a time');
    await new Promise((resolve) => setTimeout(resolve, 5));
    atWork--;
    if (refuse !== '') throw new Error(refuse);
    applied.push(settings);
  });
  const none = { changed: [], refused: [], warnings: [] };
  t.same(await reloader.reload('a test'), { ok: true, ...none });
  t.equal(applied.length, 0, 'what is in force is not put in force again');

  writeFileSync(path, file({ x: 'sets: { a: [1] }\ndefault: pass' }));
  const both = await Promise.all([reloader.reload('a test'), reloader.reload('another')]);
  const warnings = [`${path}:6:9: sets.a: is used by no rule`];
  t.same(both, [
    { ok: true, ...none, changed: ['default: redirect -> pass'], warnings },
    { ok: true, ...none, warnings },
  ]);
  t.match(applied, [{ default: 'pass' }]);

  writeFileSync(path, file({ x: 'default: drop\ntunnel: { port: 1 }' }));
  t.same(await reloader.reload('a test'), {
    ok: false,
    ...none,
    refused: ['tunnel.port: 6081 -> 1: needs a restart'],
  });
  writeFileSync(path, file({ x: 'default: nothing\nrule: []' }));
  t.match(await reloader.reload('a test'), {
    ok: false,
    refused: [/config.yaml:6:10: default: must be redirect/, /:7:1: rule: unknown key/],
  });
  refuse = 'the rules do not fit';
  writeFileSync(path, file({ x: 'default: drop' }));
  t.same(await reloader.reload('a test'), { ok: false, ...none, refused: [refuse] });
  rmSync(path);
  t.match(await reloader.reload('a test'), { refused: [/there is no such file/] });
  t.equal(applied.length, 1, 'nothing else was put in force');

  refuse = '';
  writeFileSync(path, file({ x: 'default: drop' }));
  t.match(await reloader.reload('a test'), { changed: ['default: pass -> drop'] });
});

t.test(
  '--reclassify is said, also when the file has not changed, and undone by a roll-back',
  async (t) => {
    const path = join(directory, 'again.yaml');
    const next = join(directory, 'again-next.yaml');
    const applied: [string, boolean][] = [];
    writeFileSync(path, file());
    writeFileSync(next, file({ x: 'default: drop' }));
    const reloader = await startReloader(path, async ({ settings }, reclassify) => {
      applied.push([settings.default, reclassify]);
    });
    const again = /^connections that are known are decided again/;
    t.match(await reloader.reload('a test', true), { ok: true, changed: [again] });
    t.match(await reloader.try(next, 60_000, true), { changed: [/^default: /, again] });
    t.match(await reloader.rollBack('a test'), { ok: true });
    t.same(applied, [
      ['redirect', true],
      ['drop', true],
      ['redirect', true],
    ]);
    t.match(await reloader.try(path, 60_000, true), { ok: true, changed: [] });
    writeFileSync(path, file({ x: 'default: nothing' }));
    t.match(await reloader.reload('a test', true), { ok: false, changed: [] });
    t.equal(applied.length, 3, 'what is refused decides nothing again');
  },
);

t.test('a trial ends by itself, or is confirmed', async (t) => {
  const path = join(directory, 'mine.yaml');
  const next = join(directory, 'next.yaml');
  const applied: string[] = [];
  writeFileSync(path, file());
  writeFileSync(next, file({ x: 'default: drop' }));
  const reloader = await startReloader(path, async ({ settings }) => {
    applied.push(settings.default);
  });
  t.match(await reloader.confirm(), { ok: false, refused: [/^no configuration is on trial/] });
  t.match(await reloader.try(path, 50), { ok: true, changed: [] });
  t.match(reloader.status(), { pending: undefined }, 'what is in force needs no trial');

  t.match(await reloader.try(next, 100), { ok: true, changed: ['default: redirect -> drop'] });
  t.match(reloader.status(), { differs: false, pending: { secondsLeft: 1 } });
  t.match(await reloader.try(next, 100), { ok: false, refused: [/is on trial/] });
  t.match(await reloader.reload('a test'), { ok: false, refused: [/is on trial/] });
  await new Promise((resolve) => setTimeout(resolve, 150));
  t.same(applied, ['drop', 'redirect'], 'rolled back');
  t.match(await reloader.rollBack('a test'), { ok: false });

  await reloader.try(next, 60_000);
  t.match(await reloader.confirm(), { ok: true, changed: ['default: redirect -> drop'] });
  t.match(reloader.configuration(), { file: path, text: /default: drop/ });
  t.match(reloader.status(), { differs: true, pending: undefined }, 'the file is the old one yet');
  writeFileSync(path, readFileSync(next));
  t.match(reloader.status(), { differs: false });
  t.same(applied, ['drop', 'redirect', 'drop']);
});

t.test('the command, against an agent that answers', async (t) => {
  const socket = join(directory, 'control.sock');
  const none = { changed: [], refused: [], warnings: [] };
  const answers = [
    { ok: true, ...none, changed: ['default: pass -> drop'], warnings: ['f:1:1: words'] },
    { ok: true, ...none },
    { ok: false, ...none, refused: ['tunnel.port: 6081 -> 1: needs a restart'] },
    { ok: true, ...none },
  ];
  const server = await startControlServer(socket, {
    status: () => ({}),
    capture: () => undefined,
    flows: () => ({}),
    ...noTrials,
    reload: async () => answers.shift()!,
    stop: () => {},
  });
  const run = (...more: string[]) =>
    new Promise<{ code: number | null; out: string }>((resolve) => {
      const args = ['dist/cli/main.js', 'reload', '--socket', socket, ...more];
      const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] });
      let out = '';
      child.stdout.on('data', (chunk) => {
        out += chunk;
      });
      child.on('close', (code) => resolve({ code, out }));
    });
  t.same(await run(), {
    code: 0,
    out: 'reloaded:\n  default: pass -> drop\nwarnings:\n  f:1:1: words\n',
  });
  t.same(await run(), { code: 0, out: 'reloaded: the file says what is in force\n' });
  t.same(await run(), {
    code: 2,
    out: 'nothing has changed:\n  tunnel.port: 6081 -> 1: needs a restart\n',
  });
  t.same(JSON.parse((await run('--json')).out), { ok: true, ...none });
  await server.close();
});
