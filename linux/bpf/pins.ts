/**
 * TCX links that outlive the process, by name in a bpffs:
 *
 *     <pinDirectory>/<inode of the network namespace>-<interface name>/egress-<link number>
 *                                                                      ingress-<link number>
 *                                                                guard-egress-<link number>
 *                                                                guard-ingress-<link number>
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
import { dirname } from 'node:path';
import { check, close, type Fd, mount, umount2 } from '../syscall.ts';
import type { Hook, Owner } from './attach.ts';
import { getPinned, pinObject, textRegion } from './load.ts';
import { describeTcxLink, detachLink } from './tcx-link.ts';

/** include/uapi/linux/magic.h BPF_FS_MAGIC */
const BPF_FS_MAGIC = 0xcafe_4a11;
/** The source of our mounts in /proc/self/mountinfo: we unmount no other. */
const mountSource = 'microperimeter';
const directoryName = /^\d+-.+$/;
const pinNames: Readonly<Record<Owner, RegExp>> = {
  agent: /^(?:egress|ingress)-\d+$/,
  guard: /^guard-(?:egress|ingress)-\d+$/,
};

export function pinPrefix(owner: Owner, hook: Hook): string {
  return owner === 'agent' ? hook : `guard-${hook}`;
}

/** `eth0 egress`: where the link that is pinned at `path` is. */
export function pinPlace(path: string): string {
  const [, name, hook] = /\/\d+-([^/]+)\/(?:guard-)?(\w+)-\d+$/.exec(path) ?? [];
  return `${name} ${hook}`;
}

/**
 * Give a link a name, by which it outlives its descriptors. Returns the path. Throws SystemError.
 */
export function pinLink(
  link: Fd,
  directory: string,
  interfaceName: string,
  prefix: string,
): string {
  preparePinDirectory(directory);
  const home = `${directory}/${namespaceNumber()}-${interfaceName}`;
  mkdirSync(home, { recursive: true, mode: 0o700 });
  // The kernel never gives a link's number again, so the name cannot be a dead run's.
  const path = `${home}/${prefix}-${describeTcxLink(link)?.id}`;
  pinObject(link, path);
  return path;
}

/** Takes the name away; the link stays as long as a descriptor of it is open. */
export function unpinLink(path: string): void {
  unlinkSync(path);
  tidyPinDirectory(dirname(dirname(path)));
}

/** Makes `directory` a place where objects can be pinned. */
function preparePinDirectory(directory: string): void {
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  if (statfsSync(directory).type === BPF_FS_MAGIC) return;
  const options = textRegion('mode=0700');
  check(mount(mountSource, directory, 'bpf', 0, options.address), `mount(bpf, ${directory})`);
}

/** Of this thread. */
function namespaceNumber(): number {
  return statSync('/proc/thread-self/ns/net').ino;
}

function entries(directory: string): string[] {
  try {
    return readdirSync(directory);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw error;
  }
}

/**
 * Paths of the links pinned for this thread's network namespace, and of those of any other whose
 * interface is gone: they hold nothing any more.
 */
export function leftoverPins(directory: string, owner: Owner): string[] {
  const own = `${namespaceNumber()}-`;
  return entries(directory)
    .filter((name) => directoryName.test(name))
    .flatMap((name) =>
      entries(`${directory}/${name}`)
        .filter((pin) => pinNames[owner].test(pin))
        .map((pin) => `${directory}/${name}/${pin}`)
        .filter((path) => name.startsWith(own) || isDead(path)),
    );
}

/** Takes the pinned link off its hook and its name away. False when there was no such link. */
export function releasePin(path: string): boolean {
  let link: Fd;
  try {
    link = getPinned(path);
  } catch {
    return false;
  }
  try {
    if (describeTcxLink(link) === null) return false;
    detachLink(link);
    unpinLink(path);
    return true;
  } finally {
    close(link);
  }
}

/** Removes directories that are empty, and our mount when nothing is left in it. */
function tidyPinDirectory(directory: string): void {
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

function isDead(path: string): boolean {
  let link: Fd;
  try {
    link = getPinned(path);
  } catch {
    // An agent in another namespace has just taken it away.
    return false;
  }
  try {
    return describeTcxLink(link)?.interfaceIndex === 0;
  } finally {
    close(link);
  }
}
