// Untimed: another test may run beside this one.
/**
 * The standalone binary, built by scripts/package and used as a user would (needs root): alone in
 * a directory, with the capabilities that its service has and no more.
 */
import { spawnSync } from 'node:child_process';
import {
  copyFileSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmdirSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { pinDirectory } from '../../cli/host-policy.ts';
import { version } from '../../cli/version.ts';
import { addresses } from '../../lab/topology.ts';
import { ping, requestWeb, startWebServer } from '../../lab/traffic.ts';
import { shell, startHairpin } from '../support/hairpin.ts';

const noRegistry = 75;

const built = spawnSync('scripts/package', ['--deb', '--built'], {
  encoding: 'utf8',
  env: { ...process.env, NODE_OPTIONS: '' },
});
if (built.status === noRegistry && process.env.CI === undefined) {
  t.plan(0, 'scripts/package cannot reach the npm registry');
  process.exit();
}
const deb = /dist\/\S+\.deb$/m.exec(built.stdout)?.[0] ?? '';
t.equal(built.status, 0, `scripts/package: ${built.stderr}`);
const directory = mkdtempSync(join(tmpdir(), 'microperimeter-binary-'));
t.teardown(() => rmSync(directory, { recursive: true }));
const binary = join(directory, 'microperimeter');
copyFileSync('dist/microperimeter', binary);

function run(args: readonly string[], environment: Record<string, string> = {}) {
  return spawnSync(binary, args, { cwd: '/', encoding: 'utf8', env: environment });
}

t.test('it runs where there is no Node, and nothing beside it', async (t) => {
  t.equal(run(['version']).stdout.trim(), version);
  const { status, stderr, stdout } = run(['check', join(process.cwd(), 'packaging/config.yaml')]);
  t.equal(status, 0, stdout + stderr);
  t.equal(run(['check', '/nowhere.yaml']).status, 2, 'its exit codes are those of the agent');
  t.equal(run(['--no-such-option']).status, 2);
});

t.test('sums lie beside it', async (t) => {
  const sums = spawnSync('sha256sum', ['-c', 'SHA256SUMS'], { cwd: 'dist', encoding: 'utf8' });
  t.equal(sums.status, 0, sums.stderr);
  for (const file of ['microperimeter', '.deb']) t.ok(sums.stdout.includes(`${file}: OK`), file);
});

t.test('NODE_OPTIONS brings no code into it', async (t) => {
  const intruder = join(directory, 'intruder.cjs');
  writeFileSync(intruder, "console.log('intruder');");
  const { stdout } = run(['version'], { NODE_OPTIONS: `--require ${intruder}` });
  t.equal(stdout.trim(), version);
});

t.test('the native module leaves no file, wherever it can be loaded from', async (t) => {
  const before = readdirSync(directory);
  const args = ['status', '--socket', join(directory, 'none.sock')];
  t.equal(run(args, { TMPDIR: directory }).status, 6);
  t.same(readdirSync(directory), before);
  t.equal(
    run(args, { TMPDIR: '/proc' }).status,
    6,
    'a directory that takes no files is no obstacle',
  );
});

/** The service's own words, so that what is tested is what it may do. */
function serviceCapabilities(): string {
  const unit = readFileSync('packaging/systemd/microperimeter.service', 'utf8');
  const line = /^CapabilityBoundingSet=(.*)$/m.exec(unit)?.[1] ?? '';
  return line.toLowerCase().replaceAll('cap_', '+').split(' ').join(',');
}

t.test('a hair-pin, with the capabilities of the service alone', async (t) => {
  const bounds = `--bounding-set=-all,${serviceCapabilities()}`;
  const hairpin = await startHairpin(t, { command: ['setpriv', bounds, binary] });
  const { server, workload } = hairpin.topology;
  const web = await startWebServer(server, 'server', addresses.server, [80]);
  t.teardown(() => web.stop());
  const agent = await hairpin.startAgent();
  t.equal(await ping(workload, addresses.server, 3), 3);
  t.equal(await ping(server, addresses.workload, 3), 3);
  t.ok((await requestWeb(workload, `http://${addresses.server}/`)).ok);
  const { counters } = (await agent.status())!;
  t.ok(counters.redirected!.packets > 5, `${counters.redirected!.packets} packets redirected`);
  t.ok(counters.reinjected!.packets > 5, `${counters.reinjected!.packets} packets reinjected`);
  const asked = await shell(
    workload,
    `${binary} status --socket ${agent.socketPath} && ${binary} reload --socket ${agent.socketPath}`,
  );
  t.match(asked, /REDIRECTING/);
  t.equal(await agent.program.stop(), 0, agent.words);
});

t.test('onAgentFailure: drop, with the pins on a bpffs that another mounted', async (t) => {
  // As run-microperimeter-bpf.mount does, but where this program alone sees it.
  const mount = `mkdir -p ${pinDirectory} && mount -t bpf bpf ${pinDirectory} && exec "$@"`;
  const bounds = `--bounding-set=-all,${serviceCapabilities()}`;
  const hairpin = await startHairpin(t, {
    command: ['unshare', '--mount', 'sh', '-c', mount, 'sh', 'setpriv', bounds, binary],
    settings: { policy: { onAgentFailure: 'drop' } },
  });
  t.teardown(() => rmdirSync(pinDirectory));
  const agent = await hairpin.startAgent();
  const pins = readdirSync(`/proc/${agent.program.pid}/root${pinDirectory}`);
  t.ok(
    pins.some((name) => name.endsWith('-eth0')),
    `pinned: ${pins}`,
  );
  t.equal(await agent.program.stop(), 0, agent.words);
});

t.test('the Debian package', async (t) => {
  const root = join(directory, 'root');
  t.equal(spawnSync('dpkg-deb', ['-R', deb, root]).status, 0, deb);
  const files = readdirSync(root, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(root.length + 1));
  t.match(
    new Set(files),
    new Set([
      'usr/bin/microperimeter',
      'usr/lib/systemd/system/microperimeter.service',
      'usr/lib/systemd/system/run-microperimeter-bpf.mount',
      'etc/microperimeter/config.yaml',
      'usr/share/doc/microperimeter/install.md',
      'usr/share/doc/microperimeter/copyright',
    ]),
  );
  const read = (file: string) => readFileSync(join(root, file), 'utf8');
  t.match(read('DEBIAN/control'), `Version: ${version}\n`);
  t.notMatch(read('DEBIAN/control'), /@[A-Z]/);
  t.equal(read('DEBIAN/conffiles'), '/etc/microperimeter/config.yaml\n');
  for (const name of ['postinst', 'prerm', 'postrm']) {
    const { status, stderr } = spawnSync('sh', ['-n', join(root, 'DEBIAN', name)]);
    t.equal(status, 0, `${name}: ${stderr}`);
  }
  const installed = spawnSync(join(root, 'usr/bin/microperimeter'), ['version']);
  t.equal(installed.stdout.toString().trim(), version, 'the binary in it is whole');
  const licenses = read('usr/share/doc/microperimeter/third-party-licenses.txt');
  for (const name of ['koffi', 'node-linux-', 'zod', 'pino']) t.match(licenses, name);
});
