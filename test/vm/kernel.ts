/**
 * Kernels as Debian ships them, to start in a virtual machine: fetched by apt, which verifies them,
 * with lists and a cache of our own, so that the machine's own sources stay as they are.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';

export type Kernel = {
  /** Such as `5.10.0-32-amd64`. */
  readonly release: string;
  /** Compressed image. */
  readonly image: string;
  /** What is in /lib/modules/RELEASE. */
  readonly modules: string;
};

const cache = resolve('.cache/kernels');
const keyring = '/usr/share/keyrings/debian-archive-keyring.gpg';
const metaPackage = 'linux-image-amd64';

/** Throws, with what can be done, when it cannot be had. */
export function must(command: string, args: readonly string[]): string {
  const { error, status, stderr, stdout } = spawnSync(command, args, { encoding: 'utf8' });
  if (error) throw new Error(`${command}: ${error.message}`);
  if (status !== 0) throw new Error(`${command} ${args.join(' ')}: ${stderr.trim()}`);
  return stdout;
}

/** The kernel of a release of Debian, such as `bullseye`; kept in .cache. Throws. */
export function fetchKernel(suite: string): Kernel {
  const directory = join(cache, suite);
  if (!existsSync(directory)) {
    mkdirSync(cache, { recursive: true });
    const partial = `${directory}.${process.pid}`;
    try {
      unpack(suite, partial);
      renameSync(partial, directory);
    } finally {
      rmSync(partial, { recursive: true, force: true });
    }
  }
  const modulesOf = join(directory, 'lib/modules');
  const [release = ''] = readdirSync(modulesOf);
  return {
    release,
    image: join(directory, `boot/vmlinuz-${release}`),
    modules: join(modulesOf, release),
  };
}

function unpack(suite: string, directory: string): void {
  for (const name of ['lists/partial', 'cache/archives/partial']) {
    mkdirSync(join(directory, 'apt', name), { recursive: true });
  }
  const at = (name: string) => join(directory, 'apt', name);
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
    'APT::Architecture=amd64',
    'APT::Sandbox::User=root',
  ].flatMap((option) => ['-o', option]);
  must('apt-get', [...options, '-qq', 'update']);
  const about = must('apt-cache', [...options, 'show', '--no-all-versions', metaPackage]);
  const name = /^Depends: (linux-image-[^ ,]+)/m.exec(about)?.[1];
  if (name === undefined) throw new Error(`${suite} has no ${metaPackage}`);
  must('apt-get', [...options, '-qq', '-d', '-y', '--no-install-recommends', 'install', name]);
  const archives = join(at('cache'), 'archives');
  const file = readdirSync(archives).find((each) => each.startsWith(`${name}_`));
  if (file === undefined) throw new Error(`apt-get has not fetched ${name}`);
  must('dpkg-deb', ['--extract', join(archives, file), directory]);
  rmSync(at(''), { recursive: true });
  must('depmod', ['--basedir', directory, readdirSync(join(directory, 'lib/modules'))[0]!]);
}

/** Where this machine itself gets Debian's packages from. */
function mirror(): string {
  const format = ['--format', '$(ORIGIN) $(LABEL) $(REPO_URI)', 'Created-By: Packages'];
  const targets = must('apt-get', ['indextargets', ...format]);
  const [, found] = /^Debian Debian (\S+)$/m.exec(targets) ?? [];
  const uri = process.env.DEBIAN_MIRROR ?? found;
  if (uri !== undefined) return uri;
  throw new Error(
    "no mirror of Debian is among this machine's package sources: set DEBIAN_MIRROR to one's URL",
  );
}
