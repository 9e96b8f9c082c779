/** `completion` and `man`, and the examples below each command's `--help`. */
import type { Command } from 'commander';
import { exitCodeHelp } from '../exit-codes.ts';
import { UsageError } from '../usage-error.ts';
import { version } from '../version.ts';
import { completionFor, type Shell, shells } from './completion.ts';
import { examples } from './examples.ts';
import { manualPage } from './manual.ts';
import { verbsOf } from './tree.ts';

/** The last of all: it looks at the others. */
export function addShellVerbs(program: Command): void {
  program
    .command('completion')
    .description('print what a shell needs to complete commands and options')
    .argument('<shell>', shells.join(', '))
    .action((shell: string) => {
      if (!shells.includes(shell as Shell)) {
        throw new UsageError(`completion is for ${shells.join(', ')}, not ${shell}`);
      }
      process.stdout.write(completionFor(shell as Shell, verbsOf(program)));
    });
  program
    .command('man')
    .description('print the manual page, for man(1) to read')
    .action(() => {
      process.stdout.write(manualPage(verbsOf(program), version, exitCodeHelp));
    });
  addExamples(program, '');
}

function addExamples(command: Command, path: string): void {
  const taught = (examples[path] ?? []).map((line) => `\n  microperimeter ${line}`);
  if (taught.length > 0) command.addHelpText('after', `\nExamples:${taught.join('')}`);
  for (const inner of command.commands) addExamples(inner, `${path} ${inner.name()}`.trim());
}
