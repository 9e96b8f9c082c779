/**
 * A certificate authority for one run and the firewall's certificate under it, made by the
 * `openssl` command in a directory that only root reads and that goes when the process ends. The
 * lab keeps its other files there too.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { must } from './namespace.ts';

export type Certificates = {
  readonly ca: string;
  readonly certificate: string;
  readonly key: string;
};

const directories = new Set<string>();
let watching = false;

/** A new directory with mode 0700, removed on exit. */
export function createRunDirectory(): string {
  if (!watching) {
    watching = true;
    process.on('exit', () => {
      for (const directory of directories) rmSync(directory, { recursive: true, force: true });
    });
  }
  const directory = mkdtempSync(join(tmpdir(), 'microperimeter-lab-'));
  directories.add(directory);
  return directory;
}

/** Keep the directory when this process ends (`--keep`). */
export function keepRunDirectory(directory: string): void {
  directories.delete(directory);
}

/**
 * Writes `<name>-ca.pem`, `<name>.pem` and `<name>.key` into `directory`: valid for two days and
 * for the IPv4 address given. Throws when the openssl command fails.
 */
export function createCertificates(directory: string, name: string, address: string): Certificates {
  const path = (file: string) => join(directory, `${name}${file}`);
  const newKey = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];
  must('openssl', [
    ...['req', '-x509', ...newKey, '-days', '2', '-subj', '/CN=microperimeter lab authority'],
    ...['-keyout', path('-ca.key'), '-out', path('-ca.pem')],
  ]);
  must('openssl', [
    ...['req', ...newKey, '-subj', `/CN=${name}`],
    ...['-keyout', path('.key'), '-out', path('.csr')],
  ]);
  writeFileSync(
    path('.ext'),
    `subjectAltName=IP:${address}\nbasicConstraints=CA:FALSE\nextendedKeyUsage=serverAuth\n`,
  );
  must('openssl', [
    ...['x509', '-req', '-in', path('.csr'), '-CA', path('-ca.pem'), '-CAkey', path('-ca.key')],
    ...['-CAcreateserial', '-days', '2', '-extfile', path('.ext'), '-out', path('.pem')],
  ]);
  return { ca: path('-ca.pem'), certificate: path('.pem'), key: path('.key') };
}
