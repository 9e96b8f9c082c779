/**
 * Whether the programs in the kernel may carry established flows by themselves, and what they need
 * for it.
 */
import { type Settings, tunnelPortsOf } from '../engine/config.ts';
import type { Acceleration } from '../linux/bpf/policy.ts';
import type { CarrierPeer, CarrierSwitch } from '../linux/carrier.ts';
import { routeTo } from '../linux/netlink.ts';
import { sourceOf, type TunnelDescriptors } from '../linux/udp.ts';
import { type Links, wantsAcceleration } from './host-policy.ts';
import { sourceTo } from './links.ts';
import type { Logger } from './log.ts';
import { tunnelTemplateOf } from './tunnel-template.ts';

export type AccelerationPlan = {
  /** What the programs are made with; undefined: the engine carries everything. */
  readonly acceleration: Acceleration | undefined;
  /** Why it is not as it was asked for; empty when it is. */
  readonly reason: string;
};

/** What comes back from a firewall must come in by an interface that the programs are on. */
export function planAcceleration(config: Settings, links: Links): AccelerationPlan {
  if (config.acceleration === 'off') return { acceleration: undefined, reason: '' };
  if (!wantsAcceleration(config, links)) {
    return withoutAcceleration('the interface is a veth (acceleration: kernel does it even so)');
  }
  if (tunnelPortsOf(config.tunnel).length > 1) {
    return withoutAcceleration('the tunnel has a port for each direction');
  }
  if (config.limits.workers > 1) {
    return withoutAcceleration('there are several data-path workers (limits.workers)');
  }
  const unreachable = config.firewalls.find(({ address }) => sourceTo(address) === 0);
  if (unreachable !== undefined) {
    return withoutAcceleration(`there is no route to ${unreachable.name}`);
  }
  const steered = new Set(links.interfaces.map(({ index }) => index));
  const elsewhere = config.firewalls.find(
    ({ address }) => !steered.has(routeTo(address).interfaceIndex),
  );
  if (elsewhere !== undefined) {
    return withoutAcceleration(
      `the way to ${elsewhere.name} is by an interface that is not a workload's`,
    );
  }
  const { acceleratedFlows, flows } = config.limits;
  return {
    acceleration: {
      tunnel: tunnelTemplateOf(config.tunnel),
      flows: Math.min(acceleratedFlows, flows),
    },
    reason: '',
  };
}

export function withoutAcceleration(reason: string): AccelerationPlan {
  return { acceleration: undefined, reason };
}

/** The firewalls as the sockets have them: the same source address and ports, flow by flow. */
export function carrierPeersOf(peers: TunnelDescriptors['peers']): CarrierPeer[] {
  return peers.map(({ address, port, senders }) => {
    const sources = senders.map(sourceOf);
    return {
      address,
      port,
      source: sources[0]!.address,
      sourcePorts: sources.map((source) => source.port),
      interfaceIndex: routeTo(address).interfaceIndex,
    };
  });
}

/** Whether the kernel carries, over what becomes of the host. */
export class Carrying {
  plan: AccelerationPlan;
  private readonly first: AccelerationPlan;
  private readonly switch: CarrierSwitch;
  private readonly senders: TunnelDescriptors['peers'];
  private readonly logger: Logger;

  /** @param first as at the start, which the programs are made with as long as they are there */
  constructor(
    first: AccelerationPlan,
    carrierSwitch: CarrierSwitch,
    senders: TunnelDescriptors['peers'],
    logger: Logger,
  ) {
    this.plan = first;
    this.first = first;
    this.switch = carrierSwitch;
    this.senders = senders;
    this.logger = logger;
  }

  /** To the log: a warning where it was wanted and cannot be. */
  announce(config: Settings, links: Links): void {
    const { acceleration, reason } = this.plan;
    const level = wantsAcceleration(config, links) ? 'warn' : 'info';
    if (reason !== '') {
      this.logger[level](`the kernel does not carry established flows: ${reason}`);
    }
    if (acceleration === undefined) return;
    this.logger.info(`the kernel carries up to ${acceleration.flows} established flows`);
  }

  /** What carried flows were begun with is not true any more: the engine has them again. */
  stop(): void {
    if (this.plan.acceleration === undefined) return;
    this.switch.stop();
    this.plan = withoutAcceleration('interfaces or addresses change');
    this.logger.warn('the kernel carries no flows any more: interfaces or addresses change');
  }

  /** Flows begin to be carried anew, if the kernel was stopped and the host permits it now. */
  resume(config: Settings, links: Links): void {
    if (this.first.acceleration === undefined || this.plan.acceleration !== undefined) return;
    const now = planAcceleration(config, links);
    if (now.acceleration === undefined) {
      this.plan = now;
      return;
    }
    this.switch.start(carrierPeersOf(this.senders));
    this.plan = this.first;
    this.logger.info('the kernel carries established flows again');
  }
}
