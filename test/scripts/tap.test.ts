import { spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { runTap } from '../../scripts/tap.ts';

const directory = t.testdir();
let files = 0;

/** Runs a program given as text. */
function run(text: string, timeLimitMs = 20_000, flags: string[] = []) {
  const file = join(directory, `${files++}.mjs`);
  writeFileSync(file, text);
  return runTap(file, { timeLimitMs, flags });
}

const withTap = (text: string) => run(`import t from '${import.meta.resolve('tap')}';\n${text}`);

t.test('assertions are counted, not the tests around them', async (t) => {
  const outcome = await withTap(`
    t.test('outer', async (t) => {
      t.ok(true);
      await t.test('inner', async (t) => { t.ok(true); t.equal(1, 2, 'one is two'); });
    });
    t.test('not now', { skip: 'kernel has no TCX' }, async () => {});
  `);
  t.match(outcome, { passed: 2, failed: 1 });
  t.match(outcome.problems[0], /^not ok: .*outer > inner > one is two\n/);
  t.match(outcome.problems[0], /-1|\+2/, 'with the difference');
  t.same(outcome.skipped, ['not now: kernel has no TCX']);
});

t.test('a test that fails as such is one failure', async (t) => {
  const late = await withTap("t.test('late', { timeout: 100 }, async () => new Promise(() => {}))");
  t.match(late, { passed: 0, failed: 1 });
  const short = await withTap("t.test('short', async (t) => { t.plan(2); t.ok(true); })");
  t.match(short, { passed: 1, failed: 1 });
});

t.test('a file that skips all says why', async (t) => {
  const outcome = await run("console.log('TAP version 14\\n1..0 # no root')");
  t.match(outcome, { passed: 0, failed: 0, skipped: ['no root'] });
});

t.test('what is no success is one failure', async (t) => {
  const rows: [name: string, text: string, problem: RegExp][] = [
    ['nothing at all', '', /no tests found/],
    ['no TAP', "console.log('hello')", /no tests found/],
    ['an empty plan without a reason', "console.log('1..0')", /no tests found/],
    ['a broken plan', "console.log('1..2\\nok 1')", /broken TAP: incorrect number/],
    ['a bail out', "console.log('1..1\\nok 1\\nBail out! no more')", /bailed out: no more/],
    ['a status', "console.log('1..1\\nok 1'); process.exitCode = 3", /ended with 3/],
    ['a signal', "console.log('1..1\\nok 1'); process.kill(process.pid, 'SIGKILL')", /SIGKILL/],
    ['an exception', "console.log('1..1\\nok 1'); throw new Error('boom')", /boom/],
  ];
  const outcomes = await Promise.all(rows.map(([, text]) => run(text)));
  rows.forEach(([name, , problem], index) => {
    t.ok(outcomes[index]?.failed, name);
    t.match(outcomes[index]?.problems.join('\n'), problem, name);
  });
});

t.test('flags reach node', async (t) => {
  const text = "console.log((typeof gc === 'function' ? 'ok' : 'not ok') + ' 1\\n1..1')";
  t.match(await run(text, 20_000, ['--expose-gc']), { passed: 1, failed: 0 });
});

t.test('a file that hangs is killed with its children', async (t) => {
  const outcome = await run(
    `import { spawn } from 'node:child_process';
     console.log('ok 1 - ' + spawn('sleep', ['1000']).pid);
     setInterval(() => {}, 1000);`,
    1_500,
  );
  t.match(outcome.problems.join('\n'), /killed after 1.5 s/);
  t.ok(outcome.failed > 0);
});

t.test('a process that stays behind is a failure, and is killed', async (t) => {
  const outcome = await run(
    `import { spawn } from 'node:child_process';
     const child = spawn('sleep', ['1003'], { stdio: 'inherit' });
     child.unref();
     console.log('ok 1\\n1..1');`,
  );
  t.match(outcome, { passed: 1, failed: 1, problems: [/left processes/] });
  const { stdout } = spawnSync('ps', ['-eo', 'args'], { encoding: 'utf8' });
  t.notMatch(stdout, /^sleep 1003$/m);
});

t.test('a process that left the group does not keep the file from ending', async (t) => {
  const outcome = await run(
    `import { spawn } from 'node:child_process';
     const child = spawn('sleep', ['4'], { stdio: 'inherit', detached: true });
     child.unref();
     console.log('ok 1\\n1..1');`,
  );
  t.match(outcome, { passed: 1, failed: 0 });
  t.ok(outcome.seconds < 3.5);
});
