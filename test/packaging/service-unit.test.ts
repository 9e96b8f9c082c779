/** What the unit files say agrees with the program. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import t from 'tap';
import { parseDuration } from '../../cli/config/text.ts';
import { ExitCode } from '../../cli/exit-codes.ts';
import { pinDirectory } from '../../cli/host-policy.ts';
import { defaults } from '../../engine/config.ts';

const files = [
  'microperimeter.service',
  'run-microperimeter-bpf.mount',
  'microperimeter-guard.service',
].map((name) => `packaging/systemd/${name}`);
const [service, mount, guard] = files.map((file) => readFileSync(file, 'utf8'));

/** The values of a key, in order. */
function values(unit: string | undefined, key: string): string[] {
  return [...(unit ?? '').matchAll(new RegExp(`^${key}=(.*)$`, 'gm'))].map(([, value]) => value!);
}

t.test('the service finds its directories', async (t) => {
  const [directory] = values(service, 'RuntimeDirectory');
  t.equal(defaults.control.socket, `/run/${directory}/control.sock`);
  t.same(values(mount, 'Where'), [pinDirectory]);
  const unitName = `${pinDirectory.slice(1).replaceAll('/', '-')}.mount`;
  t.equal(basename(files[1]!), unitName, 'systemd wants a mount named after its place');
  for (const key of ['Wants', 'After']) t.match(values(service, key)[0], unitName, key);
  t.same(values(service, 'RuntimeDirectoryPreserve'), ['yes'], 'pins outlive a crash');
});

t.test('it is not started again for what a restart does not mend', async (t) => {
  const { NotPermitted, Unsupported, Usage } = ExitCode;
  const codes = values(service, 'RestartPreventExitStatus');
  t.same(codes, [[Usage, NotPermitted, Unsupported].join(' ')]);
});

t.test('nobody brings code into it', async (t) => {
  t.match(values(service, 'UnsetEnvironment'), [/\bNODE_OPTIONS\b/]);
  t.same(values(service, 'NoNewPrivileges'), ['yes']);
  t.match(values(guard, 'UnsetEnvironment'), [/\bNODE_OPTIONS\b/]);
});

t.test('the guard is there before the network, and stays', async (t) => {
  t.match(values(guard, 'Before')[0], 'network-pre.target');
  t.match(values(guard, 'Wants')[0], 'network-pre.target', 'nobody else may want it');
  t.match(values(guard, 'After')[0], basename(files[1]!), 'its pins have a place');
  t.same(values(guard, 'DefaultDependencies'), ['no'], 'else it would come after the network');
  t.same(values(guard, 'ExecStop'), [], 'a unit that is stopped opens nothing');
  t.same(values(guard, 'RuntimeDirectoryPreserve'), ['yes']);
  const [start = ''] = values(guard, 'ExecStart');
  const [, ...words] = start.split(' ');
  const config = words[words.indexOf('--config') + 1]!;
  t.match(values(service, 'ExecStart')[0], config, 'by the same configuration');
  const waitMs = parseDuration(words[words.indexOf('--wait') + 1]!)!;
  t.ok(waitMs < 1000 * Number(values(guard, 'TimeoutStartSec')[0]), 'it ends by itself');
});

t.test('systemd understands every line', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'mp-unit-'));
  t.teardown(() => rmSync(directory, { recursive: true }));
  // It looks for the program, which is not installed here.
  const copies = files.map((file) => join(directory, basename(file)));
  for (const [index, unit] of [service, mount, guard].entries()) {
    writeFileSync(copies[index]!, unit!.replace('=/usr/bin/microperimeter', '=/bin/true'));
  }
  const { error, status, stderr } = spawnSync('systemd-analyze', ['verify', ...copies], {
    encoding: 'utf8',
  });
  if (error !== undefined) return t.comment('there is no systemd-analyze here');
  // Of a host's other units it complains too.
  const ours = stderr.split('\n').filter((line) => /microperimeter/.test(line));
  t.same(ours, []);
  t.equal(status, 0, stderr);
});

/** What `systemd-analyze security` finds fault with, and why it stays. */
const accepted: Readonly<Record<string, string>> = {
  'SystemCallFilter=~@privileged': 'bpf, which is what it is for',
  'RootDirectory=/RootImage=': 'one program and its configuration are no root of their own',
  'User=/DynamicUser=': 'root without its privileges; pins and the control socket are root’s',
  'PrivateDevices=': '/dev/net/tun',
  'DeviceAllow=': '/dev/net/tun',
  'CapabilityBoundingSet=~CAP_BPF': 'loads programs',
  'CapabilityBoundingSet=~CAP_NET_ADMIN': 'attaches them, and makes the TUN device',
  'CapabilityBoundingSet=~CAP_NET_(BIND_SERVICE|BROADCAST|RAW)': 'sees ICMP errors of the tunnel',
  'MemoryDenyWriteExecute=': 'V8 compiles',
  'RestrictAddressFamilies=~AF_NETLINK': 'interfaces and routes',
  'RestrictAddressFamilies=~AF_UNIX': 'the control socket',
  'RestrictAddressFamilies=~AF_(INET|INET6)': 'the tunnel and telemetry',
  'ProcSubset=': 'reads /proc/net',
  'PrivateNetwork=': 'it is the host’s network that it redirects',
  'PrivateUsers=': 'capabilities would not count in the host’s network',
  'IPAddressDeny=': 'firewalls and whoever measures are in the configuration, not in the unit',
  'ProtectProc=': 'the guard is there before /proc matters',
  'PrivateMounts=': 'the guard pins into the host’s bpffs',
};

t.test('systemd finds no fault but what has a reason', async (t) => {
  if (spawnSync('sh', ['-c', 'command -v systemd-analyze']).status !== 0) return;
  for (const file of [files[0]!, files[2]!]) {
    const { stdout } = spawnSync('systemd-analyze', ['security', '--offline=true', file], {
      encoding: 'utf8',
    });
    const faults = [...stdout.matchAll(/^✗ (\S+)/gm)].map(([, name]) => name!);
    t.same(
      faults.filter((name) => accepted[name] === undefined),
      [],
      file,
    );
    const score = Number(/exposure level for \S+: ([\d.]+)/.exec(stdout)?.[1]);
    t.ok(score <= 2.5, `${file}: ${score}`);
  }
});
