/** Reading and compiling beside the main thread. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import t from 'tap';
import { compileFile } from '../../cli/compile.ts';
import { compileInThread } from '../../cli/compile-thread.ts';
import { Verdict } from '../../engine/flows.ts';
import { formatAddress } from '../../parsers/text.ts';
import { file } from './config-file.ts';

const directory = mkdtempSync(join(tmpdir(), 'mp-compile-'));
t.teardown(() => rmSync(directory, { recursive: true, force: true }));
t.setTimeout(100_000);
const path = join(directory, 'config.yaml');

const manyRules = (count: number, action: string) =>
  file({
    x: `rules:\n${Array.from(
      { length: count },
      (_, i) =>
        `  - { remote: 10.0.${i >> 8}.${i & 255}, remotePort: ${i + 1}, action: ${action} }`,
    ).join('\n')}`,
  });

t.test('what it answers is what the running agent needs', async (t) => {
  const rule = '{ name: web, remotePort: 80, action: pass }';
  writeFileSync(
    path,
    file({ x: `sets: { a: [1] }\nrules:\n  - ${rule}\n  - ${rule.replace('web', 'again')}` }),
  );
  const first = await compileInThread(path, undefined);
  t.match(first, {
    changed: [],
    refused: [],
    warnings: [`${path}:6:9: sets.a: is used by no rule`],
    next: { settings: { default: 'redirect' }, rules: { names: ['web', 'again'] } },
  });
  const { policy, rules, settings, source } = first.next!;
  t.notOk('rules' in settings, 'rules stay where they were read');
  t.same([...rules.lines], [8, 9]);
  t.match(rules.never.get(1), /web/);
  t.same([...policy.verdicts], [Verdict.Pass, Verdict.Pass]);
  t.ok(policy.tables.words.buffer instanceof SharedArrayBuffer);
  const { warnings } = first;
  t.same(await compileInThread(path, source), { changed: [], refused: [], warnings });

  writeFileSync(path, file({ x: `rules:\n  - ${rule}\n\n\ndefault: drop` }));
  t.match(await compileInThread(path, source), {
    changed: ['rule again: removed (was number 2)', 'default: redirect -> drop'],
    next: { policy: { default: Verdict.Drop } },
  });
  writeFileSync(path, file({ x: `rules:\n  - ${rule}\n\nlimits: { flows: 64 }` }));
  const refused = await compileInThread(path, source);
  t.match(refused.refused, ['limits.flows: 1048576 -> 64: needs a restart']);
  t.equal(refused.next, undefined);
});

t.test('errors arrive as what they are', async (t) => {
  writeFileSync(path, file({ x: 'default: nothing' }));
  await t.rejects(compileInThread(path, undefined), {
    code: 'ERR_CONFIG',
    file: path,
    problems: [{ line: 6, column: 10, key: 'default' }],
  });
  // Ranges that all cross each other, more than are scanned.
  const range = (i: number) => {
    const [a, b] = [i, i + 1].map((n) => Math.imul(n * n + 7, 0x9e3779b1) >>> 0);
    return [Math.min(a!, b!), Math.max(a!, b!)].map(formatAddress).join('-');
  };
  const rules = Array.from(
    { length: 15_000 },
    (_, i) => `  - { local: ${range(i)}, remote: ${range(i + 99)}, action: pass }`,
  );
  writeFileSync(path, file({ x: `rules:\n${rules.join('\n')}` }));
  await t.rejects(compileInThread(path, undefined), {
    code: 'RULES_TOO_SLOW',
    message: /take too long to compile; use fewer rules/,
  });
});

t.test('the main thread goes on meanwhile', async (t) => {
  writeFileSync(path, manyRules(5_000, 'pass'));
  const before = performance.now();
  const source = compileFile(path, undefined).next!.source;
  const inOneGo = performance.now() - before;
  writeFileSync(path, manyRules(5_000, 'drop'));
  const delay = monitorEventLoopDelay({ resolution: 5 });
  delay.enable();
  const { changed } = await compileInThread(path, source);
  delay.disable();
  const stood = delay.max / 1e6;
  t.equal(changed.length, 10_000, 'without names, other rules');
  t.ok(stood < inOneGo / 4, `stood still for ${stood} ms; it takes ${inOneGo} ms`);
});
