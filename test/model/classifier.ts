/** The classifier as rules.ts tells it: rule after rule, field after field, as slow as that is. */
import { noRule, Opener, type Range, type Rule } from '../../engine/classifier/rules.ts';

export type Header = {
  /** 0: this host opens; 1: the other end. */
  opener: 0 | 1;
  /** Unsigned. */
  local: number;
  remote: number;
  localPort: number;
  remotePort: number;
  protocol: number;
};

function holds(ranges: readonly Range[], value: number): boolean {
  return ranges.length === 0 || ranges.some(({ first, last }) => first <= value && value <= last);
}

export function matches(rule: Rule, header: Header): boolean {
  const opener = header.opener === 0 ? Opener.Egress : Opener.Ingress;
  if ((rule.opener & opener) === 0) return false;
  if (rule.protocol !== -1 && rule.protocol !== header.protocol) return false;
  if (rule.localPort.length > 0 || rule.remotePort.length > 0) {
    if (header.protocol !== 6 && header.protocol !== 17) return false;
    if (!holds(rule.localPort, header.localPort)) return false;
    if (!holds(rule.remotePort, header.remotePort)) return false;
  }
  return holds(rule.local, header.local) && holds(rule.remote, header.remote);
}

export function linearMatch(rules: readonly Rule[], header: Header): number {
  const found = rules.findIndex((rule) => matches(rule, header));
  return found === -1 ? noRule : found;
}
