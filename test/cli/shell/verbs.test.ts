/** Completion and the manual page, read by the programs that they are for, where there are any. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { completionFor, shells } from '../../../cli/shell/completion.ts';
import { examples } from '../../../cli/shell/examples.ts';
import type { Verb } from '../../../cli/shell/tree.ts';

const directory = mkdtempSync(join(tmpdir(), 'mp-shell-'));
t.teardown(() => rmSync(directory, { recursive: true, force: true }));

function run(command: string, args: readonly string[]) {
  return spawnSync(command, args, { encoding: 'utf8' });
}

function isThere(command: string): boolean {
  return run('sh', ['-c', `command -v ${command}`]).status === 0;
}

const microperimeter = (...args: string[]) => run(process.execPath, ['dist/cli/main.js', ...args]);

t.test('bash completes verbs, verbs below them, options, and files', async (t) => {
  const script = join(directory, 'completion.bash');
  writeFileSync(script, microperimeter('completion', 'bash').stdout);
  const complete = (...words: string[]) => {
    const line = ['microperimeter', ...words].map((word) => `'${word}'`).join(' ');
    const code =
      `source ${script}; COMP_WORDS=(${line}); COMP_CWORD=${words.length}; ` +
      `_microperimeter; echo "\${COMPREPLY[*]}"`;
    return run('bash', ['-c', code]).stdout.trim();
  };
  t.equal(complete('relo'), 'reload');
  t.equal(complete('rule', 'in'), 'insert');
  t.equal(complete('rule', 'insert', '--remotep'), '--remoteport');
  t.equal(complete('status', '--j'), '--json');
  t.equal(complete('check', 'package.js'), 'package.json');
});

t.test('every shell takes its script, where it is installed', async (t) => {
  for (const shell of shells) {
    const script = join(directory, `completion.${shell}`);
    const { status, stdout } = microperimeter('completion', shell);
    t.equal(status, 0);
    t.match(stdout, /health_check/);
    writeFileSync(script, stdout);
    if (isThere(shell)) t.match(run(shell, ['-n', script]), { status: 0, stderr: '' }, shell);
  }
  t.match(microperimeter('completion', 'tcsh'), { status: 2, stderr: /bash, zsh, fish, not tcsh/ });
});

t.test('fish gets quotes in descriptions right', async (t) => {
  const verb = { path: '', description: '', usage: '', options: [], arguments: [], verbs: ['a'] };
  const inner: Verb = { ...verb, path: 'a', description: "the agent's", verbs: [] };
  t.match(completionFor('fish', [verb, inner]), "-a a -d 'the agent\\'s'");
});

t.test('the manual page has every verb, and a lint finds nothing', async (t) => {
  const { stdout } = microperimeter('man');
  for (const verb of ['status', 'apply', 'rule append', 'health_check', 'completion']) {
    t.match(stdout, `.SS ${verb}`);
  }
  t.match(stdout, /\.SH EXIT STATUS\n[\s\S]*\.B 8\n/);
  const page = join(directory, 'microperimeter.1');
  writeFileSync(page, stdout);
  if (isThere('mandoc')) {
    t.equal(run('mandoc', ['-T', 'lint', '-W', 'warning', page]).stdout, '', 'mandoc');
  }
  if (isThere('groff')) {
    t.equal(run('groff', ['-man', '-ww', '-z', page]).stderr, '', 'groff');
  }
});

t.test('--help teaches by examples of verbs that exist, and a slip is told', async (t) => {
  t.match(microperimeter('rule', 'append', '--help').stdout, /Examples:\n {2}microperimeter rule /);
  for (const path of Object.keys(examples)) {
    t.equal(microperimeter(...path.split(' '), '--help').status, 0, path);
  }
  const { stdout } = microperimeter('--help');
  t.match(stdout, /^See what it does, and why:\n {2}status [\s\S]*^Try and learn:\n {2}lab /m);
  t.notMatch(stdout, /^Commands:/m, 'none without a group');
  t.match(microperimeter('statsu'), { status: 2, stderr: /Did you mean status\?/ });
});
