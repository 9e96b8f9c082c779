/**
 * The command line. Every verb is a file in commands/; here are the options, the words on standard
 * error and the exit codes. An error is one sentence and what to do about it, never a stack trace
 * (the log has it at level debug).
 */
import { Command, CommanderError } from 'commander';
import { defaults } from '../engine/config.ts';
import { apply, confirm, rollback } from './commands/apply.ts';
import { capture } from './commands/capture.ts';
import { check } from './commands/check.ts';
import { diag } from './commands/diag.ts';
import { doctor } from './commands/doctor.ts';
import { defaultConfigFile, explain } from './commands/explain.ts';
import { flows } from './commands/flows.ts';
import { arm, disarm, guardStatus } from './commands/guard.ts';
import { lab } from './commands/lab.ts';
import { captureLearn } from './commands/learn.ts';
import { release } from './commands/release.ts';
import { reload } from './commands/reload.ts';
import { run } from './commands/run.ts';
import { schema } from './commands/schema.ts';
import { status } from './commands/status.ts';
import { stop } from './commands/stop.ts';
import { ConfigError, formatProblem } from './config/parse.ts';
import { ExitCode, exitCodeHelp, exitCodeOf } from './exit-codes.ts';
import { addReferenceVerbs } from './reference-verbs.ts';
import { groupVerbs } from './shell/groups.ts';
import { addShellVerbs } from './shell/verbs.ts';
import { version } from './version.ts';

const socketOption = [
  '--socket <path>',
  'control socket of the agent',
  defaults.control.socket,
] as const;

const reclassifyOption = [
  '--reclassify',
  'decide connections that are known again, too, within seconds',
  false,
] as const;

function buildProgram(done: (code: number) => void): Command {
  const program = new Command('microperimeter')
    .description("Redirects a workload's IPv4 traffic through a firewall and back.")
    .exitOverride()
    .configureOutput({
      outputError: (text, write) => write(text.replace(/^error: /, 'microperimeter: ')),
    })
    .showHelpAfterError('(microperimeter --help tells what there is)')
    .addHelpText('after', exitCodeHelp);
  program
    .command('run')
    .description('run the agent in the foreground')
    .requiredOption('--config <file>', 'configuration file')
    .action(async (options) => done(await run(options)));
  program
    .command('check')
    .description('check a configuration file')
    .argument('<file>', 'configuration file')
    .option('--notes', 'what is worth a look and may well be meant, too', false)
    .option('--json', 'as JSON', false)
    .action((file, options) => done(check(file, options)));
  program
    .command('explain')
    .description('which rule decides about a connection, and why')
    .argument('[connection...]', 'such as: tcp 10.1.0.9:41000 to 10.2.0.7:5432')
    .option('--config <file>', 'configuration file', defaultConfigFile)
    .option('--direction <direction>', 'egress: the first end is this host; ingress: the second')
    .option('--local <addresses>', "CIDRs that count as this host's, with commas between")
    .option('--pcap <file>', 'every connection of a capture')
    .option('--all', 'every rule that does not match', false)
    .option('--json', 'as JSON', false)
    .action(async (words, options) => done(await explain(words, options)));
  program
    .command('status')
    .description('what the running agent says about itself')
    .option('--json', 'as JSON', false)
    .option(...socketOption)
    .action(async (options) => done(await status(options)));
  program
    .command('top')
    .description('the running agent live: throughput, flows, rules, drops')
    .option('--interval <seconds>', 'between two pictures', '1')
    .option('--alerts <file>', "Suricata's eve.json, to show beside the flows")
    .option(...socketOption)
    .action(async (options) => {
      // React and ink take a tenth of a second to load, which no other command should.
      const { top } = await import('./commands/top.ts');
      done(await top(options));
    });
  const packets = program
    .command('capture')
    .description('packets as the agent sees them, with what becomes of them and why')
    .option('-w, --write <file>', 'pcapng, for Wireshark and tshark; - is standard output')
    .option('--filter <expression>', 'as tcpdump has it; of the inner packet, too (needs libpcap)')
    .option('--point <points>', 'before, tunnel, after: where it is seen', 'before,tunnel,after')
    .option('--direction <direction>', 'egress or ingress')
    .option('--dropped', 'only what was dropped', false)
    .option('--rule <name>', 'only what this rule decided')
    .option('--snaplen <bytes>', 'of each packet at most', '262144')
    .option('--count <number>', 'end after so many packets')
    .option('--duration <time>', 'end after this time, such as 30s')
    .option('--ring-files <number>', 'write a ring of so many files')
    .option('--file-size <megabytes>', 'of each file of the ring', '100')
    .option(...socketOption)
    .action(async (options) => done(await capture(options)));
  packets
    .command('learn')
    .description("another agent's GENEVE option, read off a capture of it")
    .argument('<file>', 'capture file (pcap)')
    .option('--port <port>', "the tunnel's UDP port", '6081')
    .option('--json', 'as JSON', false)
    .action((file, options) => done(captureLearn(file, options)));
  program
    .command('doctor')
    .description('what of this host or the way to its firewalls is not as it should be')
    .option('--config <file>', 'configuration file', defaultConfigFile)
    .option('--json', 'as JSON', false)
    .action(async (options) => done(await doctor(options)));
  program
    .command('reload')
    .description('the running agent reads its configuration again')
    .option(...reclassifyOption)
    .option('--json', 'as JSON', false)
    .option(...socketOption)
    .action(async (options) => done(await reload(options)));
  program
    .command('apply')
    .description('put a configuration on trial; it is rolled back unless you confirm it')
    .argument('<file>', 'configuration file')
    .option('--confirm <time>', 'how long the trial is, such as 60s or 5m', '60s')
    .option(...reclassifyOption)
    .option(...socketOption)
    .action(async (file, options) => done(await apply(file, options)));
  program
    .command('confirm')
    .description("what is on trial stays, and becomes the agent's configuration file")
    .option(...socketOption)
    .action(async (options) => done(await confirm(options)));
  program
    .command('rollback')
    .description('end the trial now: what was in force before is again')
    .option(...socketOption)
    .action(async (options) => done(await rollback(options)));
  program
    .command('stop')
    .description('stop the running agent and wait until it is gone')
    .option(...socketOption)
    .action(async (options) => done(await stop(options)));
  program
    .command('flows')
    .description('the flow table of the running agent')
    .option('--sort <key>', 'bytes, packets, age or idle', 'bytes')
    .option('--limit <number>', 'how many', '50')
    .option('--protocol <name>', 'tcp, udp, icmp or a number')
    .option('--address <address>', 'at either end')
    .option('--port <port>', 'at either end')
    .option('--verdict <verdict>', 'redirect, pass, drop, pass-established, …')
    .option('--watch', 'again every second', false)
    .option('--json', 'as JSON', false)
    .option(...socketOption)
    .action(async (options) => done(await flows(options)));
  addGuard(program, done);
  program
    .command('release')
    .description('remove what a dead agent with onAgentFailure: drop still holds')
    .action(() => done(release()));
  program
    .command('schema', { hidden: true })
    .description('print the JSON Schema of the configuration file')
    .action(() => done(schema()));
  program
    .command('version')
    .description('print the version')
    .action(() => {
      process.stdout.write(`${version}\n`);
    });
  program
    .command('diag')
    .description('pack what somebody needs who is to help: status, configuration, host; no secrets')
    .option('--out <file>', 'the archive; microperimeter-diag-TIME.tar.gz unless told')
    .option('--config <file>', 'configuration file', defaultConfigFile)
    .option(...socketOption)
    .action(async (options) => done(await diag(options)));
  program
    .command('lab')
    .description('see it at work, in network namespaces; in a source tree only')
    .argument('[option...]', 'of scripts/lab, as they are')
    .allowUnknownOption()
    .action(async (words) => done(await lab(words)));
  addReferenceVerbs(program, done);
  addShellVerbs(program);
  groupVerbs(program);
  return program;
}

function addGuard(program: Command, done: (code: number) => void): void {
  const guard = program
    .command('guard')
    .description('with policy.onBoot: drop, what the kernel drops until the agent is ready');
  guard
    .command('arm')
    .description('drop what would be redirected; for boot, before the network is up')
    .option('--config <file>', 'configuration file', defaultConfigFile)
    .option('--wait <duration>', 'for interfaces that are not there yet', '0')
    .action(async (options) => done(await arm(options)));
  guard
    .command('disarm')
    .description('let traffic flow, whether there is an agent or not')
    .action(() => done(disarm()));
  guard
    .command('status')
    .description('whether it is armed, and where')
    .option('--json', 'as JSON', false)
    .action((options) => done(guardStatus(options)));
}

/** More than a person mends in one go; a generated file may have one in each of its rules. */
const shownProblems = 100;

function report(error: unknown): void {
  if (error instanceof ConfigError) {
    const count = error.problems.length;
    const lines = error.problems
      .slice(0, shownProblems)
      .map((problem) => `${formatProblem(error.file, problem)}\n`);
    if (count > shownProblems) lines.push(`and ${count - shownProblems} more\n`);
    const headline = count === 1 ? 'a problem' : `${count} problems`;
    process.stderr.write(`microperimeter: ${headline} with the configuration:\n${lines.join('')}`);
    return;
  }
  const message = error instanceof Error ? error.message : String(error);
  const advice = (error as { advice?: unknown } | null)?.advice;
  const more = typeof advice === 'string' && advice !== '' ? `  ${advice}\n` : '';
  process.stderr.write(`microperimeter: ${message}\n${more}`);
}

async function main(): Promise<number> {
  let code: number = ExitCode.Ok;
  const program = buildProgram((result) => {
    code = result;
  });
  try {
    // An arrow looks like an option.
    await program.parseAsync(process.argv.map((word) => (word === '->' ? 'to' : word)));
    return code;
  } catch (error) {
    // commander has printed its own; asked-for help has exit code 0.
    if (error instanceof CommanderError) return error.exitCode === 0 ? ExitCode.Ok : ExitCode.Usage;
    report(error);
    return exitCodeOf(error);
  }
}

process.on('uncaughtException', (error) => {
  report(error);
  process.exit(ExitCode.Unexpected);
});
// Standard output is written synchronously on Linux: nothing is lost by leaving at once.
// No await out here: a bundle is a script, which has none.
void main().then((code) => process.exit(code));
