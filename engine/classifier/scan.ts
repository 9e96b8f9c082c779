/**
 * Rule after rule, for the few sets whose ranges cross each other so much that their trie would be
 * out of all proportion. Slow (some nanoseconds a rule) and exact; compile.ts says when.
 */
import { Protocol } from '../../parsers/ipv4.ts';
import type { Direction } from '../../tunnel/pieces.ts';
import type { Nodes } from './nodes.ts';
import { noRule, type Rule } from './rules.ts';
import type { Tables } from './tables.ts';

/** Protocol that stands for TCP and UDP, which are all that have ports. */
const anyWithPorts = -2;

/** What a rule takes: words of itself, opener, protocol, then four lists, each after its length. */
export function writeScan(nodes: Nodes, rules: readonly Rule[]): number {
  const start = nodes.allocate(0);
  for (const rule of rules) {
    const lists = [rule.local, rule.remote, rule.localPort, rule.remotePort];
    const size = lists.reduce((total, list) => total + 1 + list.length * 2, 3);
    let at = nodes.allocate(size);
    const { words } = nodes;
    const hasPorts = rule.localPort.length + rule.remotePort.length > 0;
    words[at++] = size;
    words[at++] = rule.opener;
    words[at++] = rule.protocol === -1 && hasPorts ? anyWithPorts : rule.protocol;
    if (hasPorts && rule.protocol !== -1 && !isPortProtocol(rule.protocol)) words[at - 2] = 0;
    for (const list of lists) {
      words[at++] = list.length;
      for (const { first, last } of list) {
        words[at++] = first;
        words[at++] = last;
      }
    }
  }
  return start;
}

export function scan(
  tables: Tables,
  opener: Direction,
  local: number,
  remote: number,
  localPort: number,
  remotePort: number,
  protocol: number,
): number {
  const { words, ruleCount } = tables;
  let at = tables.scanRoot;
  for (let rule = 0; rule < ruleCount; rule++) {
    const wanted = words[at + 2];
    if (
      (words[at + 1] & (opener + 1)) !== 0 &&
      (wanted === protocol ||
        wanted === -1 ||
        (wanted === anyWithPorts && isPortProtocol(protocol)))
    ) {
      let list = at + 3;
      if (holds(words, list, local)) {
        list += 1 + words[list] * 2;
        if (holds(words, list, remote)) {
          list += 1 + words[list] * 2;
          if (holds(words, list, localPort)) {
            list += 1 + words[list] * 2;
            if (holds(words, list, remotePort)) return rule;
          }
        }
      }
    }
    at += words[at];
  }
  return noRule;
}

function isPortProtocol(protocol: number): boolean {
  return protocol === Protocol.Tcp || protocol === Protocol.Udp;
}

function holds(words: Int32Array, list: number, value: number): boolean {
  const count = words[list];
  const unsigned = value >>> 0;
  for (let at = list + 1; at < list + 1 + count * 2; at += 2) {
    if (words[at] >>> 0 <= unsigned && unsigned <= words[at + 1] >>> 0) return true;
  }
  return count === 0;
}
