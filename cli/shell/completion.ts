/** Completion for shells: commands, their options, and files wherever a value or file is due. */
import type { Verb } from './tree.ts';

export const shells = ['bash', 'zsh', 'fish'] as const;
export type Shell = (typeof shells)[number];

const name = 'microperimeter';

export function completionFor(shell: Shell, verbs: readonly Verb[]): string {
  if (shell === 'bash') return bash(verbs);
  return shell === 'zsh' ? zsh(verbs) : fish(verbs);
}

function words({ options, verbs }: Verb): string {
  return [...verbs, ...options.map(({ long }) => long)].join(' ');
}

/** The longest path that the words on the line begin with, as both shells walk it. */
function cases(verbs: readonly Verb[]): string {
  return verbs
    .map(
      (verb) => `    '${verb.path}') words='${words(verb)}'; groups='${verb.verbs.join(' ')}' ;;`,
    )
    .join('\n');
}

function bash(verbs: readonly Verb[]): string {
  return `# Completion of ${name} for bash: made by ${name} completion bash
_${name}() {
  local current=\${COMP_WORDS[COMP_CWORD]} path='' words='' groups='' word i
  _${name}_at ''
  for ((i = 1; i < COMP_CWORD; i++)); do
    word=\${COMP_WORDS[i]}
    case " $groups " in
    *" $word "*) path=\${path:+$path }$word; _${name}_at "$path" ;;
    esac
  done
  if [[ $current == -* || -n $groups ]]; then
    COMPREPLY=($(compgen -W "$words" -- "$current"))
  else
    COMPREPLY=($(compgen -f -- "$current"))
  fi
}
_${name}_at() {
  case "$1" in
${cases(verbs)}
  esac
}
complete -o filenames -F _${name} ${name}
`;
}

function zsh(verbs: readonly Verb[]): string {
  return `#compdef ${name}
# Completion of ${name} for zsh: made by ${name} completion zsh
_${name}_at() {
  case "$1" in
${cases(verbs)}
  esac
}
_${name}() {
  local current=\${words[CURRENT]} path_so_far='' words_so_far=("\${(@)words[2,CURRENT-1]}")
  local words='' groups='' word
  _${name}_at ''
  for word in $words_so_far; do
    if [[ " $groups " == *" $word "* ]]; then
      path_so_far=\${path_so_far:+$path_so_far }$word
      _${name}_at "$path_so_far"
    fi
  done
  if [[ $current == -* || -n $groups ]]; then
    compadd -- \${=words}
  else
    _files
  fi
}
compdef _${name} ${name}
`;
}

function fish(verbs: readonly Verb[]): string {
  const quote = (text: string) => `'${text.replaceAll('\\', '\\\\').replaceAll("'", "\\'")}'`;
  const lines = verbs.flatMap((verb) => {
    const seen = verb.path.split(' ').filter((word) => word !== '');
    const within = seen.map((word) => `__fish_seen_subcommand_from ${word}`);
    const none = `not __fish_seen_subcommand_from ${verb.verbs.join(' ')}`;
    const here = [...within, ...(verb.verbs.length > 0 ? [none] : [])].join('; and ');
    const inner = verb.verbs.map((child) => {
      const path = verb.path === '' ? child : `${verb.path} ${child}`;
      const description = verbs.find((one) => one.path === path)?.description ?? '';
      return `complete -c ${name} -f -n ${quote(here)} -a ${child} -d ${quote(description)}`;
    });
    const options = verb.options.map(({ description, long, takesValue }) => {
      const value = takesValue ? ' -r' : '';
      return `complete -c ${name} -n ${quote(here)} -l ${long.slice(2)}${value} -d ${quote(description)}`;
    });
    return [...inner, ...options];
  });
  return `# Completion of ${name} for fish: made by ${name} completion fish\n${lines.join('\n')}\n`;
}
