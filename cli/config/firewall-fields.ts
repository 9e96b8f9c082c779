/** What the configuration file says of several firewalls: their names, and how one is chosen. */
import { z } from 'zod';
import { type Config, defaults, type HaConfig, limits } from '../../engine/config.ts';
import { block, choice, duration, integer, text, yesOrNo } from './fields.ts';
import { closest } from './text.ts';

const namePattern = '^[A-Za-z0-9._-]{1,64}$';

export const firewallName = text(
  'a name of letters, digits, dots and dashes',
  new RegExp(namePattern),
);

/** One name or a list of them. */
export const firewallNames = z
  .unknown()
  .transform((value, context): readonly string[] | undefined => {
    if (value === undefined || value === null) return undefined;
    const names: unknown[] = Array.isArray(value) ? value : [value];
    if (names.length > 0 && names.every((name) => typeof name === 'string')) return names;
    const message = 'must be the name of a firewall or a list of names';
    context.addIssue({ code: 'custom', message });
    return z.NEVER;
  })
  .meta({
    anyOf: [
      { type: 'string', pattern: namePattern },
      { type: 'array', minItems: 1, items: { type: 'string', pattern: namePattern } },
      { type: 'null' },
    ],
  });

const probe = z
  .preprocess(
    (value) => (value === 'off' ? { kind: 'off' } : (value ?? {})),
    z
      .strictObject({
        kind: choice('tunnel', 'tcp', 'http', 'https', 'off').optional(),
        interval: duration(limits.probeIntervalMs).default(defaults.ha.probe.intervalMs),
        failures: integer(limits.probeFailures).default(defaults.ha.probe.failures),
        port: integer(limits.port).optional(),
        path: text('a path such as /health', /^\/[!-~]{0,255}$/).optional(),
      })
      .superRefine(({ kind, path, port }, context) => {
        const complain = (key: string, message: string) =>
          context.addIssue({ code: 'custom', message, path: [key], params: { atKey: true } });
        const isHttp = kind === 'http' || kind === 'https';
        const asks = isHttp || kind === 'tcp';
        if (asks && port === undefined) complain('port', `is missing: ${kind} needs a port`);
        if (!asks && port !== undefined) complain('port', 'is for tcp, http and https only');
        if (!isHttp && path !== undefined) complain('path', 'is for http and https only');
      }),
  )
  .meta({ type: ['object', 'null', 'string'] });

export const ha = block({
  distribution: choice('active-passive', 'flow-hash').default(defaults.ha.distribution),
  preempt: yesOrNo.default(defaults.ha.preempt),
  holdDown: duration(limits.holdDownMs).default(defaults.ha.holdDownMs),
  sessionSync: yesOrNo.default(defaults.ha.sessionSync),
  onLoss: choice('rebalance', 'stick', 'reset').default(defaults.ha.onLoss),
  probe,
});

/** With what depends on the tunnel. */
export function resolveHa(
  value: z.output<typeof ha>,
  encapsulation: Config['tunnel']['encapsulation'],
): HaConfig {
  const { distribution, holdDown, onLoss, preempt, sessionSync } = value;
  const standard = defaults.ha.probe;
  const kind = value.probe.kind ?? standard.kind[encapsulation];
  const isHttp = kind === 'http' || kind === 'https';
  return {
    distribution,
    preempt,
    holdDownMs: holdDown,
    sessionSync,
    onLoss,
    probe: {
      kind,
      intervalMs: value.probe.interval,
      failures: value.probe.failures,
      port: value.probe.port ?? 0,
      path: isHttp ? (value.probe.path ?? standard.path) : '',
    },
  };
}

/**
 * Names to a set of firewalls, bit i for the i-th; -1 for all, where nothing is written.
 * @param known the firewalls' names; undefined when they could not be read
 * @param report takes what is wrong
 */
export function firewallSet(
  names: readonly string[] | undefined,
  known: readonly string[] | undefined,
  report: (message: string) => void,
): number {
  if (names === undefined || known === undefined) return -1;
  let set = 0;
  for (const name of names) {
    const index = known.indexOf(name);
    if (index >= 0) {
      set |= 1 << index;
      continue;
    }
    const meant = closest(name, known);
    const advice = meant === undefined ? `there is ${known.join(', ')}` : `did you mean ${meant}?`;
    report(`there is no firewall ${name}: ${advice}`);
  }
  return set;
}
