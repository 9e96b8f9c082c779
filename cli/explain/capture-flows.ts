/** The connections of a capture: who opened each, how many packets and bytes it has. */
import { createFlowKey, type FlowKey, KeyKind, readFlowKey } from '../../parsers/flow-key.ts';
import { IcmpType, icmpType } from '../../parsers/icmp.ts';
import {
  checkIpv4,
  ipv4HeaderLength,
  ipv4Id,
  ipv4TotalLength,
  Protocol,
} from '../../parsers/ipv4.ts';
import { Reason, reasonNames } from '../../parsers/reason.ts';
import { TcpFlag, tcpFlags } from '../../parsers/tcp.ts';
import type { Capture, CapturedPacket } from './capture-file.ts';
import type { Tuple } from './tuple.ts';

export type CapturedFlow = {
  /** Its source opened the connection, as far as the capture tells. */
  readonly tuple: Tuple;
  /** False for TCP whose first packets are not in the capture. */
  readonly startSeen: boolean;
  packets: number;
  bytes: number;
};

export type CapturedFlows = {
  readonly flows: readonly CapturedFlow[];
  /** Packets of no flow, by why. */
  readonly leftOut: ReadonlyMap<string, number>;
};

/** ICMP messages that answer another: echo, timestamp, information and address mask replies. */
const answers: readonly number[] = [IcmpType.EchoReply, 14, 16, 18];
/** Of a transport header, what names the flow and says who opened it. */
const neededTransport = 14;

export function groupFlows(capture: Capture): CapturedFlows {
  const flows = new Map<string, CapturedFlow>();
  const fragments = new Map<string, CapturedFlow>();
  const leftOut = new Map<string, number>();
  const leave = (why: string) => leftOut.set(why, (leftOut.get(why) ?? 0) + 1);
  const key = createFlowKey();
  for (const packet of capture.packets) {
    const why = readKey(packet, key);
    if (why !== '') {
      leave(why);
      continue;
    }
    const { view } = packet;
    const datagram = `${key.source} ${key.destination} ${key.protocol} ${ipv4Id(view, 0)}`;
    const name = nameOf(key);
    let flow = key.kind === KeyKind.LaterFragment ? fragments.get(datagram) : flows.get(name);
    if (flow === undefined && key.kind === KeyKind.LaterFragment) {
      leave('fragments whose first is not in the capture');
      continue;
    }
    if (flow === undefined) {
      flow = newFlow(view, key);
      flows.set(name, flow);
    }
    if (key.kind === KeyKind.FirstFragment) fragments.set(datagram, flow);
    flow.packets++;
    flow.bytes += ipv4TotalLength(view, 0);
  }
  if (capture.others() > 0) leftOut.set('not IPv4', capture.others());
  return { flows: [...flows.values()], leftOut };
}

/** Empty, or why the packet has no flow. */
function readKey({ view, captured }: CapturedPacket, key: FlowKey): string {
  const reason = checkIpv4(view, 0, view.byteLength);
  if (reason !== Reason.Ok) return reasonNames[reason]!;
  const needed = Math.min(ipv4HeaderLength(view, 0) + neededTransport, ipv4TotalLength(view, 0));
  if (captured < needed) return 'cut too short by the capture';
  const found = readFlowKey(view, 0, key);
  return found === Reason.Ok ? '' : reasonNames[found]!;
}

/** The same for both directions. */
function nameOf(key: FlowKey): string {
  const ends = [`${key.source}:${key.sourcePort}`, `${key.destination}:${key.destinationPort}`];
  return `${key.protocol} ${ends.sort().join(' ')}`;
}

function newFlow(view: DataView, key: FlowKey): CapturedFlow {
  const flags = key.protocol === Protocol.Tcp && isWhole(key) ? tcpFlags(view, key.transportAt) : 0;
  const answersTcp = (flags & TcpFlag.Syn) !== 0 && (flags & TcpFlag.Ack) !== 0;
  const answersIcmp =
    key.protocol === Protocol.Icmp &&
    isWhole(key) &&
    answers.includes(icmpType(view, key.transportAt));
  // An error travels against the packet that it quotes, which is what the flow has.
  const isAnswer = answersTcp || answersIcmp || key.kind === KeyKind.IcmpError;
  const from = { address: key.source, port: key.sourcePort };
  const to = { address: key.destination, port: key.destinationPort };
  const [source, destination] = isAnswer ? [to, from] : [from, to];
  return {
    tuple: {
      protocol: key.protocol,
      source: source.address,
      sourcePort: source.port,
      destination: destination.address,
      destinationPort: destination.port,
    },
    startSeen: key.protocol !== Protocol.Tcp || (flags & TcpFlag.Syn) !== 0,
    packets: 0,
    bytes: 0,
  };
}

function isWhole(key: FlowKey): boolean {
  return key.kind === KeyKind.Plain || key.kind === KeyKind.FirstFragment;
}
