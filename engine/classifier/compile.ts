/** Rules to what `match` walks. */
import type { Tables } from './match.ts';
import type { Rule } from './rules.ts';

export function compile(rules: readonly Rule[]): Tables {
  return { rules };
}
