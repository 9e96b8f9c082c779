import { spawn, spawnSync } from 'node:child_process';
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { ConfigError } from '../../cli/config/parse.ts';
import { CredentialError, loadCredentials } from '../../cli/credentials.ts';
import { ExitCode, exitCodeHelp, exitCodeOf } from '../../cli/exit-codes.ts';
import { version } from '../../cli/version.ts';
import { ControlError } from '../../control/errors.ts';
import { startControlServer } from '../../control/server.ts';
import { callFailed, SystemError, UnsupportedFeature, VerifierError } from '../../linux/errors.ts';
import { noTrials } from '../control/provider.ts';
import { Certificates } from '../engine/certificates.ts';

const directory = mkdtempSync(join(tmpdir(), 'mp-cli-'));
const certificates = new Certificates();
const authority = certificates.authority('authority');
t.teardown(() => {
  rmSync(directory, { recursive: true, force: true });
  certificates.remove();
});

type Result = { code: number | null; out: string; err: string };

/** Not spawnSync: some tests answer from this process. */
function microperimeter(...args: string[]): Promise<Result> {
  return new Promise((resolve) => {
    const child = spawn(process.execPath, ['dist/cli/main.js', ...args]);
    const result = { code: null as number | null, out: '', err: '' };
    child.stdout.on('data', (chunk) => {
      result.out += chunk;
    });
    child.stderr.on('data', (chunk) => {
      result.err += chunk;
    });
    child.on('close', (code) => resolve({ ...result, code }));
  });
}

function write(name: string, text: string): string {
  const path = join(directory, name);
  writeFileSync(path, text);
  return path;
}

function config(ca: string, more = ''): string {
  return `version: 1
firewalls:
  - name: fw-a
    address: 10.9.0.4
    telemetry: { url: https://10.9.0.4/v1/metrics, ca: ${ca} }
${more}`;
}

t.test('words and exit codes of the command line', async (t) => {
  const good = write('good.yaml', config(authority.certificateFile));
  const missingCa = write('missing-ca.yaml', config('/nonexistent/ca.pem'));
  const bad = write('bad.yaml', config('/x', 'tunel: {}\nrules: [{ name: dns }]\n'));
  const shadowed = write(
    'shadowed.yaml',
    config(
      authority.certificateFile,
      [
        'rules:',
        '  - { name: a, protocol: tcp, remote: 12.0.0.0/8, action: drop }',
        '  - { name: b, protocol: tcp, remote: 12.1.0.0/16, remotePort: 80, action: pass }',
        '  - { name: c, remote: 11.0.0.0/8, action: redirect }',
      ].join('\n'),
    ),
  );
  const nowhere = join(directory, 'nowhere.sock');
  const rows: [args: string[], code: number, out: RegExp, err: RegExp][] = [
    [['version'], 0, /^0\.1\.0\n$/, /^$/],
    [['--help'], 0, /check \[options\] <file>[\s\S]*Exit codes:/, /^$/],
    [[], 2, /^$/, /Usage: microperimeter/],
    [['frobnicate'], 2, /^$/, /^microperimeter: unknown command 'frobnicate'/],
    [['run'], 2, /^$/, /^microperimeter: required option '--config <file>' not specified/],
    [['status', '--jsn'], 2, /^$/, /^microperimeter: unknown option '--jsn'/],
    [
      ['check', good],
      0,
      /is good: .* through fw-a \(10\.9\.0\.4\) by geneve on port 6081\n0 rules, else redirect; compiled to \d+\.\d KiB\n$/,
      /^$/,
    ],
    [
      ['check', missingCa],
      0,
      /is good/,
      /^microperimeter: warning: .*missing-ca.yaml: firewalls\[0\].telemetry: \/nonexistent\/ca.pem .* ENOENT/,
    ],
    [
      ['check', bad],
      2,
      /^$/,
      /^microperimeter: 2 problems .*:\n.*bad.yaml:6:1: tunel: .*tunnel\?\n.*bad.yaml:7:9: rules\[0\].action: is missing: .*\n$/,
    ],
    [
      ['check', shadowed],
      0,
      /3 rules, else redirect; compiled to /,
      /^microperimeter: warning: .*shadowed.yaml:8:5: rules\[1\]: rule "b" \(line 8\) .* rule "a" \(line 7\).*\n.*a note on the rules: check --notes shows them\n$/,
    ],
    [['check', '--notes', shadowed], 0, /3 rules/, /microperimeter: note: .*:9:5: rules\[2\]: /],
    [
      ['check', '--json', shadowed],
      0,
      /"warnings": \[\s+\{\s+"line": 8,[\s\S]*"notes": \[\s+\{\s+"line": 9,/,
      /^$/,
    ],
    [['check', '--json', good], 0, /"ok": true,[\s\S]*"rules": 0/, /^$/],
    [['check', '--json', bad], 2, /"ok": false,[\s\S]*"line": 7,\n *"column": 9/, /^$/],
    [['check', '/nonexistent'], 2, /^$/, /\/nonexistent: cannot be read: there is no such file/],
    [['check', '/'], 2, /^$/, /it is a directory/],
    [['run', '--config', bad], 2, /^$/, /^microperimeter: 2 problems/],
    [
      ['status', '--socket', nowhere],
      6,
      /^$/,
      /^microperimeter: no agent is running: .*\n {2}Start/,
    ],
    [['stop', '--socket', nowhere], 6, /^$/, /^microperimeter: no agent is running/],
  ];
  const results = await Promise.all(rows.map(([args]) => microperimeter(...args)));
  rows.forEach(([args, code, out, err], index) => {
    const result = results[index]!;
    t.equal(result.code, code, args.join(' '));
    t.match(result.out, out);
    t.match(result.err, err);
    t.notMatch(result.err, /\n\s+at /, 'no stack trace');
  });
});

t.test('status, stop and a second agent, against an agent that answers', async (t) => {
  const socket = join(directory, 'control.sock');
  let sample = JSON.parse(readFileSync('test/golden/screen/status.json', 'utf8'));
  const server = await startControlServer(socket, {
    capture: () => undefined,
    flows: () => ({ matching: 0, flows: [] }),
    ...noTrials,
    reload: async () => ({ ok: true, changed: [], refused: [], warnings: [] }),
    status: () => sample,
    stop: () => void server.close(),
  });
  const json = await microperimeter('status', '--json', '--socket', socket);
  t.match(json, { code: 0, err: '' });
  t.same(JSON.parse(json.out), sample);
  const words = await microperimeter('status', '--socket', socket);
  t.match(words, { code: 0, err: '', out: /^microperimeter 0\.1\.0 {2}REDIRECTING/ });
  t.notMatch(words.out, '\u001b', 'no colours off a terminal');
  sample = { state: 'starting' };
  t.match(await microperimeter('status', '--socket', socket), { code: 8, out: /^starting: / });
  const file = write('second.yaml', config('/x', `control: { socket: ${socket} }\n`));
  t.match(await microperimeter('run', '--config', file), {
    code: 7,
    err: /^microperimeter: an agent is running already: .*\n {2}Stop it first/,
  });
  t.match(await microperimeter('stop', '--socket', socket), { code: 0, err: '' });
  t.match(await microperimeter('status', '--socket', socket), { code: 6 });
});

t.test('the launcher says what is missing', async (t) => {
  t.match(spawnSync('bin/microperimeter', ['version'], { encoding: 'utf8' }).stdout, /^0\.1\.0/);
  const copy = write('microperimeter', readFileSync('bin/microperimeter', 'utf8'));
  chmodSync(copy, 0o755);
  const result = spawnSync(copy, ['version'], { encoding: 'utf8' });
  t.match(result, { status: 4, stderr: /run npm ci && npm run build/ });
  t.equal(version, JSON.parse(readFileSync('package.json', 'utf8')).version);
});

t.test('every error has its exit code', async (t) => {
  const system = (code: SystemError['code']) => new SystemError(code, 'words');
  const control = (code: ControlError['code']) => new ControlError(code, 'words', 'advice');
  const rows: [unknown, number][] = [
    [new Error('words'), ExitCode.Unexpected],
    ['a string', ExitCode.Unexpected],
    [undefined, ExitCode.Unexpected],
    [Object.assign(new Error('words'), { code: 'toString' }), ExitCode.Unexpected],
    [new ConfigError('f', []), ExitCode.Usage],
    [new CredentialError('words', 'advice'), ExitCode.Usage],
    [callFailed('bpf', 1), ExitCode.NotPermitted],
    [callFailed('bpf', 22), ExitCode.Unexpected],
    [new UnsupportedFeature('TCX', '6.6', 22), ExitCode.Unsupported],
    [new VerifierError('egress', 13, 'log'), ExitCode.Unsupported],
    [system('ERR_NO_TUN_DEVICE'), ExitCode.Unsupported],
    [system('ERR_TUN_BUSY'), ExitCode.Network],
    [system('ERR_NO_INTERFACE'), ExitCode.Network],
    [system('ERR_INTERFACE_KIND'), ExitCode.Network],
    [system('ERR_PORT_IN_USE'), ExitCode.Network],
    [system('ERR_NO_ROUTE'), ExitCode.Network],
    [control('ERR_NOT_RUNNING'), ExitCode.NotRunning],
    [control('ERR_ALREADY_RUNNING'), ExitCode.AlreadyRunning],
    [control('ERR_CONTROL_NOT_PERMITTED'), ExitCode.NotPermitted],
    [control('ERR_CONTROL_SOCKET'), ExitCode.Unexpected],
  ];
  for (const [error, code] of rows) t.equal(exitCodeOf(error), code, String(error));
  for (const code of Object.values(ExitCode)) t.match(exitCodeHelp, new RegExp(`\n {2}${code} `));
});

t.test('credentials: what a wrong file is told', async (t) => {
  const client = certificates.leaf('client', authority, 'DNS:agent');
  const other = certificates.leaf('other', authority, 'DNS:other');
  const target = {
    url: 'https://10.9.0.4/',
    address: 0x0a090004,
    port: 443,
    ca: authority.certificateFile,
    pin: '',
    clientCertificate: '',
    clientKey: '',
  };
  const clientCertificate = client.certificateFile;
  t.same(loadCredentials(target), {
    ca: authority.certificate,
    pin: '',
    clientCertificate: '',
    clientKey: '',
  });
  t.match(loadCredentials({ ...target, clientCertificate, clientKey: client.keyFile }), {
    clientCertificate: client.certificate,
    clientKey: client.key,
  });
  const garbage = write('garbage.pem', 'garbage');
  chmodSync(garbage, 0o600);
  const open = write('open.key', client.key);
  chmodSync(open, 0o644);
  const rows: [object, RegExp][] = [
    [{ ca: garbage }, /garbage.pem \(telemetry.ca\) holds no certificate/],
    [{ ca: '/nonexistent' }, /\/nonexistent \(telemetry.ca\) cannot be read: ENOENT/],
    [{ clientCertificate, clientKey: garbage }, /garbage.pem .* holds no private key/],
    [{ clientCertificate, clientKey: open }, /open.key .* is open to every user/],
    [{ clientCertificate, clientKey: other.keyFile }, /other.key is not the key of .*client.pem/],
  ];
  for (const [change, message] of rows) {
    t.throws(() => loadCredentials({ ...target, ...change }), { message, advice: /\.$/ });
  }
});
