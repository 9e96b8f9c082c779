/** Why a rule does not match a connection: its first field that does not hold. */
import type { Range, Rule } from '../../engine/classifier/rules.ts';
import { formatAddress } from '../../parsers/text.ts';
import type { Direction } from '../../tunnel/pieces.ts';
import { formatProtocol } from '../config/text.ts';
import { hasPorts } from './tuple.ts';

/** As this host sees it; addresses int32. */
export type Connection = {
  /** Who opens it: egress is this host. */
  readonly opener: Direction;
  readonly protocol: number;
  readonly local: number;
  readonly remote: number;
  readonly localPort: number;
  readonly remotePort: number;
};

export type Miss = {
  readonly rule: string;
  readonly line: number;
  readonly field: 'direction' | 'protocol' | 'local' | 'remote' | 'localPort' | 'remotePort';
  /** Such as `remotePort 5433 is not 5432`. */
  readonly sentence: string;
};

export const directionNames = ['egress', 'ingress'] as const;

const fields = ['local', 'remote', 'localPort', 'remotePort'] as const;
/** More than these say more than a line can hold. */
const shownRanges = 4;

/** Undefined when the rule matches. */
export function missOf(rule: Rule, connection: Connection): Miss | undefined {
  const miss = (field: Miss['field'], sentence: string) => ({
    rule: rule.name,
    line: rule.line,
    field,
    sentence: `${field} ${sentence}`,
  });
  if ((rule.opener & (1 << connection.opener)) === 0) {
    const here = directionNames[connection.opener];
    return miss('direction', `${here} is not ${directionNames[1 - connection.opener]}`);
  }
  if (rule.protocol >= 0 && rule.protocol !== connection.protocol) {
    const [is, wanted] = [connection.protocol, rule.protocol].map(numberOrName);
    return miss('protocol', `${is} is not ${wanted}`);
  }
  for (const field of fields) {
    const ranges = rule[field];
    if (ranges.length === 0) continue;
    const isPort = field === 'localPort' || field === 'remotePort';
    if (isPort && !hasPorts(connection.protocol)) {
      return miss(field, `is needed, and ${formatProtocol(connection.protocol)} has no ports`);
    }
    const value = connection[field] >>> 0;
    if (ranges.some(({ first, last }) => value >= first && value <= last)) continue;
    const shown = isPort ? String(value) : formatAddress(value);
    const words = ranges.slice(0, shownRanges).map((range) => formatRange(range, isPort));
    const more = ranges.length > shownRanges ? ` or ${ranges.length - shownRanges} more` : '';
    return miss(field, `${shown} is not ${oneOf(ranges, words)}${more}`);
  }
  return undefined;
}

function numberOrName(protocol: number): string {
  return formatProtocol(protocol).replace('protocol ', '');
}

function oneOf(ranges: readonly Range[], words: readonly string[]): string {
  const isSingle = ranges.length === 1 && ranges[0]!.first === ranges[0]!.last;
  return `${isSingle ? '' : 'in '}${words.join(', ')}`;
}

/** A port, an address, a CIDR where it is one, or `A-B`. */
export function formatRange({ first, last }: Range, isPort: boolean): string {
  const show = (value: number) => (isPort ? String(value) : formatAddress(value));
  if (first === last) return show(first);
  const size = last - first + 1;
  // A power of two that begins at a multiple of itself. 2^32 is past the bit operations.
  const isPrefix = Number.isInteger(Math.log2(size)) && first % size === 0;
  if (!isPort && isPrefix) return `${show(first)}/${32 - Math.log2(size)}`;
  return `${show(first)}-${show(last)}`;
}
