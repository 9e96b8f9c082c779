// Untimed: another test may run beside this one.
/**
 * The standalone binary, built by scripts/package and used as a user would (needs root): alone in
 * a directory, with the capabilities that its service has and no more.
 */
import { spawnSync } from 'node:child_process';
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmdirSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import t from 'tap';
import { pinDirectory } from '../../cli/host-policy.ts';
import { version } from '../../cli/version.ts';
import { pause } from '../../lab/program.ts';
import { addresses } from '../../lab/topology.ts';
import { ping, requestWeb, startWebServer } from '../../lab/traffic.ts';
import { shell, startHairpin } from '../support/hairpin.ts';

const noRegistry = 75;

const built = spawnSync('scripts/package', ['--deb', '--rpm', '--built'], {
  encoding: 'utf8',
  env: { ...process.env, NODE_OPTIONS: '' },
});
if (built.status === noRegistry && process.env.CI === undefined) {
  t.plan(0, 'scripts/package cannot reach the npm registry');
  process.exit();
}
const deb = /dist\/\S+\.deb$/m.exec(built.stdout)?.[0] ?? '';
const rpm = /dist\/\S+\.rpm$/m.exec(built.stdout)?.[0] ?? '';
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
  for (const file of ['microperimeter', 'microperimeter.cdx.json', '.deb', '.rpm'])
    t.ok(sums.stdout.includes(`${file}: OK`), file);
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
      'usr/share/doc/microperimeter/microperimeter.cdx.json',
      'usr/share/man/man1/microperimeter.1.gz',
      'usr/share/bash-completion/completions/microperimeter',
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

t.test('the image needs nothing but glibc and libstdc++', async (t) => {
  const root = join(directory, 'image');
  const recipe = readFileSync('packaging/container/Containerfile', 'utf8');
  for (const [, words] of recipe.matchAll(/^COPY (.*)$/gm)) {
    const places = words!.split(' ');
    const target = join(root, places.pop()!);
    mkdirSync(places.length > 1 ? target : dirname(target), { recursive: true });
    for (const place of places) {
      copyFileSync(join('dist', place), places.length > 1 ? join(target, basename(place)) : target);
    }
  }
  const libraries = spawnSync('ldd', ['dist/microperimeter'], { encoding: 'utf8' }).stdout;
  for (const [, path] of libraries.matchAll(/(?:=> |^\s*)(\/\S+)/gm)) {
    mkdirSync(dirname(join(root, path!)), { recursive: true });
    copyFileSync(path!, join(root, path!));
  }
  mkdirSync(join(root, 'tmp'));
  mkdirSync(join(root, 'etc/microperimeter'), { recursive: true });
  copyFileSync('packaging/config.yaml', join(root, 'etc/microperimeter/config.yaml'));
  const entry = /^ENTRYPOINT \["(.*)"\]$/m.exec(recipe)![1]!;
  mkdirSync(join(root, 'proc'));
  const inside = 'mount -t proc proc "$0/proc" && exec chroot "$0" "$@"';
  const words = [entry, 'check', '/etc/microperimeter/config.yaml'];
  const check = spawnSync('unshare', ['--mount', 'sh', '-c', inside, root, ...words], {
    encoding: 'utf8',
  });
  t.equal(check.status, 0, check.stderr);
});

t.test('the bill of materials names what the licenses are of', async (t) => {
  const bill = JSON.parse(readFileSync('dist/microperimeter.cdx.json', 'utf8'));
  t.match(bill, {
    bomFormat: 'CycloneDX',
    metadata: { component: { name: 'microperimeter', version } },
  });
  const components = bill.components as { name: string; version: string; purl: string }[];
  const licenses = readFileSync('dist/bundle/third-party-licenses.txt', 'utf8');
  for (const { name, purl, version: of } of components) {
    t.ok(licenses.includes(`${name} ${of} (`), name);
    t.match(purl, /^pkg:npm\//);
  }
  for (const name of ['koffi', 'zod', 'yaml', 'ink', 'react', 'pino']) {
    t.ok(
      components.some((component) => component.name === name),
      name,
    );
  }
});

t.test('the RPM has the same files, and scripts that are shell', async (t) => {
  const ask = (...words: string[]) =>
    spawnSync('rpm', ['-qp', ...words, rpm], { encoding: 'utf8' });
  const inRpm = ask('-l').stdout.trim().split('\n');
  const inDeb = spawnSync('dpkg-deb', ['-c', deb], { encoding: 'utf8' })
    .stdout.split('\n')
    .filter((line) => line.startsWith('-'))
    .map((line) => line.split(/\s+/)[5]!.slice(1));
  t.same(inRpm.filter((path) => path !== '/usr/share/doc/microperimeter').sort(), inDeb.sort());
  t.match(ask('--configfiles').stdout, '/etc/microperimeter/config.yaml');
  for (const part of ['POSTIN', 'PREUN', 'POSTUN']) {
    const script = ask('--queryformat', `%{${part}}`).stdout;
    t.match(script, '/run/systemd/system');
    t.equal(spawnSync('sh', ['-n'], { input: script }).status, 0, part);
  }
  const root = join(directory, 'rpm-root');
  const install = spawnSync('rpm', ['--root', root, '--nodeps', '--noscripts', '-i', rpm], {
    encoding: 'utf8',
  });
  t.equal(install.status, 0, install.stderr);
  const installed = spawnSync(join(root, 'usr/bin/microperimeter'), ['version']);
  t.equal(installed.stdout.toString().trim(), version, 'the binary in it is whole');
});

/** dpkg on a root of its own: its scripts run here, where there is no systemd for them. */
function dpkg(root: string, ...words: string[]) {
  const options = [
    `--root=${root}`,
    '--force-script-chrootless',
    '--force-depends',
    '--force-confold',
  ];
  return spawnSync('dpkg', [...options, ...words], { encoding: 'utf8' });
}

t.test('an upgrade under load: no connection is lost', async (t) => {
  const root = join(directory, 'host');
  for (const path of ['info', 'updates'])
    mkdirSync(join(root, 'var/lib/dpkg', path), { recursive: true });
  writeFileSync(join(root, 'var/lib/dpkg/status'), '');
  const first = dpkg(root, '-i', deb);
  t.equal(first.status, 0, first.stderr);
  const program = join(root, 'usr/bin/microperimeter');
  const hairpin = await startHairpin(t, { command: [program], top: { default: 'redirect' } });
  const { topology } = hairpin;
  const agent = await hairpin.startAgent();
  const sink = shell(topology.server, 'socat -u TCP-LISTEN:9000,reuseaddr -');
  await pause(300);
  const lines = 'for i in $(seq 700); do echo $i; sleep 0.02; done';
  const source = shell(topology.workload, `${lines} | socat -u - TCP:${addresses.server}:9000`);
  await pause(1000);

  const unpacked = join(directory, 'next');
  spawnSync('dpkg-deb', ['-R', deb, unpacked]);
  const control = join(unpacked, 'DEBIAN/control');
  writeFileSync(
    control,
    readFileSync(control, 'utf8').replace(`Version: ${version}`, 'Version: 99'),
  );
  const next = join(directory, 'next.deb');
  const pack = ['--root-owner-group', '-Znone', '--build', unpacked, next];
  t.equal(spawnSync('dpkg-deb', pack).status, 0);
  writeFileSync(join(root, 'etc/microperimeter/config.yaml'), '# mine\n');
  const upgrade = dpkg(root, '-i', next);
  t.equal(upgrade.status, 0, upgrade.stderr);
  t.match(dpkg(root, '-s', 'microperimeter').stdout, /Version: 99/);
  t.equal((await agent.status())?.state, 'redirecting', 'the running agent goes on');
  t.equal(readFileSync(join(root, 'etc/microperimeter/config.yaml'), 'utf8'), '# mine\n');

  // What `systemctl restart` does.
  t.equal(await agent.program.stop(), 0);
  const after = await hairpin.startAgent();
  await source;
  t.equal((await sink).split('\n').length, 700, 'the connection has lived through both');
  t.match(await ping(topology.workload, addresses.server, 2), 2);
  t.equal(await after.program.stop(), 0);

  t.equal(dpkg(root, '-r', 'microperimeter').status, 0);
  t.notOk(existsSync(program));
  t.ok(
    existsSync(join(root, 'etc/microperimeter/config.yaml')),
    'removed, its configuration stays',
  );
  t.equal(dpkg(root, '-P', 'microperimeter').status, 0);
  t.notOk(existsSync(join(root, 'etc/microperimeter/config.yaml')), 'purged, it does not');
});
