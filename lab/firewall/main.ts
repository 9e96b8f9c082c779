/**
 * The built-in firewall as a program:
 *
 *     node dist/lab/firewall/main.js --encapsulation geneve --listen 10.9.0.4:6081 \
 *       --policy rules.yaml --telemetry-port 443 --cert fw.pem --key fw.key
 *
 * Events go to standard output, one JSON object a line. Commands come on standard input, a line
 * each, and are answered by a `done` or `error` event; the end of standard input ends the program.
 *
 *     telemetry ok | refuse | hang | status 500 | slow MS | certificate CERT KEY
 *     tunnel loss PERCENT | duplicate PERCENT | reorder PERCENT | seed NUMBER | clear
 *     policy FILE
 */
import { createInterface } from 'node:readline';
import { Worker } from 'node:worker_threads';
import { Command, Option } from 'commander';
import type { DataPathCommand, DataPathOptions } from './data-path.worker.ts';
import type { Encapsulation } from './decode.ts';
import { type Policy, readPolicy } from './policy.ts';
import type { AnswerStyle } from './socket.ts';
import { TelemetryEndpoint } from './telemetry.ts';

type Options = {
  readonly encapsulation: Encapsulation;
  readonly listen: string;
  readonly answer: AnswerStyle;
  readonly policy?: string;
  readonly telemetryPort: number;
  readonly cert: string;
  readonly key: string;
  /** False with `--no-data-path`: another firewall carries the packets. */
  readonly dataPath: boolean;
};

const options = new Command('firewall')
  .description('A firewall stand-in: it hair-pins tunnelled packets and takes telemetry.')
  .addOption(
    new Option('--encapsulation <kind>')
      .choices(['geneve', 'gwlb', 'gcp', 'vxlan'])
      .default('geneve'),
  )
  .addOption(
    new Option('--answer <style>', 'from our port, or as a gateway appliance')
      .choices(['plain', 'gateway'])
      .default('plain'),
  )
  .requiredOption('--listen <address:port>', 'where tunnel datagrams come in')
  .option('--policy <file>', 'allow and deny lists, YAML')
  .option('--telemetry-port <port>', 'HTTPS port on the same address', Number, 443)
  .requiredOption('--cert <file>', 'certificate of the telemetry endpoint')
  .requiredOption('--key <file>', 'and its key')
  .option('--no-data-path', 'telemetry only')
  .parse()
  .opts<Options>();

function tell(event: object): void {
  process.stdout.write(`${JSON.stringify({ at: Date.now(), ...event })}\n`);
}

function fail(error: Error): never {
  tell({ event: 'error', message: error.message });
  process.exit(1);
}

const [address = '', port = ''] = options.listen.split(':');
const nothingDenied: Policy = { allow: [], deny: [] };

function startDataPath(policy: Policy): Worker {
  const workerData: DataPathOptions = {
    encapsulation: options.encapsulation,
    address,
    port: Number(port),
    answer: options.answer,
    policy,
  };
  const worker = new Worker(new URL('./data-path.worker.js', import.meta.url), { workerData });
  worker.on('message', tell);
  worker.on('error', fail);
  return worker;
}

async function main(): Promise<void> {
  const policy = options.policy === undefined ? nothingDenied : readPolicy(options.policy);
  const { telemetryPort, cert, key } = options;
  const endpoint = new TelemetryEndpoint(address, telemetryPort, cert, key, tell);
  await endpoint.listen();
  tell({ event: 'telemetry-listening', address, port: telemetryPort });
  const worker = options.dataPath ? startDataPath(policy) : undefined;
  const input = createInterface({ input: process.stdin });
  for await (const line of input) {
    try {
      await obey(line.trim(), endpoint, worker);
    } catch (error) {
      tell({ event: 'error', command: line, message: (error as Error).message });
    }
  }
  process.exit(0);
}

async function obey(
  line: string,
  endpoint: TelemetryEndpoint,
  worker: Worker | undefined,
): Promise<void> {
  const [subject = '', verb = '', ...rest] = line.split(/\s+/);
  if (subject === 'telemetry') {
    await obeyTelemetry(endpoint, verb, rest);
  } else if (worker === undefined) {
    throw new Error(`without a data path: ${line}`);
  } else if (subject === 'tunnel') {
    await ask(worker, tunnelCommand(verb, Number(rest[0])));
  } else if (subject === 'policy') {
    readPolicy(verb);
    await ask(worker, { kind: 'policy', path: verb });
  } else {
    throw new Error(`unknown command: ${line}`);
  }
  tell({ event: 'done', command: line });
}

async function obeyTelemetry(
  endpoint: TelemetryEndpoint,
  verb: string,
  [first = '', second = '']: readonly string[],
): Promise<void> {
  if (verb === 'certificate') endpoint.setCertificate(first, second);
  else if (verb === 'status') await endpoint.setMood({ kind: 'status', status: Number(first) });
  else if (verb === 'slow') await endpoint.setMood({ kind: 'slow', ms: Number(first) });
  else if (verb === 'ok' || verb === 'refuse' || verb === 'hang') {
    await endpoint.setMood({ kind: verb });
  } else throw new Error(`unknown telemetry command: ${verb}`);
}

function tunnelCommand(verb: string, value: number): DataPathCommand {
  if (verb === 'clear') {
    return { kind: 'impair', impairment: { loss: 0, duplicate: 0, reorder: 0 } };
  }
  if (!Number.isFinite(value)) throw new Error(`tunnel ${verb}: a number expected`);
  if (verb === 'seed') return { kind: 'seed', seed: value };
  if (verb === 'loss' || verb === 'duplicate' || verb === 'reorder') {
    return { kind: 'impair', impairment: { [verb]: value } };
  }
  throw new Error(`unknown tunnel command: ${verb}`);
}

/** Returns when the data path has taken the command. */
function ask(worker: Worker, command: DataPathCommand): Promise<void> {
  return new Promise((resolve) => {
    const listen = (event: { event: string }) => {
      if (event.event !== 'taken') return;
      worker.off('message', listen);
      resolve();
    };
    worker.on('message', listen);
    worker.postMessage(command);
  });
}

main().catch(fail);
