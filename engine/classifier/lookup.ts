/**
 * The first packet of a connection to its verdict. Built-in exclusions come first, then the
 * operator's policy; today that is one default for everything else.
 */

import { Verdict } from '../flows.ts';
import type { Direction } from '../io.ts';
import { type BuiltIns, isBuiltIn } from './built-in.ts';

export type Policy = {
  readonly builtIns: BuiltIns;
  /** What no rule matches. */
  readonly default: Verdict;
};

/** @param opener who opens the connection: egress is this host */
export function classify(
  policy: Policy,
  opener: Direction,
  local: number,
  remote: number,
  localPort: number,
  remotePort: number,
  protocol: number,
): Verdict {
  if (isBuiltIn(policy.builtIns, opener, local, remote, localPort, remotePort, protocol)) {
    return Verdict.PassBuiltIn;
  }
  return policy.default;
}
