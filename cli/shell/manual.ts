/** The manual page, in the language of man(7), from the same commands as `--help`. */
import { examples } from './examples.ts';
import type { Verb } from './tree.ts';

/** @param exitCodes as `--help` shows them */
export function manualPage(verbs: readonly Verb[], version: string, exitCodes: string): string {
  const [program, ...others] = verbs;
  const codes = [...exitCodes.matchAll(/^ {2}(\d+) {2}(.*)$/gm)];
  return [
    `.TH MICROPERIMETER 1 2026-11-25 "microperimeter ${version}" "User Commands"`,
    '.SH NAME',
    'microperimeter \\- redirect a workload\\(aqs traffic through a firewall and back',
    '.SH SYNOPSIS',
    '.B microperimeter',
    '.I command',
    '.RI [ options ]',
    '.SH DESCRIPTION',
    roff(program?.description ?? ''),
    '.SH COMMANDS',
    ...others.filter(({ verbs: inner }) => inner.length === 0).flatMap(command),
    '.SH EXIT STATUS',
    ...codes.flatMap(([, code = '', words = '']) => ['.TP', `.B ${code}`, roff(words)]),
    '.SH FILES',
    '.TP',
    '.I /etc/microperimeter/config.yaml',
    'The configuration.',
    '.TP',
    '.I /run/microperimeter/control.sock',
    'The control socket of the running agent.',
    '',
  ].join('\n');
}

function command({ description, options, path, usage }: Verb): string[] {
  const taught = (examples[path] ?? []).map((line) => `microperimeter ${line}`);
  return [
    `.SS ${roff(path)} ${roff(usage.replace('[options] ', '').replace('[options]', ''))}`.trim(),
    roff(`${description.charAt(0).toUpperCase()}${description.slice(1)}.`),
    ...options
      .filter(({ long }) => long !== '--help')
      .flatMap(({ description: words, flags, standard }) => {
        const rest = standard === '' ? '' : ` (default: ${standard})`;
        return ['.TP', `.B ${roff(flags)}`, roff(`${words}${rest}`)];
      }),
    ...(taught.length === 0 ? [] : ['.PP', '.nf', ...taught.map(roff), '.fi']),
  ];
}

/** A dot or an apostrophe at the beginning would be a request; hyphens are to be copied. */
function roff(text: string): string {
  const safe = text
    .replaceAll('\\', '\\e')
    .replaceAll('-', '\\-')
    .replaceAll("'", '\\(aq')
    .replaceAll('…', '...');
  return /^[.']/.test(safe) ? `\\&${safe}` : safe;
}
