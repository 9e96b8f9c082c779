/** First match of a connection in a list of rules, one after the other. */
import type { Direction } from '../io.ts';
import { noRule, type Range, type Rule } from './rules.ts';

export type Tables = { readonly rules: readonly Rule[] };

/** Index of the first rule that matches, or noRule. Addresses are int32. */
export function match(
  tables: Tables,
  opener: Direction,
  local: number,
  remote: number,
  localPort: number,
  remotePort: number,
  protocol: number,
): number {
  const { rules } = tables;
  const hasPorts = protocol === 6 || protocol === 17;
  for (let index = 0; index < rules.length; index++) {
    const rule = rules[index];
    if ((rule.opener & (1 << opener)) === 0) continue;
    if (rule.protocol >= 0 && rule.protocol !== protocol) continue;
    const needsPorts = rule.localPort.length > 0 || rule.remotePort.length > 0;
    if (needsPorts && !hasPorts) continue;
    if (!holds(rule.local, local >>> 0) || !holds(rule.remote, remote >>> 0)) continue;
    if (!holds(rule.localPort, localPort) || !holds(rule.remotePort, remotePort)) continue;
    return index;
  }
  return noRule;
}

function holds(ranges: readonly Range[], value: number): boolean {
  if (ranges.length === 0) return true;
  for (const { first, last } of ranges) {
    if (value >= first && value <= last) return true;
  }
  return false;
}
