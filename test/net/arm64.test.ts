// Untimed: another test may run beside this one.
/**
 * The agent for arm64, built on whatever machine this is, in an emulated one with Debian's kernel
 * and nothing but the binary, the libraries that it needs, and busybox (needs root, the npm
 * registry and a Debian mirror). The lab has the other hosts.
 */
import { spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import t from 'tap';
import { version } from '../../cli/version.ts';
import { must } from '../../lab/namespace.ts';
import { addresses } from '../../lab/topology.ts';
import { fetchKernel, fetchPackages } from '../vm/debian.ts';
import { startGuest } from '../vm/guest.ts';
import { runAlone } from '../vm/machine.ts';

const limitMs = 150_000;
const noRegistry = 75;
const needed = ['busybox-static', 'libc6', 'libstdc++6', 'libgcc-s1', 'libatomic1'];

const options = ['--arch', 'arm64', '--deb', '--rpm', '--built'];
const built = spawnSync('scripts/package', options, { encoding: 'utf8' });
if (built.status === noRegistry && process.env.CI === undefined) {
  t.plan(0, 'scripts/package cannot reach the npm registry');
  process.exit();
}
t.equal(built.status, 0, `scripts/package: ${built.stderr}`);

t.test('packages say what they are for', async (t) => {
  const deb = /dist\/\S+\.deb$/m.exec(built.stdout)?.[0] ?? '';
  t.equal(must('dpkg-deb', ['--field', deb, 'Architecture']).trim(), 'arm64');
  const rpm = /dist\/\S+\.rpm$/m.exec(built.stdout)?.[0] ?? '';
  t.equal(must('rpm', ['-qp', '--queryformat', '%{ARCH}', rpm]).trim(), 'aarch64');
  const sums = must('sha256sum', ['-c', 'SHA256SUMS.arm64'], 'dist');
  for (const file of ['microperimeter.arm64', '.cdx.json', 'arm64.deb', 'aarch64.rpm']) {
    t.ok(sums.includes(`${file}: OK`), file);
  }
});

t.test('traffic goes through the hair-pin', async (t) => {
  const kernel = fetchKernel('bookworm', 'arm64');
  const { config, directory, network, nic, wire } = await startGuest(t);
  const own = mkdtempSync(join(tmpdir(), 'microperimeter-arm64-'));
  t.teardown(() => rmSync(own, { recursive: true }));
  mkdirSync(join(own, 'bin'));
  cpSync('dist/microperimeter.arm64', join(own, 'bin/microperimeter'));
  mkdirSync(join(own, dirname(directory)), { recursive: true });
  cpSync(directory, join(own, directory), { recursive: true });
  const { code, output } = await runAlone(
    kernel,
    [fetchPackages('bookworm', 'arm64', needed), own],
    `${network}
uname -m
echo "version: $(microperimeter version)"
microperimeter check ${config} || exit 1
microperimeter run --config ${config} >/log 2>&1 &
for i in $(seq 200); do
  grep -q 'the gate is open' /log && break
  sleep 0.3
done
sleep 1
wget -q -O - http://${addresses.server}/ || { cat /log; exit 2; }
echo "status: $(microperimeter status --json --socket ${directory}/control.sock | tr -d '\\n')"
kill %1
wait %1 || { cat /log; exit 3; }
ip link show microperimeter && exit 4
exit 0
`,
    limitMs,
    { ...nic, model: 'virtio-net-pci' },
  );
  await wire.stop();
  if (!t.equal(code, 0, 'all of it')) {
    t.comment(output.slice(-8000));
    return;
  }
  t.match(output, /^aarch64$/m);
  t.match(output, `version: ${version}`);
  t.match(output, 'server answers GET /');
  const status = JSON.parse(/^status: (.*)$/m.exec(output)![1]!);
  t.match(status, { state: 'redirecting', acceleration: { by: 'kernel', reason: '' } });
  const { redirected, reinjected } = status.counters;
  t.ok(redirected.packets > 5 && reinjected.packets === redirected.packets, 'sent is delivered');
  t.ok(status.kernel.carriedOut.packets > 0, 'some of it by the kernel');
  t.ok((await wire.count('geneve')) > 10, 'through the tunnel');
  t.equal(await wire.count('_ws.malformed || ip.checksum.status == 0'), 0);
});
