/**
 * `microperimeter diag`: what somebody needs who is to say from afar what is wrong, in one archive.
 * Text files, each made as far as it can be; what cannot says why. Keys and certificates are never
 * read, and where they are is left out.
 */
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, join, resolve } from 'node:path';
import { request } from '../../control/client.ts';
import { readText } from '../config/write.ts';
import { ExitCode } from '../exit-codes.ts';
import { version } from '../version.ts';

type DiagOptions = { readonly socket: string; readonly config: string; readonly out?: string };

/** Other people's programs, each for the file of its name; those that are not there say so. */
const programs: Readonly<Record<string, readonly string[]>> = {
  'uname.txt': ['uname', '-a'],
  'ip-link.txt': ['ip', '-d', '-s', 'link'],
  'ip-address.txt': ['ip', 'address'],
  'ip-route.txt': ['ip', 'route', 'show', 'table', 'all'],
  'ip-rule.txt': ['ip', 'rule'],
  'sockets.txt': ['ss', '-tuanp'],
  'tc-qdisc.txt': ['tc', '-s', 'qdisc'],
  'nft.txt': ['nft', 'list', 'ruleset'],
  'bpf-net.txt': ['bpftool', 'net'],
  'bpf-programs.txt': ['bpftool', 'prog'],
  'sysctl-net.txt': ['sysctl', '-a', '--pattern', '^net\\.(core|ipv4|ipv6)\\.'],
  'journal.txt': ['journalctl', '-u', 'microperimeter', '-n', '2000', '--no-pager'],
};
const programLimitMs = 5_000;
const outputBytesMax = 4 << 20;

/** Prints where the archive is: a directory where there is no tar. */
export async function diag({ config, out, socket }: DiagOptions): Promise<number> {
  const stamp = new Date().toISOString().replace(/[:.]/g, '-');
  const target = resolve(out ?? `microperimeter-diag-${stamp}.tar.gz`);
  const parent = mkdtempSync(join(tmpdir(), 'microperimeter-diag-'));
  const name = basename(target).replace(/\.tar\.gz$/, '');
  const directory = join(parent, name);
  mkdirSync(directory, { mode: 0o700 });
  const write = (file: string, text: string) =>
    writeFileSync(join(directory, file), text, { mode: 0o600 });
  write('version.txt', `microperimeter ${version}, node ${process.version}\n`);
  for (const path of ['status', 'flows'] as const) {
    write(`${path}.json`, withoutSecrets(await ask(socket, `/${path}`)));
  }
  write('config.yaml', withoutSecrets(readText(config)));
  for (const [file, [command = '', ...args]] of Object.entries(programs)) {
    write(file, withoutSecrets(outputOf(command, args)));
  }
  mkdirSync(dirname(target), { recursive: true });
  const packed = spawnSync('tar', ['-czf', target, '-C', parent, name]);
  if (packed.status !== 0) {
    process.stdout.write(`${directory}: tar cannot pack it\n`);
    return ExitCode.Ok;
  }
  rmSync(parent, { recursive: true });
  process.stdout.write(`${target}\n`);
  return ExitCode.Ok;
}

async function ask(socket: string, path: string): Promise<string> {
  try {
    const { body } = await request(socket, 'GET', path);
    return `${JSON.stringify(body, null, 2)}\n`;
  } catch (error) {
    return `${JSON.stringify({ error: (error as Error).message })}\n`;
  }
}

function outputOf(command: string, args: readonly string[]): string {
  const { error, stderr, stdout } = spawnSync(command, args, {
    encoding: 'utf8',
    timeout: programLimitMs,
    maxBuffer: outputBytesMax,
  });
  return `${stdout ?? ''}${stderr ?? ''}${error === undefined ? '' : `${error.message}\n`}`;
}

const secretKeys = 'ca|pin|clientCertificate|clientKey|tokenFile|token|password';
const secretValue = new RegExp(`(["']?\\b(?:${secretKeys})["']?\\s*:\\s*)([^\\s,}][^,}\\n]*)`, 'g');
const pemBlock = /-----BEGIN [^-]+-----[\s\S]*?(-----END [^-]+-----|$)/g;

/** The kernel's own: of addresses, TCP cookies and the card's hash. */
const secretSysctl = /^.*(?:stable_secret|fastopen_key|rss_key).*\n/gm;

/** Where keys and certificates are, and any that somebody pasted. */
function withoutSecrets(text: string): string {
  return text
    .replace(pemBlock, '(left out)')
    .replace(secretValue, '$1(left out)')
    .replace(secretSysctl, '');
}
