/** Certificates for tests, made by openssl in a directory of their own. */
import { spawnSync } from 'node:child_process';
import { createHash, X509Certificate } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

export type Pair = {
  readonly certificate: string;
  readonly key: string;
  readonly certificateFile: string;
  readonly keyFile: string;
};

export class Certificates {
  readonly directory = mkdtempSync(join(tmpdir(), 'mp-test-'));

  /** An authority that signs by itself. */
  authority(name: string): Pair {
    const file = (end: string) => join(this.directory, `${name}.${end}`);
    this.openssl([
      ...['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'],
      ...['-keyout', file('key'), '-out', file('pem'), '-days', '2', '-subj', `/CN=${name}`],
      ...['-addext', 'basicConstraints=critical,CA:TRUE'],
    ]);
    return this.read(file('pem'), file('key'));
  }

  /** A certificate of `authority`; `alternative` such as `IP:127.0.0.1`. */
  leaf(name: string, authority: Pair, alternative: string): Pair {
    const file = (end: string) => join(this.directory, `${name}.${end}`);
    writeFileSync(file('ext'), `subjectAltName=${alternative}\n`);
    this.openssl([
      ...['req', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'],
      ...['-keyout', file('key'), '-out', file('csr'), '-subj', `/CN=${name}`],
    ]);
    this.openssl([
      ...['x509', '-req', '-in', file('csr'), '-CA', authority.certificateFile],
      ...['-CAkey', authority.keyFile, '-CAcreateserial', '-days', '1'],
      ...['-extfile', file('ext'), '-out', file('pem')],
    ]);
    return this.read(file('pem'), file('key'));
  }

  remove(): void {
    rmSync(this.directory, { recursive: true, force: true });
  }

  private read(certificateFile: string, keyFile: string): Pair {
    const certificate = readFileSync(certificateFile, 'utf8');
    return { certificate, key: readFileSync(keyFile, 'utf8'), certificateFile, keyFile };
  }

  private openssl(args: readonly string[]): void {
    const result = spawnSync('openssl', args, { encoding: 'utf8' });
    if (result.status !== 0) throw new Error(`openssl ${args.join(' ')}: ${result.stderr}`);
  }
}

/** Base64 of the SHA-256 of the public key, as `pin` has it after `sha256/`. */
export function pinOf(pair: Pair): string {
  const { publicKey } = new X509Certificate(pair.certificate);
  const key = publicKey.export({ type: 'spki', format: 'der' });
  return createHash('sha256').update(key).digest('base64');
}
