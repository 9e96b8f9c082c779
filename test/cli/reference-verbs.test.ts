/** The reference's verbs edit the file, keep what its author wrote, and write nothing wrong. */
import { spawnSync } from 'node:child_process';
import { chmodSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';

const directory = mkdtempSync(join(tmpdir(), 'mp-verbs-'));
t.teardown(() => rmSync(directory, { recursive: true, force: true }));
const file = join(directory, 'config.yaml');

function microperimeter(words: string, ...more: string[]) {
  const args = ['dist/cli/main.js', ...words.split(' '), '--config', file, ...more];
  return spawnSync(process.execPath, args, { encoding: 'utf8' });
}

const text = (path = file) => readFileSync(path, 'utf8');
const written = /^written to .*config.yaml; no agent is running; .* firewall \(10\.9\.0\.4\)\n$/m;

t.test('configure makes a file, and changes one', async (t) => {
  t.match(microperimeter('configure --fwip 10.9.0.4'), {
    status: 2,
    stderr: /needs either ca or pin/,
  });
  t.throws(() => statSync(file), 'what is wrong is not written');
  t.match(microperimeter('rule list'), { status: 2, stderr: /there is no such file/ });
  t.match(microperimeter('configure --fwip 10.9.0.4 --ca /etc/ca.pem'), { status: 0 });
  // No agent of this machine is to be asked.
  writeFileSync(file, `# mine\n${text()}control: { socket: ${directory}/none.sock } # mine, too\n`);
  chmodSync(file, 0o640);
  const changed = microperimeter('configure --fwsubnet 10.9.0.0/28 --exception tcp:192.0.2.1:22');
  t.match(changed, { status: 0, stdout: written, stderr: '' });
  t.match(text(), /^# mine\n[\s\S]*returnFrom: 10\.9\.0\.0\/28\n[\s\S]*# mine, too\n/);
  t.match(text(), /management:\n {4}- tcp:192\.0\.2\.1:22\n/);
  t.equal(statSync(file).mode & 0o777, 0o640, 'its mode stays');
});

t.test('enable and disable', async (t) => {
  t.match(microperimeter('enable eth0 eth1'), { status: 0 });
  t.match(text(), /interfaces:\n {4}- eth0\n {4}- eth1\n/);
  t.match(microperimeter('disable eth7'), { status: 2, stderr: /eth7 is not among/ });
  t.match(microperimeter('disable eth1'), { status: 0 });
  t.match(microperimeter('disable eth0'), { status: 2, stderr: /say microperimeter stop/ });
  t.match(text(), /interfaces:\n {4}- eth0\n/);
});

t.test('rules: appended, inserted, listed, deleted', async (t) => {
  const add = 'append --proto tcp --remoteip 10.2.0.0/16 --remoteport 443,8000-8099 --name web';
  t.match(microperimeter(`rule ${add} --action redirect`), { status: 0, stdout: written });
  t.match(microperimeter('rule insert --index 1 --proto 17 --remoteport 53 --action pass'), {
    status: 0,
  });
  t.match(microperimeter('rule append --localport 70000 --action pass'), {
    status: 2,
    stderr: /rules\[2\]\.localPort: .*out of range/,
  });
  t.match(text(), /# mine\n[\s\S]*remotePort: 53[\s\S]*remotePort: \[ 443, 8000-8099 \]/);
  const { stdout } = microperimeter('rule list');
  t.match(stdout, /\n1 +both +17 +any +53 +any +any +pass\n2 +web +both +tcp +10\.2\.0\.0\/16 /);
  t.match(stdout, /\n +default +both +any +any +any +any +any +redirect\n$/);
  t.match(microperimeter('rule delete --index 3'), { status: 2, stderr: /numbered from 1 to 2/ });
  t.match(microperimeter('rule delete --index 2'), { status: 0, stdout: /^rule web is gone\n/ });
  t.same(JSON.parse(microperimeter('rule list --json').stdout).rules.length, 1);
});

t.test('dump, export and import', async (t) => {
  const other = join(directory, 'other.yaml');
  t.equal(microperimeter('dump-config').stdout, text());
  t.match(microperimeter('export-config', '--configfile', other), { status: 0 });
  t.equal(text(other), text());
  writeFileSync(other, `${text()}default: pass\n`);
  t.match(microperimeter('import-config', '--configfile', other), { status: 0 });
  t.match(text(), /default: pass\n$/);
  writeFileSync(other, 'version: 2\n');
  t.match(microperimeter('import-config', '--configfile', other), { status: 2 });
  t.match(text(), /default: pass\n$/, 'a wrong file takes no place');
});
