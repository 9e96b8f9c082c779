/**
 * Packages of Debian for virtual machines, kernels first of all: fetched by apt, which verifies
 * them, with lists and a cache of our own, so that the machine's own sources stay as they are.
 */
import { existsSync, mkdirSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { must } from '../../lab/namespace.ts';

/** As Debian calls processors. */
export type Architecture = 'amd64' | 'arm64';

export type Kernel = {
  readonly architecture: Architecture;
  /** Such as `5.10.0-32-amd64`. */
  readonly release: string;
  /** Compressed image. */
  readonly image: string;
  /** What has lib/modules/RELEASE. */
  readonly root: string;
};

const cache = resolve('dist/debian');
const keyring = '/usr/share/keyrings/debian-archive-keyring.gpg';

/** The kernel of a release of Debian, such as `bullseye`. Throws when it cannot be had. */
export function fetchKernel(suite: string, architecture: Architecture = 'amd64'): Kernel {
  const meta = `linux-image-${architecture}`;
  const root = fetchPackages(suite, architecture, [meta], (show) => {
    const name = /^Depends: (linux-image-[^ ,]+)/m.exec(show(meta))?.[1];
    if (name === undefined) throw new Error(`${suite} has no ${meta}`);
    return [name];
  });
  const [release = ''] = readdirSync(join(root, 'lib/modules'));
  if (!existsSync(join(root, `lib/modules/${release}/modules.dep`))) {
    must('depmod', ['--basedir', root, release]);
  }
  return { architecture, release, image: join(root, `boot/vmlinuz-${release}`), root };
}

/**
 * The files of packages, without what they depend on; kept in dist/debian. Throws when they cannot
 * be had.
 *
 * @param choose which to take in the place of `names`, by what apt shows of a package
 * @returns the directory that they are below
 */
export function fetchPackages(
  suite: string,
  architecture: Architecture,
  names: readonly string[],
  choose: (show: (name: string) => string) => readonly string[] = () => names,
): string {
  const directory = join(cache, `${suite}-${architecture}-${names.join('-')}`);
  if (existsSync(directory)) return directory;
  mkdirSync(cache, { recursive: true });
  const partial = `${directory}.${process.pid}`;
  try {
    unpack(suite, architecture, choose, partial);
    // Another test may have been faster.
    if (!existsSync(directory)) renameSync(partial, directory);
  } finally {
    rmSync(partial, { recursive: true, force: true });
  }
  return directory;
}

function unpack(
  suite: string,
  architecture: Architecture,
  choose: (show: (name: string) => string) => readonly string[],
  directory: string,
): void {
  const at = (name: string) => join(directory, 'apt', name);
  for (const name of ['lists/partial', 'cache/archives/partial', 'debs']) {
    mkdirSync(at(name), { recursive: true });
  }
  writeFileSync(at('status'), '');
  const signedBy = existsSync(keyring) ? `[signed-by=${keyring}] ` : '';
  writeFileSync(at('sources.list'), `deb ${signedBy}${mirror()} ${suite} main\n`);
  const options = [
    `Dir::Etc::SourceList=${at('sources.list')}`,
    'Dir::Etc::SourceParts=/dev/null',
    `Dir::State::Lists=${at('lists')}`,
    `Dir::State::Status=${at('status')}`,
    `Dir::Cache=${at('cache')}`,
    'Acquire::Languages=none',
    `APT::Architecture=${architecture}`,
    `APT::Architectures=${architecture}`,
    'APT::Sandbox::User=root',
  ].flatMap((option) => ['-o', option]);
  must('apt-get', [...options, '-qq', 'update']);
  const names = choose((name) =>
    must('apt-cache', [...options, 'show', '--no-all-versions', name]),
  );
  must('apt-get', [...options, '-qq', 'download', ...names], at('debs'));
  for (const file of readdirSync(at('debs'))) {
    must('dpkg-deb', ['--extract', join(at('debs'), file), directory]);
  }
  rmSync(at(''), { recursive: true });
}

/** Where this machine itself gets Debian's packages from. */
function mirror(): string {
  const format = ['--format', '$(ORIGIN) $(LABEL) $(REPO_URI)', 'Created-By: Packages'];
  const [, found] =
    /^Debian Debian (\S+)$/m.exec(must('apt-get', ['indextargets', ...format])) ?? [];
  const uri = process.env.DEBIAN_MIRROR ?? found;
  if (uri !== undefined) return uri;
  throw new Error(
    "no mirror of Debian is among this machine's package sources: set DEBIAN_MIRROR to one's URL",
  );
}
