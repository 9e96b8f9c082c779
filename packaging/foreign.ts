/** Packages for a processor that is not this one's: npm installs only those that fit. */
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';

/**
 * The package as a lock file has it, version and sum.
 *
 * @param lock directory with a package-lock.json
 * @param into directory that gets one for the package
 * @returns that one
 * @throws Error when the registry has something else, or cannot be reached
 */
export function fetchLocked(lock: string, name: string, into: string): string {
  const { packages } = JSON.parse(readFileSync(join(lock, 'package-lock.json'), 'utf8'));
  const locked: { integrity: string; version: string } = packages[`node_modules/${name}`];
  const directory = join(into, name);
  rmSync(directory, { recursive: true, force: true });
  mkdirSync(directory, { recursive: true });
  const pack = ['pack', '--silent', '--pack-destination', directory];
  const said = execFileSync('npm', [...pack, `${name}@${locked.version}`], { encoding: 'utf8' });
  const archive = join(directory, said.trim());
  const sum = createHash('sha512').update(readFileSync(archive)).digest('base64');
  if (`sha512-${sum}` !== locked.integrity) {
    throw new Error(`${name}@${locked.version} is not what ${lock}/package-lock.json says`);
  }
  execFileSync('tar', ['-xzf', archive, '-C', directory, '--strip-components=1']);
  rmSync(archive);
  return directory;
}
