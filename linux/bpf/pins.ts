/**
 * Links that outlive the process, by name in a bpffs:
 *
 *     <pinDirectory>/<inode of the network namespace>-<interface name>/egress-<link number>
 *                                                                      ingress-<link number>
 *
 * The directory is made, and a bpffs mounted on it when it is not on one; both go with the last
 * pin. Only what bears these names and holds a TCX link is ever touched.
 */
import {
  mkdirSync,
  readdirSync,
  readFileSync,
  rmdirSync,
  statfsSync,
  statSync,
  unlinkSync,
} from 'node:fs';
import { check, close, mount, umount2 } from '../syscall.ts';
import { getPinned, textRegion } from './load.ts';
import { describeTcxLink, detachLink } from './tcx.ts';

/** include/uapi/linux/magic.h BPF_FS_MAGIC */
const BPF_FS_MAGIC = 0xcafe_4a11;
/** The source of our mounts in /proc/self/mountinfo: we unmount no other. */
const mountSource = 'microperimeter';
const directoryName = /^\d+-.+$/;
const pinName = /^(?:egress|ingress)-\d+$/;

/** Makes `directory` a place where objects can be pinned. Throws SystemError. */
export function preparePinDirectory(directory: string): void {
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  if (statfsSync(directory).type === BPF_FS_MAGIC) return;
  const options = textRegion('mode=0700');
  check(mount(mountSource, directory, 'bpf', 0, options.address), `mount(bpf, ${directory})`);
}

/** Directory of the pins of one interface of this thread's network namespace. */
export function interfacePinDirectory(directory: string, interfaceName: string): string {
  const { ino } = statSync('/proc/thread-self/ns/net');
  return `${directory}/${ino}-${interfaceName}`;
}

function entries(directory: string): string[] {
  try {
    return readdirSync(directory);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw error;
  }
}

/** Paths of everything that is pinned in the directory of one interface. */
export function pinsIn(interfaceDirectory: string): string[] {
  return entries(interfaceDirectory)
    .filter((name) => pinName.test(name))
    .map((name) => `${interfaceDirectory}/${name}`);
}

/** Takes the pinned link off its hook and its name away. False when there was no such link. */
export function releasePin(path: string): boolean {
  let link: number;
  try {
    link = getPinned(path);
  } catch {
    return false;
  }
  try {
    if (describeTcxLink(link) === null) return false;
    detachLink(link);
    unlinkSync(path);
    return true;
  } finally {
    close(link);
  }
}

/** Removes directories that are empty, and our mount when nothing is left in it. */
export function tidyPinDirectory(directory: string): void {
  for (const name of entries(directory)) {
    if (directoryName.test(name)) removeEmpty(`${directory}/${name}`);
  }
  if (entries(directory).some((name) => directoryName.test(name))) return;
  // The kernel itself puts maps.debug and progs.debug into a new bpffs. EBUSY: somebody has the
  // directory open; an empty bpffs left there does no harm.
  if (isOurMount(directory)) umount2(directory, 0);
  removeEmpty(directory);
}

function removeEmpty(directory: string): void {
  try {
    rmdirSync(directory);
  } catch (error) {
    const { code = '' } = error as NodeJS.ErrnoException;
    if (!['ENOTEMPTY', 'ENOENT', 'EBUSY'].includes(code)) throw error;
  }
}

/** proc_pid_mountinfo(5): `id parent major:minor root target options … - type source …` */
function isOurMount(directory: string): boolean {
  return readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .some((line) => {
      const [left = '', right = ''] = line.split(' - ');
      return left.split(' ')[4] === directory && right.startsWith(`bpf ${mountSource} `);
    });
}

/**
 * For an operator, when a dead agent's links drop traffic: removes every link pinned under
 * `directory` for this thread's network namespace. Returns the paths removed.
 */
export function releaseLeftovers(directory: string): string[] {
  const { ino } = statSync('/proc/thread-self/ns/net');
  const released = entries(directory)
    .filter((name) => name.startsWith(`${ino}-`))
    .flatMap((name) => pinsIn(`${directory}/${name}`))
    .filter((path) => releasePin(path));
  tidyPinDirectory(directory);
  return released;
}

/** Removes links whose interface is gone: they hold nothing any more. Of all namespaces. */
export function releaseDeadPins(directory: string): void {
  const names = entries(directory).filter((name) => directoryName.test(name));
  for (const path of names.flatMap((name) => pinsIn(`${directory}/${name}`))) {
    if (isDead(path)) releasePin(path);
  }
  if (names.length > 0) tidyPinDirectory(directory);
}

function isDead(path: string): boolean {
  const link = getPinned(path);
  try {
    return describeTcxLink(link)?.interfaceIndex === 0;
  } finally {
    close(link);
  }
}
