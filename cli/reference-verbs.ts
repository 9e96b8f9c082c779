/** The verbs of the reference agent, for those who come from it; names and options are its. */
import type { Command } from 'commander';
import { defaults } from '../engine/config.ts';
import {
  configure,
  disable,
  dumpConfig,
  enable,
  exportConfig,
  healthCheck,
  importConfig,
} from './commands/configure.ts';
import { defaultConfigFile } from './commands/explain.ts';
import { ruleAdd, ruleDelete, ruleList } from './commands/rule.ts';

const configOption = ['--config <file>', 'configuration file', defaultConfigFile] as const;
const otherFile = ['--configfile <file>', 'the other file'] as const;

export function addReferenceVerbs(program: Command, done: (code: number) => void): void {
  program
    .command('configure')
    .description('name the firewall, and what is never redirected, in the configuration file')
    .option(
      '--fwip <address>',
      'of the firewall; its telemetry is at https://ADDRESS:443/v1/metrics',
    )
    .option('--fwsubnet <cidr>', 'answers may come from here')
    .option(
      '--exception <address>',
      'one more that is never redirected: CIDR or PROTOCOL:CIDR:PORT',
    )
    .option('--ca <file>', 'authority of the telemetry certificate (PEM)')
    .option('--pin <hash>', 'or the public key itself: sha256/BASE64')
    .option(...configOption)
    .action(async (options) => done(await configure(options)));
  program
    .command('enable')
    .description('redirect these interfaces, too; your SSH session is excepted first')
    .argument('<interface...>')
    .option(...configOption)
    .action(async (names, options) => done(await enable(names, options)));
  program
    .command('disable')
    .description('redirect these interfaces no more')
    .argument('<interface...>')
    .option(...configOption)
    .action(async (names, options) => done(await disable(names, options)));
  addRules(program, done);
  program
    .command('health_check')
    .description('OK, or why the running agent does not redirect')
    .option('--socket <path>', 'control socket of the agent', defaults.control.socket)
    .action(async (options) => done(await healthCheck(options)));
  program
    .command('dump-config')
    .description('print the configuration file')
    .option(...configOption)
    .action(async (options) => done(await dumpConfig(options)));
  program
    .command('export-config')
    .description('copy the configuration file to another')
    .requiredOption(...otherFile)
    .option(...configOption)
    .action(async (options) => done(await exportConfig(options)));
  program
    .command('import-config')
    .description('put another file in the place of the configuration file')
    .requiredOption(...otherFile)
    .option(...configOption)
    .action(async (options) => done(await importConfig(options)));
}

function addRules(program: Command, done: (code: number) => void): void {
  const rule = program.command('rule').description('the rules of the configuration file');
  rule
    .command('list')
    .description('as they are written, numbered from 1')
    .option('--json', 'as JSON', false)
    .option(...configOption)
    .action((options) => done(ruleList(options)));
  const adding = (name: string, description: string) =>
    rule
      .command(name)
      .description(description)
      .requiredOption('--action <action>', 'redirect, pass or drop')
      .option('--name <name>', 'by which it is known in status, logs and metrics')
      .option('--direction <direction>', 'who opens the connection: egress, ingress or both')
      .option('--proto <protocol>', 'any, tcp, udp, icmp or a number')
      .option('--remoteip <addresses>', 'of the far end: CIDR, A-B or $set, commas between')
      .option('--remoteport <ports>', 'port, A-B or $set, commas between')
      .option('--localip <addresses>', "of this host's end")
      .option('--localport <ports>', "of this host's end")
      .option(...configOption);
  adding('append', 'a rule after the others').action(async (options) =>
    done(await ruleAdd(options)),
  );
  adding('insert', 'a rule before the one of that number')
    .requiredOption('--index <number>', 'from 1')
    .action(async (options) => done(await ruleAdd(options, options.index)));
  rule
    .command('delete')
    .description('the rule of that number')
    .requiredOption('--index <number>', 'from 1')
    .option(...configOption)
    .action(async (options) => done(await ruleDelete(options.index, options)));
}
