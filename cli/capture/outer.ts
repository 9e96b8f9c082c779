/**
 * Outer IPv4 and UDP headers for packets in the tunnel: the kernel writes the real ones, behind the
 * agent's sockets. Identification, source port and UDP checksum are 0.
 */
import { ipv4MinimumHeaderLength, Protocol, writeIpv4 } from '../../parsers/ipv4.ts';
import { udpHeaderLength, writeUdp } from '../../parsers/udp.ts';

export const outerHeaderLength = ipv4MinimumHeaderLength + udpHeaderLength;
const timeToLive = 64;

/**
 * @param source address as int32, as is `destination`
 * @param payloadLength bytes behind the UDP header, on the wire
 */
export function writeOuterHeaders(
  packet: Uint8Array,
  source: number,
  destination: number,
  destinationPort: number,
  payloadLength: number,
): void {
  const view = new DataView(packet.buffer, packet.byteOffset, packet.byteLength);
  const total = outerHeaderLength + payloadLength;
  writeIpv4(view, 0, 0, total, 0, true, timeToLive, Protocol.Udp, source, destination);
  writeUdp(view, ipv4MinimumHeaderLength, 0, destinationPort, udpHeaderLength + payloadLength, 0);
}
