/** Under which heading, and in which order, `--help` shows the commands. */
import type { Command } from 'commander';

const groups: readonly (readonly [heading: string, verbs: readonly string[]])[] = [
  [
    'See what it does, and why:',
    ['status', 'top', 'flows', 'explain', 'capture', 'doctor', 'health_check', 'diag'],
  ],
  [
    'Run it, change it, without being locked out:',
    ['check', 'run', 'apply', 'confirm', 'rollback', 'reload', 'stop', 'release', 'guard'],
  ],
  [
    'Edit the configuration file:',
    ['configure', 'enable', 'disable', 'rule', 'dump-config', 'export-config', 'import-config'],
  ],
  ['Try and learn:', ['lab', 'completion', 'man', 'schema', 'version']],
];

const order = groups.flatMap(([, verbs]) => verbs);

/** Puts the commands in order, too. Throws for one that has no group. */
export function groupVerbs(program: Command): void {
  for (const command of program.commands) {
    const group = groups.find(([, verbs]) => verbs.includes(command.name()));
    if (group === undefined) throw new Error(`${command.name()} has no group`);
    command.helpGroup(group[0]);
  }
  program.commandsGroup(groups.at(-1)?.[0] ?? '').helpCommand(true);
  // commander shows groups, and commands in them, in the order of this list.
  (program.commands as Command[]).sort((a, b) => order.indexOf(a.name()) - order.indexOf(b.name()));
}
