/** The commands as commander knows them, flat: completion and the manual page are made of it. */
import type { Command } from 'commander';

export type Verb = {
  /** As it is typed, such as `rule append`; '' for the program itself. */
  readonly path: string;
  readonly description: string;
  readonly usage: string;
  readonly options: readonly {
    /** As in `--config <file>`. */
    readonly flags: string;
    readonly long: string;
    readonly takesValue: boolean;
    readonly description: string;
    /** Empty when there is none, or it is said by the absence of the option. */
    readonly standard: string;
  }[];
  readonly arguments: readonly string[];
  readonly verbs: readonly string[];
};

/** Those that are shown, in the order of `--help`, the program first. */
export function verbsOf(program: Command): Verb[] {
  return walk(program, '');
}

function walk(command: Command, path: string): Verb[] {
  const help = command.createHelp();
  const inner = help.visibleCommands(command).filter((one) => one.name() !== 'help');
  const verb: Verb = {
    path,
    description: command.description(),
    usage: command.usage(),
    options: help.visibleOptions(command).map((option) => ({
      flags: option.flags,
      long: option.long ?? '',
      takesValue: option.required || option.optional,
      description: option.description,
      standard: typeof option.defaultValue === 'string' ? option.defaultValue : '',
    })),
    arguments: command.registeredArguments.map((argument) => argument.name()),
    verbs: inner.map((one) => one.name()),
  };
  const pathOf = (one: Command) => (path === '' ? one.name() : `${path} ${one.name()}`);
  return [verb, ...inner.flatMap((one) => walk(one, pathOf(one)))];
}
