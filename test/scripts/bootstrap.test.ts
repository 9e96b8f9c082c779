import { spawnSync } from 'node:child_process';
import { chmodSync, copyFileSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';

// A checkout of nothing but the script, under /tmp, so that no test can touch the real one.
const root = mkdtempSync(join(tmpdir(), 'bootstrap-'));
t.teardown(() => rmSync(root, { recursive: true }));
mkdirSync(join(root, 'scripts'));
copyFileSync('scripts/bootstrap.sh', join(root, 'scripts/bootstrap.sh'));
writeFileSync(join(root, 'package-lock.json'), '{}');

/** Runs a line of bash after the script, with commands faked by name and text. */
function bash(line: string, fakes: Record<string, string> = {}) {
  const bin = mkdtempSync(join(root, 'bin-'));
  for (const [name, text] of Object.entries(fakes)) {
    writeFileSync(join(bin, name), `#!/bin/sh\n${text}\n`);
    chmodSync(join(bin, name), 0o755);
  }
  const { status, stdout, stderr } = spawnSync(
    'bash',
    [
      '-euo',
      'pipefail',
      '-c',
      `. ${root}/scripts/bootstrap.sh; bootstrap_guard=$bin/guard; ${line}`,
    ],
    // A socket as its standard input would make bash read its start-up files, as for rshd.
    {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, PATH: `${bin}:${process.env.PATH}`, bin },
    },
  );
  return { status, stdout, stderr };
}

/** The answer of `apt-cache madison` for a package of the release itself. */
const known = 'echo "$2 | 1.0 | http://mirror/debian stable/main amd64 Packages"';

t.test('a machine that cannot run it hears why', async (t) => {
  const rows: [name: string, line: string, fakes: Record<string, string>, sentence: RegExp][] = [
    ['another system', 'bootstrap', { uname: 'echo Darwin' }, /runs on Linux only/],
    ['no root', 'bootstrap', { id: 'echo 1000' }, /Root is needed .* run with sudo/],
    [
      'an old node',
      'bootstrap',
      { id: 'echo 0', node: 'echo v18.20.4' },
      /needed; .* is 18\.20\.4/,
    ],
    ['a node nearly new enough', 'bootstrap_node', { node: 'echo v20.10.0' }, /is 20\.10\.0/],
    ['where to get one', 'bootstrap_node', { node: 'echo v18.20.4' }, /apt install.*\n.*too old/],
    ['no node', 'PATH=$bin; bootstrap_node', {}, /there is no node in PATH/],
    ['no npm', 'PATH=$bin; bootstrap_node', { node: 'echo v22.1.0' }, /npm is needed/],
    ['no apt-get', 'PATH=$bin; bootstrap_packages tshark', {}, /Only apt-get .*: tshark/],
    [
      'an install that fails shows its output',
      'PATH=$bin:/bin; bootstrap_packages no-such-tool',
      { 'apt-get': 'echo "E: no room"; exit 100', 'apt-cache': known },
      /E: no room\napt-get could not install: no-such-tool/,
    ],
  ];
  for (const [name, line, fakes, sentence] of rows) {
    const { status, stderr } = bash(line, fakes);
    t.equal(status, 1, name);
    t.match(stderr, sentence, name);
  }
});

t.test('a new node is good enough', async (t) => {
  for (const version of ['v20.11.0', 'v20.20.2', 'v24.0.0']) {
    t.match(bash('bootstrap_node', { node: `echo ${version}`, npm: '' }), {
      status: 0,
      stderr: '',
    });
  }
});

t.test('only what is missing is installed, after saying so', async (t) => {
  const fakes = { 'apt-get': 'echo "$@" >>$bin/calls', 'apt-cache': known, tshark: '' };
  const there = bash('bootstrap_packages tshark; cat $bin/calls', fakes);
  t.match(there, { status: 1, stdout: '' }, 'nothing is called when nothing is missing');
  const missing = bash('bootstrap_packages tshark no-such-tool; cat $bin/calls', fakes);
  t.match(missing.stdout, /^missing: no-such-tool \(.*\)\ninstalling with apt-get: no-such-tool\n/);
  t.match(missing.stdout, /update\n.*install --no-install-recommends no-such-tool\n$/);
  const guarded = {
    ...fakes,
    'apt-get': '[ "$1" = -qq ] || { "$bin/guard"; echo "guard $?" >>$bin/calls; }',
  };
  const services = bash('bootstrap_packages no-such-tool; cat $bin/calls $bin/guard', guarded);
  t.match(services.stdout, /guard 101\n$/, 'no service may start meanwhile');
  t.match(services.stderr, /guard: No such file/, 'and afterwards others may');
});

t.test('what the release lacks comes from its backports, or with a sentence', async (t) => {
  const inBackports = 'echo "$2 | 2 | http://mirror/debian old-backports/main amd64 Packages"';
  const run = (release: string, aptCache: string) =>
    bash(
      `bootstrap_release() { echo ${release}; }; bootstrap_sources=$bin
       bootstrap_packages rare; cat $bin/*.list $bin/calls`,
      { 'apt-get': 'echo "$@" >>$bin/calls', 'apt-cache': aptCache, systemctl: '' },
    );
  const added = run('debian old', inBackports);
  t.match(
    added.stdout,
    /^missing: rare .*\nadding a source of packages: old-backports, for rare\n/,
  );
  t.match(added.stdout, /\ninstalling with apt-get from old-backports: rare\n/);
  t.match(added.stdout, /\ndeb http\S+ old-backports main\n/);
  t.match(added.stdout, /install --no-install-recommends -t old-backports rare\n/);
  const nowhere = run('ubuntu new', '');
  t.match(nowhere, {
    status: 1,
    stderr: /apt knows no package rare: .*add-apt-repository universe/s,
  });
  t.notMatch(nowhere.stdout, /adding a source/, 'another system gets no source of Debian');
});

t.test('modules are installed once for each lock file and node', async (t) => {
  const npm = 'mkdir -p $bin/../node_modules; echo "$@" >>$bin/../npm-calls';
  const node = (abi: number) => ({ npm, node: `echo ${abi}` });
  t.match(bash('bootstrap_modules', node(115)).stdout, /^installing node modules/);
  t.equal(bash('bootstrap_modules', node(115)).stdout, '', 'the second time has nothing to do');
  t.match(bash('bootstrap_modules', node(127)).stdout, /^installing/, 'another node');
  writeFileSync(join(root, 'package-lock.json'), '{"a": 1}');
  t.match(bash('bootstrap_modules', node(127)).stdout, /^installing/, 'another lock file');
  const failing = bash('rm $bin/../node_modules/.stamp; bootstrap_modules', {
    npm: 'echo ENOTFOUND; exit 1',
    node: 'echo 127',
  });
  t.match(failing, { status: 1, stderr: /ENOTFOUND\nnpm ci failed: it needs the npm registry/ });
});
