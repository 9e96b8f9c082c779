/** The archive of `diag`: what is in it without an agent, and what must not be. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';

const directory = mkdtempSync(join(tmpdir(), 'mp-diag-'));
t.teardown(() => rmSync(directory, { recursive: true, force: true }));

t.test('an archive of texts, without secrets', async (t) => {
  const config = join(directory, 'config.yaml');
  const secrets = [
    'telemetry: { url: https://10.9.0.4/x, ca: /hush/ca.pem, clientKey: /hush/key.pem }',
    '  pin: "sha256/hush="',
    '-----BEGIN PRIVATE KEY-----\nhush\n-----END PRIVATE KEY-----',
    'default: redirect',
  ];
  writeFileSync(config, secrets.join('\n'));
  const out = join(directory, 'bundle.tar.gz');
  const none = join(directory, 'none.sock');
  const args = ['dist/cli/main.js', 'diag', '--config', config, '--socket', none, '--out', out];
  const { status, stdout } = spawnSync(process.execPath, args, { encoding: 'utf8' });
  t.same([status, stdout], [0, `${out}\n`]);
  t.equal(spawnSync('tar', ['-xzf', out, '-C', directory]).status, 0);
  const files = readdirSync(join(directory, 'bundle'));
  const text = (file: string) => readFileSync(join(directory, 'bundle', file), 'utf8');
  for (const file of ['version.txt', 'status.json', 'ip-route.txt', 'journal.txt']) {
    t.ok(files.includes(file), file);
  }
  t.match(text('status.json'), /no agent is running/);
  t.match(
    text('config.yaml'),
    /url: https:\/\/10\.9\.0\.4\/x, ca: \(left out\)[\s\S]*default: red/,
  );
  for (const file of files) t.notMatch(text(file), /hush|fastopen_key/, file);
});
