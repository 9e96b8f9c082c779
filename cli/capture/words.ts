/** What a captured packet is, in words: as a comment in the file, and as a line on the terminal. */
import { protocolNames } from '../../control/flows.ts';
import { createFlowKey, KeyKind, readFlowKey } from '../../parsers/flow-key.ts';
import {
  checkIpv4,
  ipv4Destination,
  ipv4Protocol,
  ipv4Source,
  Protocol,
} from '../../parsers/ipv4.ts';
import { Reason, reasonNames, reasonSentences } from '../../parsers/reason.ts';
import { tcpFlags } from '../../parsers/tcp.ts';
import { formatAddress } from '../../parsers/text.ts';
import type { TappedPacket } from './frames.ts';

const directions = ['egress', 'ingress'] as const;

/** Where it was seen. */
function pointOf({ isFromFirewall, point }: TappedPacket): string {
  if (point !== 'tunnel') return point;
  return isFromFirewall ? 'from-fw' : 'to-fw';
}

/** Such as `redirected (sent through …); rule web; firewall fw-a; egress, before the tunnel`. */
export function commentOf(packet: TappedPacket): string {
  const { direction, firewall, point, reason, rule } = packet;
  const sentence = reasonSentences[reasonNames.indexOf(reason)] ?? '';
  const places = {
    before: 'before the tunnel',
    tunnel: packet.isFromFirewall ? 'from the firewall' : 'to the firewall',
    after: 'after the tunnel',
  };
  // A datagram that was refused has told nothing of its direction.
  const way = point === 'tunnel' && rule === '' ? '' : `${directions[direction]}, `;
  return [
    `${reason} (${sentence})`,
    ...(rule === '' ? [] : [`rule ${rule}`]),
    ...(firewall === '' ? [] : [`firewall ${firewall}`]),
    `${way}${places[point]}`,
  ].join('; ');
}

/** One line, with local time; `kind` says how it ended. */
export function lineOf(packet: TappedPacket): string {
  const { direction, firewall, innerAt, originalLength, point, reason, rule, timeMs } = packet;
  const way = point === 'tunnel' && rule === '' ? '' : directions[direction];
  return [
    timeOf(timeMs),
    pointOf(packet).padEnd(7),
    way.padEnd(7),
    describePacket(packet.bytes, innerAt).padEnd(52),
    String(originalLength).padStart(5),
    reason,
    ...(rule === '' ? [] : [`rule ${rule}`]),
    firewall,
  ]
    .join('  ')
    .trimEnd();
}

function timeOf(timeMs: number): string {
  const at = new Date(timeMs);
  const [hours, minutes, seconds] = [at.getHours(), at.getMinutes(), at.getSeconds()].map((part) =>
    String(part).padStart(2, '0'),
  );
  const micros = Math.floor((timeMs % 1000) * 1000);
  return `${hours}:${minutes}:${seconds}.${String(micros).padStart(6, '0')}`;
}

const flagLetters = ['F', 'S', 'R', 'P', '.', 'U'];

/** `tcp 10.1.0.9:41000 > 10.2.0.7:80 [S]`, of the inner packet where there is one. */
function describePacket(bytes: Uint8Array, innerAt: number): string {
  // Room for what the capture has cut off.
  const room = new Uint8Array(65_535);
  room.set(bytes.subarray(innerAt, innerAt + room.length));
  const view = new DataView(room.buffer);
  if (checkIpv4(view, 0, room.length) !== Reason.Ok) return 'not an IPv4 packet';
  const key = createFlowKey();
  const known = readFlowKey(view, 0, key) === Reason.Ok;
  const number = ipv4Protocol(view, 0);
  const protocol = protocolNames.get(number) ?? `ip ${number}`;
  const source = formatAddress(ipv4Source(view, 0));
  const destination = formatAddress(ipv4Destination(view, 0));
  if (!known || key.kind === KeyKind.LaterFragment) {
    return `${protocol} ${source} > ${destination}${known ? ' fragment' : ''}`;
  }
  const hasPorts = key.protocol === Protocol.Tcp || key.protocol === Protocol.Udp;
  if (!hasPorts || key.kind === KeyKind.IcmpError) {
    return `${protocol} ${source} > ${destination}${key.kind === KeyKind.IcmpError ? ' error' : ''}`;
  }
  const ends = `${source}:${key.sourcePort} > ${destination}:${key.destinationPort}`;
  if (key.protocol !== Protocol.Tcp) return `${protocol} ${ends}`;
  const flags = tcpFlags(view, key.transportAt);
  const letters = flagLetters.filter((_, bit) => (flags & (1 << bit)) !== 0).join('');
  return `${protocol} ${ends} [${letters}]`;
}
