/**
 * What the programs in the kernel write and expect between outer UDP and inner IPv4 header, taken
 * from the encapsulation that the engine uses: there is one place that knows a format.
 */
import type { Config } from '../engine/config.ts';
import type { TunnelTemplate } from '../linux/bpf/policy.ts';
import { Direction } from '../tunnel/pieces.ts';
import { createEncapsulation } from './data-path.ts';

export function tunnelTemplateOf(tunnel: Config['tunnel']): TunnelTemplate {
  const encapsulation = createEncapsulation(tunnel);
  const write = (direction: Direction, cookie: number) => {
    const bytes = new Uint8Array(encapsulation.headerLength);
    encapsulation.write(new DataView(bytes.buffer), 0, direction, cookie);
    return bytes;
  };
  const without = write(Direction.Egress, 0);
  return {
    headers: [without, write(Direction.Ingress, 0)],
    cookieMask: write(Direction.Egress, -1).map((byte, at) => byte ^ without[at]),
    ethernet:
      tunnel.encapsulation === 'vxlan' ||
      (tunnel.encapsulation === 'geneve' && tunnel.geneve.inner === 'ethernet'),
  };
}
