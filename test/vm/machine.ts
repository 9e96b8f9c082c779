/**
 * A virtual machine with another kernel and this machine's files: read-only by 9p, with changes
 * kept in its memory. Emulated (qemu, TCG), since test machines are often virtual themselves: some
 * ten times slower. It has the network namespaces that tests make in it and, when asked for, a NIC.
 */
import { spawn } from 'node:child_process';
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { type Kernel, must } from './kernel.ts';

/** For its files, and what the agent and the lab need of a kernel; with what they depend on. */
const neededModules = [
  ...['virtio_pci', 'virtio_net', 'vmxnet3', 'e1000e', '9pnet_virtio', '9p', 'overlay'],
  ...['tun', 'veth', 'vxlan', 'geneve', 'sch_ingress', 'cls_bpf', 'nf_tables'],
];

const endMark = 'microperimeter-vm-ended';

/** `eth0` inside, on a tap of this machine's. */
export type Nic = {
  /** Device that qemu emulates; its driver has the same name, but `virtio-net-pci`. */
  readonly model: 'virtio-net-pci' | 'vmxnet3' | 'e1000e';
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
 * Start it, run a command by bash as root, switch it off.
 * @param limitMs after which it is killed
 */
export async function runIn(
  kernel: Kernel,
  command: string,
  limitMs: number,
  nic?: Nic,
): Promise<MachineAnswer> {
  const directory = mkdtempSync(join(tmpdir(), 'microperimeter-vm-'));
  try {
    const initrd = join(directory, 'initrd');
    writeFileSync(initrd, createInitrd(kernel, command, directory));
    const output = await run(kernel, initrd, limitMs, nic);
    const code = new RegExp(`^${endMark} (\\d+)`, 'm').exec(output)?.[1];
    return { code: code === undefined ? -1 : Number(code), output };
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

/** A file system for the kernel's first process: busybox, modules, and what to do with them. */
function createInitrd(kernel: Kernel, command: string, directory: string): Buffer {
  const root = join(directory, 'root');
  for (const name of ['bin', 'modules', 'proc', 'sys', 'dev', 'host', 'changes', 'new']) {
    mkdirSync(join(root, name), { recursive: true });
  }
  copyFileSync('/bin/busybox', join(root, 'bin/busybox'));
  const modules = modulesInOrder(kernel);
  for (const file of modules) copyFileSync(file, join(root, 'modules', basename(file)));
  writeFileSync(join(root, 'command'), wrapped(command));
  writeFileSync(join(root, 'init'), initScript(modules.map((file) => basename(file))), {
    mode: 0o755,
  });
  must('sh', ['-c', `cd ${root} && find . | cpio --quiet -o -H newc >../archive`]);
  return gzipSync(readFileSync(join(directory, 'archive')), { level: 1 });
}

/** Each after those that it depends on. One that is built into the kernel has no file. */
function modulesInOrder({ modules, release }: Kernel): string[] {
  const base = modules.slice(0, -`/lib/modules/${release}`.length);
  const files = neededModules.flatMap((name) => {
    const options = ['--dirname', base, '--set-version', release, '--show-depends', name];
    return [...must('modprobe', options).matchAll(/^insmod (\S+)/gm)].map(([, file]) => file!);
  });
  return [...new Set(files)];
}

function initScript(modules: readonly string[]): string {
  return `#!/bin/busybox sh
b=/bin/busybox
$b mount -t proc proc /proc
$b mount -t sysfs sys /sys
$b mount -t devtmpfs dev /dev
for module in ${modules.join(' ')}; do $b insmod /modules/$module; done
$b mount -t 9p -o trans=virtio,version=9p2000.L,ro,cache=loose,msize=262144 host /host
$b mount -t tmpfs changes /changes
$b mkdir /changes/upper /changes/work
$b mount -t overlay -o lowerdir=/host,upperdir=/changes/upper,workdir=/changes/work none /new
for each in proc sys dev; do $b mount --move /$each /new/$each; done
$b mount -t tmpfs run /new/run
$b cp /command /new/run/command
exec $b switch_root /new /bin/bash /run/command
`;
}

/** In the directory that this process is in, and with its PATH. */
function wrapped(command: string): string {
  return `export PATH='${process.env.PATH}' HOME=/root
mount -t bpf bpf /sys/fs/bpf
mount -t cgroup2 cgroup /sys/fs/cgroup
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs shm /dev/shm
ip link set lo up
cd '${process.cwd()}'
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

function run(kernel: Kernel, initrd: string, limitMs: number, nic?: Nic): Promise<string> {
  const inside = nic === undefined ? [] : ['nsenter', `--net=${nic.namespace}`];
  const device = [
    ...['-netdev', `tap,id=nic,ifname=${nic?.tap},script=no,downscript=no`],
    ...['-device', `${nic?.model},netdev=nic,romfile=`],
  ];
  const share = 'local,id=host,path=/,security_model=none,readonly=on,multidevs=remap';
  const [command, ...args] = [
    ...inside,
    'qemu-system-x86_64',
    ...['-accel', 'tcg,thread=multi', '-cpu', 'max', '-smp', '2', '-m', '3G'],
    ...['-nodefaults', '-display', 'none', '-serial', 'stdio', '-no-reboot'],
    ...['-kernel', kernel.image, '-initrd', initrd],
    ...['-append', 'console=ttyS0 quiet panic=-1'],
    ...['-fsdev', share, '-device', 'virtio-9p-pci,fsdev=host,mount_tag=host'],
    ...(nic === undefined ? [] : device),
  ];
  const child = spawn(command!, args, { stdio: ['ignore', 'pipe', 'pipe'] });
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
