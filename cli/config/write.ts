/** The configuration file to disk: whole or not at all, with the mode and the owner that it had. */
import {
  chmodSync,
  chownSync,
  closeSync,
  fsyncSync,
  openSync,
  readFileSync,
  realpathSync,
  renameSync,
  rmSync,
  statSync,
  writeSync,
} from 'node:fs';

/** Empty when it cannot be read. */
export function readText(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return '';
  }
}

/**
 * A reader finds the old text or the new, also after a crash. A link stays one: what it leads to is
 * replaced. Throws Node's error when the directory cannot be written.
 *
 * @param mode of a file that was not there
 */
export function writeAtomically(file: string, text: string, mode = 0o644): void {
  const old = statSync(file, { throwIfNoEntry: false });
  const target = old === undefined ? file : realpathSync(file);
  const temporary = `${target}.${process.pid}.new`;
  try {
    const fd = openSync(temporary, 'wx', 0o600);
    try {
      writeSync(fd, text);
      fsyncSync(fd);
    } finally {
      closeSync(fd);
    }
    chmodSync(temporary, old === undefined ? mode : old.mode & 0o7777);
    if (old !== undefined && process.geteuid?.() === 0) chownSync(temporary, old.uid, old.gid);
    renameSync(temporary, target);
  } catch (error) {
    rmSync(temporary, { force: true });
    throw error;
  }
}
