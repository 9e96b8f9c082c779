/**
 * Which rule decides a flow, and which firewall takes it: for a new one, and for one whose firewall
 * cannot be used any more or is not the active one. Asked packet by packet, so that nothing has to
 * go through the table when a firewall is lost.
 */
import type { FlowKey } from '../parsers/flow-key.ts';
import { Protocol } from '../parsers/ipv4.ts';
import { TcpFlag } from '../parsers/tcp.ts';
import { classify, type Policy } from './classifier/lookup.ts';
import { symmetricHash } from './flow-hash.ts';
import { type Flows, Verdict } from './flows.ts';
import { Direction } from './io.ts';
import type { Path } from './path.ts';
import { noFirewall, OnLoss } from './peers.ts';

/** What `firewallFor` answers when it is none. */
export const Elsewhere = {
  /** None of those that may take the flow can be used. */
  None: -1,
  /** The connection goes on past inspection; its record says so already. */
  Pass: -2,
  /** Both ends are to be reset. */
  Reset: -3,
} as const;

/** The rule that decides a packet that has its ports; builtInRule or noRule. */
export function classifyKey(policy: Policy, key: FlowKey, direction: Direction): number {
  const { destination, destinationPort, protocol, source, sourcePort } = key;
  return direction === Direction.Egress
    ? classify(policy, direction, source, destination, sourcePort, destinationPort, protocol)
    : classify(policy, direction, destination, source, destinationPort, sourcePort, protocol);
}

/** The rule that decides a flow that is known; as `classifyKey` answers for its first packet. */
export function classifyFlow(policy: Policy, flows: Flows, flow: number): number {
  const { addressA, addressB, localIsA, opener, ports, protocol } = flows.columns;
  const [a, b] = [addressA[flow], addressB[flow]];
  const [portA, portB] = [ports[flow] >>> 16, ports[flow] & 0xffff];
  const from = opener[flow] as Direction;
  return localIsA[flow] === 1
    ? classify(policy, from, a, b, portA, portB, protocol[flow])
    : classify(policy, from, b, a, portB, portA, protocol[flow]);
}

/** The firewall for a new flow, of those in `set`; -1: none can be used. */
export function placeKey(path: Path, key: FlowKey, set: number): number {
  const { destination, destinationPort, protocol, source, sourcePort } = key;
  const hash = symmetricHash(source, destination, sourcePort, destinationPort, protocol);
  return path.peers.choice.place(set, hash);
}

/**
 * The firewall for a packet of a redirected flow, or one of Elsewhere.
 * @param flags TCP flags of the packet, 0 when it has none
 */
export function firewallFor(path: Path, flow: number, flags: number): number {
  const { flows, peers } = path;
  const holder = flows.firewall[flow];
  const set = flows.firewalls[flow];
  if (peers.keeps(holder, set)) return holder;
  const next = place(path, flow, set);
  if (next < 0) return Elsewhere.None;
  if (peers.onLoss !== OnLoss.Move && peers.isLost(holder)) {
    if (peers.onLoss === OnLoss.Stick) return holder;
    const opens = (flags & (TcpFlag.Syn | TcpFlag.Ack)) === TcpFlag.Syn;
    // The next firewall has not seen it begin, unless it begins just now.
    if (flows.protocol[flow] === Protocol.Tcp && !opens) {
      if (peers.onLoss === OnLoss.Reset) return Elsewhere.Reset;
      flows.verdict[flow] = Verdict.PassEstablished;
      flows.firewall[flow] = noFirewall;
      return Elsewhere.Pass;
    }
  }
  flows.firewall[flow] = next;
  peers.columns.flowsTaken[next]++;
  return next;
}

function place(path: Path, flow: number, set: number): number {
  const { addressA, addressB, ports, protocol } = path.flows.columns;
  const portA = ports[flow] >>> 16;
  const portB = ports[flow] & 0xffff;
  const hash = symmetricHash(addressA[flow], addressB[flow], portA, portB, protocol[flow]);
  return path.peers.choice.place(set, hash);
}
