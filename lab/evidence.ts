/**
 * Evidence from captures at both ends of the hair-pin: on the server's link, where packets must be
 * as the workload made them, and on the firewall's, where they must be wrapped. Requests carry a
 * mark in their path that occurs nowhere else, and tshark looks for it.
 */
import type { Capture } from './capture.ts';
import type { Stage } from './stage.ts';

/** tshark's names of the tunnels that the lab speaks. */
const tunnelled = '(geneve || vxlan)';

/** Packets with the mark, by where they were seen. */
export type Sightings = {
  readonly server: number;
  /** On the server's link, but in a tunnel. */
  readonly serverTunnelled: number;
  /** In the tunnel, on the way to the firewall and on the way back from it. */
  readonly toFirewall: number;
  readonly fromFirewall: number;
};

export class Watch {
  readonly server: Capture;
  readonly firewall: Capture;
  private readonly firewallAddress: string;

  constructor(server: Capture, firewall: Capture, firewallAddress: string) {
    this.server = server;
    this.firewall = firewall;
    this.firewallAddress = firewallAddress;
  }

  async stop(): Promise<void> {
    await Promise.all([this.server.stop(), this.firewall.stop()]);
  }

  /** @param what a display filter, such as `frame contains "mark"` */
  async sight(what: string): Promise<Sightings> {
    const [server, serverTunnelled, wrapped] = await Promise.all([
      this.server.count(`${what} && !${tunnelled}`),
      this.server.count(`${what} && ${tunnelled}`),
      this.firewall.read(`${what} && ${tunnelled}`, ['ip.src']),
    ]);
    const fromFirewall = wrapped.filter(([sources = '']) =>
      sources.startsWith(`${this.firewallAddress},`),
    ).length;
    const toFirewall = wrapped.length - fromFirewall;
    return { server, serverTunnelled, toFirewall, fromFirewall };
  }

  /** Tunnel packets that tshark finds fault with: malformed, or a wrong inner checksum. */
  async faults(): Promise<number> {
    const checksums = 'ip.checksum.status == "Bad" || tcp.checksum.status == "Bad"';
    return await this.firewall.count(`${tunnelled} && (_ws.malformed || ${checksums})`);
  }

  /** Times of the tunnel packets on the firewall's link, in ms since 1970, ascending. */
  async tunnelTimes(): Promise<number[]> {
    const rows = await this.firewall.read(tunnelled, ['frame.time_epoch']);
    return rows.map(([time = '']) => toMs(time)).sort((a, b) => a - b);
  }
}

/** Both links are recorded when this returns. `name` names the files. */
export async function startWatch(stage: Stage, name: string): Promise<Watch> {
  const [server, firewall] = await Promise.all([
    stage.capture('server', name),
    stage.capture('firewall', name),
  ]);
  return new Watch(server, firewall, stage.firewall.address);
}

/** Older tsharks print seconds since 1970, newer ones a date. */
function toMs(time: string): number {
  const seconds = Number(time);
  return Number.isNaN(seconds) ? Date.parse(time) : seconds * 1000;
}

export function wentThroughFirewall(seen: Sightings): boolean {
  return (
    seen.server > 0 && seen.serverTunnelled === 0 && seen.toFirewall > 0 && seen.fromFirewall > 0
  );
}

export function wentDirectly(seen: Sightings): boolean {
  const wrapped = seen.serverTunnelled + seen.toFirewall + seen.fromFirewall;
  return seen.server > 0 && wrapped === 0;
}

export function describeSightings(seen: Sightings): string {
  const parts = [`${seen.server} at the server`];
  if (seen.serverTunnelled > 0) parts.push(`${seen.serverTunnelled} of them wrapped`);
  parts.push(`${seen.toFirewall} to the firewall`, `${seen.fromFirewall} from it`);
  return parts.join(', ');
}
