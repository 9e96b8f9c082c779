/**
 * The files that telemetry needs to know the firewall and to be known to it, read once and checked
 * here, so that a wrong file is one clear sentence at the start and not a TLS error later.
 */
import { createPrivateKey, X509Certificate } from 'node:crypto';
import { readFileSync, statSync } from 'node:fs';
import type { TelemetryTarget } from '../engine/config.ts';
import type { TelemetryCredentials } from '../engine/telemetry-client.ts';

export class CredentialError extends Error {
  readonly code = 'ERR_CREDENTIALS';
  /** What the operator can do about it; one sentence. */
  readonly advice: string;

  constructor(message: string, advice: string) {
    super(message);
    this.name = 'CredentialError';
    this.advice = advice;
  }
}

/** Read and check the files of `target`. Throws a CredentialError about the first that is wrong. */
export function loadCredentials(target: TelemetryTarget): TelemetryCredentials {
  const ca = target.ca === '' ? '' : readCertificate('ca', target.ca);
  if (target.clientCertificate === '') {
    return { ca, pin: target.pin, clientCertificate: '', clientKey: '' };
  }
  const clientCertificate = readCertificate('clientCertificate', target.clientCertificate);
  const clientKey = readKey(target.clientKey);
  if (!new X509Certificate(clientCertificate).checkPrivateKey(createPrivateKey(clientKey))) {
    throw new CredentialError(
      `${target.clientKey} is not the key of ${target.clientCertificate}`,
      'clientCertificate and clientKey must belong together.',
    );
  }
  return { ca, pin: target.pin, clientCertificate, clientKey };
}

function read(key: string, file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (error) {
    const errno = (error as NodeJS.ErrnoException).code ?? 'unknown error';
    throw new CredentialError(
      `${file} (telemetry.${key}) cannot be read: ${errno}`,
      'Put the file there, or correct the path in the configuration.',
    );
  }
}

function readCertificate(key: string, file: string): string {
  const pem = read(key, file);
  try {
    new X509Certificate(pem);
    return pem;
  } catch {
    throw new CredentialError(
      `${file} (telemetry.${key}) holds no certificate in PEM form`,
      'It must begin with -----BEGIN CERTIFICATE-----.',
    );
  }
}

function readKey(file: string): string {
  const pem = read('clientKey', file);
  if ((statSync(file).mode & 0o007) !== 0) {
    throw new CredentialError(
      `${file} (telemetry.clientKey) is open to every user of this host`,
      `Close it: chmod 600 ${file}.`,
    );
  }
  try {
    createPrivateKey(pem);
    return pem;
  } catch {
    throw new CredentialError(
      `${file} (telemetry.clientKey) holds no private key in PEM form without a passphrase`,
      'It must begin with -----BEGIN PRIVATE KEY-----.',
    );
  }
}
