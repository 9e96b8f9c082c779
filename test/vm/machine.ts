/**
 * A virtual machine with another kernel. Emulated (qemu, TCG), since test machines are often
 * virtual themselves: some ten times slower. It has the network namespaces that tests make in it
 * and, when asked for, a NIC.
 *
 * `runIn`: with this machine's files, read-only by 9p; changes are kept in its memory. `runAlone`:
 * for a processor that this machine's programs are not for, with nothing but what it is given.
 */
import { spawn } from 'node:child_process';
import {
  copyFileSync,
  cpSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { must } from '../../lab/namespace.ts';
import type { Architecture, Kernel } from './debian.ts';

/** What the agent and the lab need of a kernel, and NICs; with what they depend on. */
const neededModules = [
  ...['virtio_pci', 'virtio_net', 'vmxnet3'],
  ...['tun', 'veth', 'vxlan', 'geneve', 'sch_ingress', 'cls_bpf', 'nf_tables'],
];
const fileModules = ['9pnet_virtio', '9p', 'overlay'];

const emulators: Readonly<Record<Architecture, readonly string[]>> = {
  amd64: ['qemu-system-x86_64'],
  arm64: ['qemu-system-aarch64', '-machine', 'virt'],
};
const consoles: Readonly<Record<Architecture, string>> = { amd64: 'ttyS0', arm64: 'ttyAMA0' };

const endMark = 'microperimeter-vm-ended';

/** `eth0` inside, on a tap of this machine's. */
export type Nic = {
  /** Device that qemu emulates; its driver has the same name, but `virtio-net-pci`. */
  readonly model: 'virtio-net-pci' | 'vmxnet3';
  /** Network namespace that the tap is in, as nsenter(1) takes it. */
  readonly namespace: string;
  readonly tap: string;
};

export type MachineAnswer = {
  /** Of the command; -1 when the machine ended without saying. */
  readonly code: number;
  /** What was written to its console. */
  readonly output: string;
};

/**
 * Start it, run a command by bash as root, in this process's directory and with its PATH, switch it
 * off.
 * @param limitMs after which it is killed
 */
export function runIn(
  kernel: Kernel,
  command: string,
  limitMs: number,
  nic?: Nic,
): Promise<MachineAnswer> {
  const share = 'local,id=host,path=/,security_model=none,readonly=on,multidevs=remap';
  const files = ['-fsdev', share, '-device', 'virtio-9p-pci,fsdev=host,mount_tag=host'];
  return withDirectory((directory) => {
    const root = createRoot(directory, kernel, [...neededModules, ...fileModules]);
    copyFileSync('/bin/busybox', join(root, 'bin/busybox'));
    const setting = `export PATH='${process.env.PATH}' HOME=/root\ncd '${process.cwd()}'`;
    writeFileSync(join(root, 'command'), `${setting}\n${mountsForPrograms}${wrapped(command)}`);
    return run(kernel, pack(root, directory, hostFiles), files, limitMs, nic);
  });
}

/**
 * The same, by busybox's sh.
 * @param given directories whose files it has, among them bin/busybox for its processor
 */
export function runAlone(
  kernel: Kernel,
  given: readonly string[],
  command: string,
  limitMs: number,
  nic?: Nic,
): Promise<MachineAnswer> {
  return withDirectory((directory) => {
    const root = createRoot(directory, kernel, neededModules);
    for (const files of given) cpSync(files, root, { recursive: true, verbatimSymlinks: true });
    const setting = '/bin/busybox --install -s /bin\nexport PATH=/bin HOME=/';
    writeFileSync(join(root, 'command'), `${setting}\n${wrapped(command)}`);
    return run(kernel, pack(root, directory, ownFiles), [], limitMs, nic);
  });
}

async function withDirectory(
  work: (directory: string) => Promise<MachineAnswer>,
): Promise<MachineAnswer> {
  const directory = mkdtempSync(join(tmpdir(), 'microperimeter-vm-'));
  try {
    return await work(directory);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

/** A file system for the kernel's first process, with modules, each after those it needs. */
function createRoot(directory: string, kernel: Kernel, wanted: readonly string[]): string {
  const root = join(directory, 'root');
  const names = ['bin', 'modules', 'proc', 'sys', 'dev', 'run', 'tmp', 'host', 'changes', 'new'];
  for (const name of names) mkdirSync(join(root, name), { recursive: true });
  const options = ['--dirname', kernel.root, '--set-version', kernel.release, '--show-depends'];
  // One that is built into the kernel has no file, and one of another processor's NIC is not there.
  const files = wanted.flatMap((name) => {
    const shown = must('sh', ['-c', `modprobe ${[...options, name].join(' ')} 2>&1 || true`]);
    return [...shown.matchAll(/^insmod (\S+)/gm)].map(([, file]) => file!);
  });
  const modules = [...new Set(files)];
  for (const file of modules) copyFileSync(file, join(root, 'modules', basename(file)));
  const order = modules.map((file) => basename(file)).join('\n');
  writeFileSync(join(root, 'modules/order'), `${order}\n`);
  return root;
}

/** Archive of the file system, with how its first process ends: by becoming the command. */
function pack(root: string, directory: string, last: string): string {
  const script = `#!/bin/busybox sh
b=/bin/busybox
$b mount -t proc proc /proc
$b mount -t sysfs sys /sys
$b mount -t devtmpfs dev /dev
while read module; do $b insmod /modules/$module; done </modules/order
${last}`;
  writeFileSync(join(root, 'init'), script, { mode: 0o755 });
  must('sh', ['-c', 'find . | cpio --quiet -o -H newc >../archive'], root);
  const initrd = join(directory, 'initrd');
  writeFileSync(initrd, gzipSync(readFileSync(join(directory, 'archive')), { level: 1 }));
  return initrd;
}

const hostFiles = `$b mount -t 9p -o trans=virtio,version=9p2000.L,ro,cache=loose,msize=262144 host /host
$b mount -t tmpfs changes /changes
$b mkdir /changes/upper /changes/work
$b mount -t overlay -o lowerdir=/host,upperdir=/changes/upper,workdir=/changes/work none /new
for each in proc sys dev; do $b mount --move /$each /new/$each; done
$b mount -t tmpfs run /new/run
$b cp /command /new/run/command
exec $b switch_root /new /bin/bash /run/command
`;
const ownFiles = 'exec $b sh /command\n';

const mountsForPrograms = `mount -t bpf bpf /sys/fs/bpf
mount -t cgroup2 cgroup /sys/fs/cgroup
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs shm /dev/shm
`;

function wrapped(command: string): string {
  return `ip link set lo up
(
${command}
) 2>&1
code=$?
echo
echo ${endMark} $code
echo o >/proc/sysrq-trigger
sleep 60
`;
}

async function run(
  { architecture, image }: Kernel,
  initrd: string,
  devices: readonly string[],
  limitMs: number,
  nic?: Nic,
): Promise<MachineAnswer> {
  const network = nic && [
    ...['-netdev', `tap,id=nic,ifname=${nic.tap},script=no,downscript=no`],
    ...['-device', `${nic.model},netdev=nic,romfile=`],
  ];
  const [command, ...args] = [
    ...(nic === undefined ? [] : ['nsenter', `--net=${nic.namespace}`]),
    ...emulators[architecture],
    ...['-accel', 'tcg,thread=multi', '-cpu', 'max', '-smp', '2', '-m', '3G'],
    ...['-nodefaults', '-display', 'none', '-serial', 'stdio', '-no-reboot'],
    ...['-kernel', image, '-initrd', initrd],
    ...['-append', `console=${consoles[architecture]} quiet panic=-1`],
    ...devices,
    ...(network ?? []),
  ];
  const output = await outputOf(command!, args, limitMs);
  const code = new RegExp(`^${endMark} (\\d+)`, 'm').exec(output)?.[1];
  return { code: code === undefined ? -1 : Number(code), output };
}

function outputOf(command: string, args: readonly string[], limitMs: number): Promise<string> {
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'] });
  let output = '';
  const gather = (chunk: Buffer) => {
    output += chunk.toString().replaceAll('\r', '');
  };
  child.stdout.on('data', gather);
  child.stderr.on('data', gather);
  const kill = () => child.kill('SIGKILL');
  const timer = setTimeout(kill, limitMs);
  process.once('exit', kill);
  return new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('close', () => {
      clearTimeout(timer);
      process.off('exit', kill);
      resolve(output);
    });
  });
}
