/**
 * In the binary, koffi's native module is an asset, and only a file can be loaded. The file has no
 * name (O_TMPFILE): a name in a shared directory could be taken, or its content changed, by another
 * user before a root process loads it.
 */
import { constants, openSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { getRawAsset } from 'node:sea';
import { getEnvironmentData, setEnvironmentData } from 'node:worker_threads';

/** asm-generic/fcntl.h: __O_TMPFILE | O_DIRECTORY, where arm64 numbers O_DIRECTORY anew. */
const O_TMPFILE = 0o20000000 | constants.O_DIRECTORY;

/** Key of the descriptor, which threads that start later inherit as they do the file. */
const descriptorKey = 'microperimeter.koffi';

/** The native module, loaded once for the process and once more in each thread. */
export function loadKoffi(): unknown {
  const inherited = getEnvironmentData(descriptorKey);
  if (typeof inherited === 'number') return loadFrom(inherited);
  // Some mount /tmp with noexec, and some file systems know no files without a name.
  const failures: string[] = [];
  for (const directory of new Set([tmpdir(), '/var/tmp', '/run', '/dev/shm'])) {
    try {
      const descriptor = unpackInto(directory);
      const koffi = loadFrom(descriptor);
      setEnvironmentData(descriptorKey, descriptor);
      return koffi;
    } catch (error) {
      failures.push(`${directory}: ${(error as Error).message}`);
    }
  }
  throw new Error(
    `no directory to load native code from (${failures.join('; ')}); ` +
      'set TMPDIR to one on a file system that is not mounted noexec',
  );
}

function unpackInto(directory: string): number {
  const descriptor = openSync(directory, O_TMPFILE | constants.O_RDWR, 0o500);
  const bytes = new Uint8Array(getRawAsset('koffi.node') as ArrayBuffer);
  for (let at = 0; at < bytes.length; ) at += writeSync(descriptor, bytes, at);
  return descriptor;
}

function loadFrom(descriptor: number): unknown {
  const module = { exports: {} };
  process.dlopen(module, `/proc/self/fd/${descriptor}`);
  return module.exports;
}
