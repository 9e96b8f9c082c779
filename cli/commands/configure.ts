/**
 * The verbs of those who come from the reference agent: `configure`, `enable`, `disable`, `rule`,
 * `dump-config`, `import-config`, `export-config`, `health_check`. They edit the one configuration
 * file and have a running agent read it again.
 */
import { request } from '../../control/client.ts';
import { ControlError } from '../../control/errors.ts';
import type { ReloadAnswer } from '../../control/server.ts';
import type { Settings } from '../../engine/config.ts';
import { formatAddress } from '../../parsers/text.ts';
import { editConfig, listAt } from '../config/edit.ts';
import { readConfigFile } from '../config/file.ts';
import type { ReadConfig } from '../config/parse.ts';
import { contains, formatException } from '../config/text.ts';
import { readText, writeAtomically } from '../config/write.ts';
import { ExitCode } from '../exit-codes.ts';
import { describeSession, exceptionFor, findSshSession, type SshSession } from '../ssh-session.ts';
import { isComplete, readStatus } from '../status-of-agent.ts';
import { UsageError } from '../usage-error.ts';
import { answerTimeoutMs, drawAnswer } from './reload.ts';

type FileOption = { readonly config: string };

export type ConfigureOptions = FileOption & {
  readonly fwip?: string;
  readonly fwsubnet?: string;
  readonly exception?: string;
  readonly ca?: string;
  readonly pin?: string;
};

const newFile = 'version: 1\n';

/** Makes the file when there is none: then `fwip` and `ca` or `pin` are needed. */
export async function configure(options: ConfigureOptions): Promise<number> {
  const { ca, config: file, exception, fwip, fwsubnet, pin } = options;
  if ([ca, exception, fwip, fwsubnet, pin].every((value) => value === undefined)) {
    throw new UsageError('configure takes --fwip, --fwsubnet, --exception, --ca or --pin');
  }
  const read = editConfig(
    file,
    (document) => {
      const set = (path: (string | number)[], value: string | undefined) => {
        if (value !== undefined) document.setIn(['firewalls', 0, ...path], value);
      };
      if (document.getIn(['firewalls', 0]) === undefined) {
        const firewall = { name: 'firewall', address: fwip ?? '', telemetry: {} };
        document.set('firewalls', document.createNode([firewall]));
      }
      set(['address'], fwip);
      set(['telemetry', 'url'], fwip && `https://${fwip}:443/v1/metrics`);
      set(['returnFrom'], fwsubnet);
      for (const [key, value, other] of [
        ['ca', ca, 'pin'],
        ['pin', pin, 'ca'],
      ] as const) {
        if (value === undefined) continue;
        set(['telemetry', key], value);
        document.deleteIn(['firewalls', 0, 'telemetry', other]);
      }
      if (exception !== undefined) {
        listAt(document, ['workload', 'management']).add(document.createNode(exception));
      }
    },
    newFile,
  );
  return reloadIfRunning(file, read);
}

/** Before the first interface is named, the SSH session that asks for it is excepted. */
export async function enable(names: readonly string[], { config }: FileOption): Promise<number> {
  const session = findSshSession();
  let excepted: string | undefined;
  const read = editConfig(config, (document) => {
    const list = listAt(document, ['workload', 'interfaces']);
    const there = list.toJSON() as unknown[];
    for (const name of names) if (!there.includes(name)) list.add(document.createNode(name));
    excepted = session && missingException(config, session);
    if (excepted !== undefined) {
      const node = document.createNode(excepted);
      node.comment = ' the SSH session that enabled redirection';
      listAt(document, ['workload', 'management']).add(node);
    }
  });
  if (session !== undefined) {
    const words = excepted === undefined ? 'is excepted already' : `is excepted now: ${excepted}`;
    process.stdout.write(`your SSH session ${describeSession(session)} ${words}\n`);
  }
  return reloadIfRunning(config, read);
}

/** Undefined when the file has one for it. */
function missingException(file: string, session: SshSession): string | undefined {
  const { management } = readConfigFile(file).config.workload;
  const isCovered = management.some(
    ({ port, prefix }) =>
      contains(prefix, session.client) && (port === 0 || port === session.serverPort),
  );
  return isCovered ? undefined : formatException(exceptionFor(session));
}

export async function disable(names: readonly string[], { config }: FileOption): Promise<number> {
  const read = editConfig(config, (document) => {
    const list = listAt(document, ['workload', 'interfaces']);
    const there = list.toJSON() as unknown[];
    for (const name of names) {
      if (!there.includes(name)) throw new UsageError(`${name} is not among the interfaces`);
    }
    if (there.length === names.length) {
      throw new UsageError(
        'none would be left, which means the interface of the default route: ' +
          'to redirect nothing, say microperimeter stop',
      );
    }
    list.items = list.items.filter((_, index) => !names.includes(String(there[index])));
  });
  return reloadIfRunning(config, read);
}

export async function dumpConfig({ config }: FileOption): Promise<number> {
  readConfigFile(config);
  process.stdout.write(readText(config));
  return ExitCode.Ok;
}

type CopyOptions = FileOption & { readonly configfile: string };

export async function exportConfig({ config, configfile }: CopyOptions): Promise<number> {
  readConfigFile(config);
  writeAtomically(configfile, readText(config), 0o600);
  process.stdout.write(`${configfile} has what ${config} has\n`);
  return ExitCode.Ok;
}

export async function importConfig({ config, configfile }: CopyOptions): Promise<number> {
  const read = readConfigFile(configfile);
  writeAtomically(config, readText(configfile), 0o600);
  return reloadIfRunning(config, read);
}

/** `OK` and 0, as of the reference agent, or why not and NotRedirecting. */
export async function healthCheck({ socket }: { socket: string }): Promise<number> {
  const status = await readStatus(socket);
  const isGood = status.state === 'redirecting';
  const why = isComplete(status) ? status.cause : 'the agent is not up yet';
  process.stdout.write(isGood ? 'OK\n' : `${status.state}: ${why}\n`);
  return isGood ? ExitCode.Ok : ExitCode.NotRedirecting;
}

/** The file is written by now; 2 when the agent cannot take it without a restart. */
export async function reloadIfRunning(
  file: string,
  { config: settings, warnings }: Pick<ReadConfig, 'warnings'> & { config: Settings },
): Promise<number> {
  for (const { message } of warnings) process.stderr.write(`microperimeter: warning: ${message}\n`);
  const { firewalls } = settings;
  const through = firewalls.map(({ address, name }) => `${name} (${formatAddress(address)})`);
  try {
    const answer = await request(settings.control.socket, 'POST', '/reload', answerTimeoutMs);
    const result = answer.body as ReloadAnswer;
    process.stdout.write(`written to ${file}\n${drawAnswer(result, 'reloaded')}`);
    return result.ok ? ExitCode.Ok : ExitCode.Usage;
  } catch (error) {
    if (!(error instanceof ControlError) || error.code !== 'ERR_NOT_RUNNING') throw error;
    const words = `no agent is running; the next start redirects through ${through.join(', ')}`;
    process.stdout.write(`written to ${file}; ${words}\n`);
    return ExitCode.Ok;
  }
}
