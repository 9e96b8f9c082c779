/**
 * Connections between two members of a protected group, each with an agent: redirected by both they
 * would be inspected twice, and a firewall that meets a session a second time drops it. So one of
 * the two lets them pass, decided here before the rules.
 */
import { Direction } from '../../tunnel/pieces.ts';
import { contains, type Prefix } from './built-in.ts';

export type Group = {
  readonly members: readonly Prefix[];
  /** Connections opened this way are the other member's to redirect. */
  readonly passes: Direction;
};

/** @param intraGroup whose agent redirects: the one of who opens a connection, or of the other */
export function groupOf(
  members: readonly Prefix[],
  intraGroup: 'source' | 'destination' | 'both',
): Group | undefined {
  if (members.length === 0 || intraGroup === 'both') return undefined;
  const passes = intraGroup === 'source' ? Direction.Ingress : Direction.Egress;
  return { members, passes };
}

/** Whether the agent at the other end redirects it; `opener` is egress for this host. */
export function isOthersToRedirect(
  { members, passes }: Group,
  opener: Direction,
  local: number,
  remote: number,
): boolean {
  return opener === passes && isMember(members, remote) && isMember(members, local);
}

function isMember(members: readonly Prefix[], address: number): boolean {
  for (let i = 0; i < members.length; i++) {
    if (contains(members[i], address)) return true;
  }
  return false;
}
