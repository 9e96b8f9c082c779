/** What single values cannot tell: whether the sections fit together. */
import type { FirewallConfig } from '../../engine/config.ts';
import { formatAddress } from '../../parsers/text.ts';
import type { Sections } from './schema.ts';
import { contains, formatDuration, formatPrefix } from './text.ts';

type Misfit = { readonly path: readonly (string | number)[]; readonly message: string };

const udp = 17;

/** A section that has errors of its own is absent, and what needs it is not checked. */
export function crossChecks(known: Partial<Sections>): readonly Misfit[] {
  return [
    ...firewallAddresses(known.firewalls ?? []),
    ...duplicateFirewalls(known.firewalls ?? []),
    ...firewallsBesideManagement(known),
    ...duplicateInterfaces(known),
    ...telemetryTimes(known),
    ...namelessAtBoot(known),
    ...equalMacs(known),
  ];
}

/** What is right and changes nothing: keys of the flow log of which others make no use. */
export function pointlessKeys({ log, rules }: Partial<Sections>): readonly Misfit[] {
  if (log === undefined || rules === undefined) return [];
  const first = rules.findIndex((rule) => rule.log);
  if (log.which === 'rules' && log.flows === '') {
    return [{ path: ['log', 'which'], message: 'has no effect without log.flows' }];
  }
  if (log.which === 'rules' && first < 0) {
    const message = 'no rule has log: true, so the flow log stays empty';
    return [{ path: ['log', 'which'], message }];
  }
  if (log.which === 'rules' || first < 0) return [];
  const message = 'has no effect without log.flows and log.which: rules';
  return [{ path: ['rules', first, 'log'], message }];
}

function firewallAddresses(firewalls: readonly FirewallConfig[]): Misfit[] {
  return firewalls.flatMap((firewall, index) => {
    const misfits: Misfit[] = [];
    if (!isUnicast(firewall.address) || firewall.address >>> 24 === 127) {
      const message = `${formatAddress(firewall.address)} is not an address that a firewall can have`;
      misfits.push({ path: ['firewalls', index, 'address'], message });
    }
    if (!isUnicast(firewall.telemetry.address)) {
      const message = `${formatAddress(firewall.telemetry.address)} is not an address that a host can have`;
      misfits.push({ path: ['firewalls', index, 'telemetry', 'url'], message });
    }
    return misfits;
  });
}

/** A flow has one firewall by name, and an answer comes from one by address. */
function duplicateFirewalls(firewalls: readonly FirewallConfig[]): Misfit[] {
  return firewalls.flatMap(({ address, name }, index) => {
    const earlier = firewalls.slice(0, index);
    const misfits: Misfit[] = [];
    if (earlier.some((other) => other.name === name)) {
      const message = `${name} is the name of another firewall already`;
      misfits.push({ path: ['firewalls', index, 'name'], message });
    }
    const same = earlier.find((other) => other.address === address);
    if (same !== undefined) {
      const message = `${formatAddress(address)} is the address of ${same.name} already`;
      misfits.push({ path: ['firewalls', index, 'address'], message });
    }
    return misfits;
  });
}

/** Neither 0.0.0.0/8 nor multicast, reserved or broadcast. */
function isUnicast(address: number): boolean {
  const first = address >>> 24;
  return first > 0 && first < 224;
}

function firewallsBesideManagement({ firewalls, workload, tunnel }: Partial<Sections>): Misfit[] {
  if (firewalls === undefined || workload === undefined) return [];
  return workload.management.flatMap((exception, index) =>
    firewalls.flatMap(({ name, address }): Misfit[] => {
      const { prefix, protocol, port } = exception;
      const tunnelled = protocol === 0 || (protocol === udp && port === tunnel?.port);
      if (!tunnelled || !contains(prefix, address)) return [];
      const message =
        `${formatPrefix(prefix)} holds the firewall ${name} (${formatAddress(address)}): ` +
        'a firewall must not be a management exception';
      return [{ path: ['workload', 'management', index], message }];
    }),
  );
}

function duplicateInterfaces({ workload }: Partial<Sections>): Misfit[] {
  const names = workload?.interfaces ?? [];
  return names.flatMap((name, index) =>
    names.indexOf(name) < index
      ? [{ path: ['workload', 'interfaces', index], message: `${name} is listed twice` }]
      : [],
  );
}

function telemetryTimes({ telemetry }: Partial<Sections>): Misfit[] {
  if (telemetry === undefined || telemetry.timeoutMs <= telemetry.intervalMs) return [];
  const { timeoutMs, intervalMs } = telemetry;
  const message =
    `${formatDuration(timeoutMs)} is longer than the interval of ${formatDuration(intervalMs)}: ` +
    'an attempt must be over before the next one is due';
  return [{ path: ['telemetry', 'timeout'], message }];
}

/** The guard is there before the network is up, and with it the default route. */
function namelessAtBoot({ policy, workload }: Partial<Sections>): Misfit[] {
  if (policy?.onBoot !== 'drop' || workload?.interfaces.length !== 0) return [];
  const message =
    'drop needs workload.interfaces: at boot there is no default route yet to find them by';
  return [{ path: ['policy', 'onBoot'], message }];
}

function equalMacs({ tunnel }: Partial<Sections>): Misfit[] {
  if (tunnel === undefined) return [];
  const { innerSource, innerDestination } = tunnel.vxlan;
  if (innerSource.join() !== innerDestination.join()) return [];
  const message = 'is the same as innerSource: the two ends need different MAC addresses';
  return [{ path: ['tunnel', 'vxlan', 'innerDestination'], message }];
}
