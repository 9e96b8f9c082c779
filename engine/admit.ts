/**
 * The record of a packet's connection: the one found, one that begins, or one that is decided again
 * because a policy says that earlier ones do not hold any more (`reload --reclassify`).
 */
import type { FlowKey } from '../parsers/flow-key.ts';
import { Protocol } from '../parsers/ipv4.ts';
import { TcpFlag } from '../parsers/tcp.ts';
import { firewallsOf, isLogged, onFailureOf, verdictOf } from './classifier/lookup.ts';
import { noRule } from './classifier/rules.ts';
import { FlowState } from './flow-progress.ts';
import { noFlow, Verdict } from './flows.ts';
import type { Direction } from './io.ts';
import { GateView, type Path } from './path.ts';
import { noFirewall } from './peers.ts';
import { classifyFlow, classifyKey, placeKey } from './placement.ts';

/** What `admit` answers when there is no record. */
export const Refused = {
  /** The table is full. */
  Full: noFlow,
  /** `established: reset`. */
  Reset: -2,
} as const;

/**
 * The record for a packet that has its ports, for which `Flows.find` was just asked.
 *
 * @param found its answer
 * @param flags TCP flags of the packet, 0 when it has none
 * @param link index of the packet's interface
 */
export function admit(
  path: Path,
  key: FlowKey,
  found: number,
  flags: number,
  direction: Direction,
  link: number,
): number {
  const { flows, policy } = path;
  if (found === noFlow || beginsAgain(path, found, flags)) {
    return begin(path, key, found, flags, direction, link);
  }
  if (flows.columns.generation[found] >= policy.reclassifyBefore) return found;
  return decideAgain(path, found);
}

/** A SYN begins a record again only where that changes something: anybody can send one. */
function beginsAgain({ flows }: Path, flow: number, flags: number): boolean {
  if ((flags & (TcpFlag.Syn | TcpFlag.Ack)) !== TcpFlag.Syn) return false;
  return flows.state[flow] >= FlowState.HalfClosed || flows.verdict[flow] !== Verdict.Redirect;
}

function begin(
  path: Path,
  key: FlowKey,
  found: number,
  flags: number,
  direction: Direction,
  link: number,
): number {
  const { flows, gate, nowTick, policy } = path;
  const rule = classifyKey(policy, key, direction);
  const isOpen = gate === GateView.Open;
  const firewall = isOpen ? placeKey(path, key, firewallsOf(policy, rule)) : -1;
  const verdict = verdictFor(path, key, rule, flags, firewall >= 0);
  if (verdict === Verdict.Undecided) return Refused.Reset;
  let flow = found;
  if (flow === noFlow) {
    flow = flows.insert(direction, link, verdict, nowTick);
    if (flow === noFlow) return Refused.Full;
  } else {
    flows.restart(flow, direction, verdict, nowTick);
  }
  const holds = verdict === Verdict.Redirect && firewall >= 0;
  describe(path, flow, rule, holds ? firewall : noFirewall);
  flows.writeStart(flow);
  return flow;
}

/**
 * A firewall does not see a connection begin when its SYN went by before the agent started, or
 * while the gate is closed or no firewall may take it.
 */
function verdictFor(
  { flows, policy }: Path,
  key: FlowKey,
  rule: number,
  flags: number,
  isSeen: boolean,
): Verdict {
  const isTcp = key.protocol === Protocol.Tcp;
  const unseen = isTcp && ((flags & TcpFlag.Syn) === 0 || !isSeen);
  const verdict = verdictOf(policy, rule, flows.keyHash, unseen);
  // A connection that begins meanwhile is not reset: it has just begun.
  if (verdict === Verdict.Undecided && !isSeen) return Verdict.PassEstablished;
  return verdict;
}

/**
 * Decide those records again that no packet has brought here since the policy says so: the kernel
 * may pass by itself what is left of them.
 *
 * @param from the first of `budget` records to look at
 * @returns where to go on; `noFlow` when all have been looked at
 */
export function decideKnown(path: Path, from: number, budget: number): number {
  const { flows, policy } = path;
  const end = Math.min(from + budget, flows.capacity);
  const { generation, used } = flows.columns;
  for (let flow = from; flow < end; flow++) {
    if (used[flow] === 1 && generation[flow] < policy.reclassifyBefore) decideAgain(path, flow);
  }
  return end === flows.capacity ? noFlow : end;
}

/** What its firewall has not seen begin is as if we had not. */
function decideAgain(path: Path, flow: number): number {
  const { flows, gate, nowTick, policy } = path;
  const before = flows.verdict[flow] as Verdict;
  const rule = classifyFlow(policy, flows, flow);
  const unseen = flows.protocol[flow] === Protocol.Tcp && before !== Verdict.Redirect;
  let verdict = verdictOf(policy, rule, flows.entropy(flow), unseen);
  if (verdict === Verdict.Undecided) {
    if (gate === GateView.Open) {
      // It is over: only a SYN begins it again.
      flows.touch(flow, TcpFlag.Rst, nowTick);
      return Refused.Reset;
    }
    verdict = Verdict.PassEstablished;
  }
  if (verdict !== before) flows.judgeAgain(flow, verdict, nowTick);
  describe(path, flow, rule, verdict === Verdict.Redirect ? flows.firewall[flow] : noFirewall);
  if (verdict !== before) flows.writeStart(flow);
  return flow;
}

/** Note that a rule of the policy in force has decided the flow. */
function describe({ flows, policy }: Path, flow: number, rule: number, holder: number): void {
  const set = firewallsOf(policy, rule);
  const onFailure = onFailureOf(policy, rule);
  const logged = isLogged(policy, rule);
  flows.describe(flow, rule, policy.generation, onFailure, set, holder, logged);
  if (rule >= noRule) policy.hits[rule === noRule ? policy.hits.length - 1 : rule]++;
}
