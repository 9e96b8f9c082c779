/** What a capture is told at its beginning about the agent that it is of. */
import { hostname } from 'node:os';
import type { CaptureHeader } from '../../control/capture.ts';
import { type Settings, tunnelPortsOf } from '../../engine/config.ts';
import { sourceOf } from '../../linux/udp.ts';
import type { Peer } from '../../linux/udp-row.ts';
import { formatAddress } from '../../parsers/text.ts';
import type { Links } from '../host-policy.ts';
import { version } from '../version.ts';

export function captureHeaderOf(
  { firewalls, tunnel }: Settings,
  links: Links,
  peers: readonly Peer[],
): CaptureHeader {
  const [port = 0, ingressPort = port] = tunnelPortsOf(tunnel);
  const sourceTo = (address: number) => {
    const [sender] = peers.find((peer) => peer.address === address)?.senders ?? [];
    return sender === undefined ? 0 : sourceOf(sender).address;
  };
  return {
    version,
    host: hostname(),
    interfaces: links.interfaces.map(({ name }) => name),
    firewalls: firewalls.map(({ address, name }) => ({
      name,
      address: formatAddress(address),
      source: formatAddress(sourceTo(address)),
    })),
    ports: [port, ingressPort],
  };
}
