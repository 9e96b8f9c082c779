/**
 * The configuration file's shape, section by section: the contract that the documentation shows.
 * What this version does not honour stands here too, each with the sentence it is refused with.
 */
import { z } from 'zod';
import {
  type Config,
  defaults,
  type FirewallConfig,
  limits,
  type TelemetryTarget,
} from '../../engine/config.ts';
import { parseAddress } from '../../parsers/text.ts';
import {
  address,
  block,
  choice,
  duration,
  endpoint,
  exception,
  identifier,
  integer,
  loopback,
  mac,
  notYet,
  percentage,
  prefix,
  text,
  words,
  yesOrNo,
} from './fields.ts';
import { firewallName, firewallNames, ha } from './firewall-fields.ts';
import { items, protocol, sets } from './rule-fields.ts';

const version = z
  .unknown()
  .superRefine((value, context) => {
    if (value === 1) return;
    const message =
      value === undefined
        ? 'is missing: write version: 1'
        : 'must be 1: the only version of this file that there is';
    context.addIssue({ code: 'custom', message });
  })
  .meta({ const: 1 });

function list<T extends z.ZodType>(item: T, range: { min: number; max: number }, what: string) {
  return z
    .array(item, { error: `must be a list of ${what}` })
    .min(range.min, { error: `must have at least ${range.min} of them` })
    .max(range.max, { error: `must have no more than ${range.max} of them` });
}

/** Kernel: dev_valid_name, net/core/dev.c: 1 to 15 bytes, no slash, colon or white space. */
const interfaceName = text(
  'a network interface other than lo',
  /^(?!lo$)(?!\.{1,2}$)[^\s/:]{1,15}$/,
);

const workload = block({
  interfaces: list(interfaceName, limits.interfaces, 'network interfaces').default([]),
  addresses: notYet('the addresses are those that the interfaces have', 'auto'),
  group: block({
    members: list(prefix, limits.members, 'networks').default([]),
    intraGroup: choice('source', 'destination', 'both').default(defaults.workload.intraGroup),
  }),
  management: list(exception, limits.management, 'addresses').default([]),
  ipv6: choice('pass', 'drop').default(defaults.workload.ipv6),
});

const path = text('the absolute path of a file', /^\/[^\0]+$/);

const url = z
  .unknown()
  .transform((value, context): { url: string; host: number; port: number } => {
    const result =
      typeof value === 'string' ? parseUrl(value) : 'is missing: an https:// address is needed';
    if (typeof result !== 'string') return result;
    context.addIssue({ code: 'custom', message: result });
    return z.NEVER;
  })
  .meta({ type: 'string' });

function parseUrl(value: string): { url: string; host: number; port: number } | string {
  let parsed: URL;
  try {
    parsed = new URL(value);
  } catch {
    return 'must be an address such as https://10.9.0.4:443/v1/metrics';
  }
  if (parsed.protocol !== 'https:')
    return 'must begin with https:// (telemetry is never sent in clear)';
  if (parsed.username !== '' || parsed.password !== '') {
    return 'must not hold a user or password: secrets are given by file only';
  }
  const host = parseAddress(parsed.hostname);
  if (host === undefined) {
    return `must name its host by an IPv4 address: host names (${parsed.hostname}) are not supported yet`;
  }
  return { url: parsed.href, host, port: parsed.port === '' ? 443 : Number(parsed.port) };
}

const pin = text(
  'sha256/ and the base64 of the SHA-256 of the public key',
  /^sha256\/[A-Za-z0-9+/]{43}=$/,
);

const target = z
  .strictObject(
    {
      url,
      ca: path.optional(),
      pin: pin.optional(),
      clientCertificate: path.optional(),
      clientKey: path.optional(),
    },
    { error: 'is missing: a block with url and ca (or pin) is needed' },
  )
  .superRefine((value, context) => {
    if ((value.ca === undefined) === (value.pin === undefined)) {
      const message = 'needs either ca or pin: how the endpoint proves who it is';
      context.addIssue({ code: 'custom', message });
    }
    if ((value.clientCertificate === undefined) !== (value.clientKey === undefined)) {
      const message = 'clientCertificate and clientKey go together: one of them is missing';
      context.addIssue({ code: 'custom', message });
    }
  })
  .transform(
    (value): TelemetryTarget => ({
      url: value.url.url,
      address: value.url.host,
      port: value.url.port,
      ca: value.ca ?? '',
      pin: value.pin?.slice('sha256/'.length) ?? '',
      clientCertificate: value.clientCertificate ?? '',
      clientKey: value.clientKey ?? '',
    }),
  );

const firewall = z
  .strictObject(
    {
      name: firewallName,
      address,
      returnFrom: prefix.optional(),
      telemetry: target,
    },
    { error: 'must be a block with name, address and telemetry' },
  )
  .transform(
    (value): FirewallConfig => ({
      ...value,
      returnFrom: value.returnFrom ?? { address: value.address, length: 32 },
    }),
  );

const firewalls = z
  .array(firewall, { error: 'is missing: a list with a firewall is needed' })
  .superRefine((value, context) => {
    const { max, min } = limits.firewalls;
    if (value.length >= min && value.length <= max) return;
    const message = value.length === 0 ? 'must have an entry' : `must have at most ${max} entries`;
    context.addIssue({ code: 'custom', message, params: { atKey: true } });
  })
  .meta({ minItems: limits.firewalls.min, maxItems: limits.firewalls.max });

const standard = defaults.tunnel;

/** The direction and the cookie must lie in the option's data, and not in the same word. */
function checkOption(
  { cookieAt, directionBit, optionData }: Config['tunnel']['geneve'],
  context: z.RefinementCtx,
): void {
  const bytes = optionData.length / 2;
  const wrong = (key: string, message: string) =>
    context.addIssue({ code: 'custom', message, path: [key] });
  if (directionBit >= bytes * 8) {
    wrong('directionBit', `must be less than ${bytes * 8}: optionData has ${bytes} bytes`);
  }
  if (cookieAt !== -1 && (cookieAt % 4 !== 0 || cookieAt >= bytes)) {
    wrong('cookieAt', `must be none or a multiple of 4 below ${bytes}, the length of optionData`);
  } else if (cookieAt === (directionBit >> 5) * 4) {
    wrong('cookieAt', `must not be ${cookieAt}: directionBit ${directionBit} is in that word`);
  }
}

const tunnel = block({
  encapsulation: choice('geneve', 'gwlb', 'gcp', 'vxlan').default(standard.encapsulation),
  vni: integer(limits.vni).optional(),
  port: integer(limits.port).optional(),
  mtu: z
    .union([z.literal('auto').transform(() => 0), integer(limits.mtu)], {
      error: `must be auto or a whole number from ${limits.mtu.min} to ${limits.mtu.max}`,
    })
    .default(0),
  geneve: block({
    inner: choice('ipv4', 'ethernet').default(standard.geneve.inner),
    optionClass: integer(limits.optionClass).default(standard.geneve.optionClass),
    optionType: integer(limits.optionType).default(standard.geneve.optionType),
    optionData: words(limits.optionWords).default(standard.geneve.optionData),
    directionBit: integer(limits.directionBit).default(standard.geneve.directionBit),
    cookieAt: z
      .union([z.literal('none').transform(() => -1), integer(limits.cookieAt)], {
        error: 'must be none or the byte of optionData where the cookie begins, a multiple of 4',
      })
      .default(standard.geneve.cookieAt),
  }).superRefine(checkOption),
  gwlb: block({
    endpointId: identifier.default(standard.gwlb.endpointId),
    attachmentId: identifier.default(standard.gwlb.attachmentId),
  }),
  gcp: block({
    endpointId: words(limits.endpointWords).default(standard.gcp.endpointId),
    profileId: identifier.default(standard.gcp.profileId),
  }),
  vxlan: block({
    egressVni: integer(limits.vni).optional(),
    ingressVni: integer(limits.vni).optional(),
    egressPort: integer(limits.port).optional(),
    ingressPort: integer(limits.port).optional(),
    innerSource: mac.default([...standard.vxlan.innerSource]),
    innerDestination: mac.default([...standard.vxlan.innerDestination]),
  }),
})
  .superRefine(({ encapsulation, vni }, context) => {
    const isGateway = encapsulation === 'gwlb' || encapsulation === 'gcp';
    if (!isGateway || vni === undefined || vni === 0) return;
    const message = `must be 0 or left out: ${encapsulation} has no other`;
    context.addIssue({ code: 'custom', message, path: ['vni'] });
  })
  .transform(({ encapsulation, vni = standard.vni, vxlan, ...rest }): Config['tunnel'] => {
    const { egressPort, egressVni = vni, ingressPort, ingressVni = vni, ...macs } = vxlan;
    const own = encapsulation === 'vxlan' ? egressPort : undefined;
    const port = own ?? rest.port ?? standard.port[encapsulation];
    return {
      encapsulation,
      vni,
      ...rest,
      port,
      vxlan: { ...macs, egressVni, ingressVni, ingressPort: ingressPort ?? 0 },
    };
  });

const telemetry = block({
  interval: duration(limits.intervalMs).default(defaults.telemetry.intervalMs),
  timeout: duration(limits.timeoutMs).default(defaults.telemetry.timeoutMs),
  retries: integer(limits.retries).default(defaults.telemetry.retries),
  startupGrace: duration(limits.startupGraceMs).default(defaults.telemetry.startupGraceMs),
  encoding: choice('json', 'protobuf').default(defaults.telemetryFormat.encoding),
  compression: choice('none', 'gzip').default(defaults.telemetryFormat.compression),
}).transform((value): Config['telemetry'] => ({
  intervalMs: value.interval,
  timeoutMs: value.timeout,
  retries: value.retries,
  startupGraceMs: value.startupGrace,
  encoding: value.encoding,
  compression: value.compression,
}));

const policy = block({
  mode: choice('enforce', 'observe').default(defaults.policy.mode),
  rollout: percentage(limits.rolloutPercent).default(defaults.policy.rolloutPercent),
  onTelemetryLoss: choice('pass', 'drop').default(defaults.policy.onTelemetryLoss),
  onAgentFailure: choice('pass', 'drop').default(defaults.policy.onAgentFailure),
  onFirewallDown: choice('pass', 'drop').default(defaults.policy.onFirewallDown),
  onBoot: choice('pass', 'drop').default(defaults.policy.onBoot),
  established: choice('pass', 'redirect', 'reset').default(defaults.policy.established),
}).transform((value): Config['policy'] => ({
  mode: value.mode,
  rolloutPercent: value.rollout,
  onTelemetryLoss: value.onTelemetryLoss,
  onFirewallDown: value.onFirewallDown,
  onAgentFailure: value.onAgentFailure,
  onBoot: value.onBoot,
  established: value.established,
}));

const rule = z.strictObject(
  {
    name: text('a name of letters, digits, dots, _ and -', /^[A-Za-z0-9._-]{1,64}$/).optional(),
    direction: choice('ingress', 'egress', 'both').default('both'),
    protocol,
    local: items('address'),
    remote: items('address'),
    localPort: items('port'),
    remotePort: items('port'),
    action: choice('redirect', 'pass', 'drop'),
    onFailure: choice('inherit', 'pass', 'drop').default('inherit'),
    log: yesOrNo.default(false),
    firewall: firewallNames.optional(),
  },
  { error: 'must be a block of keys with an action' },
);

/** Each section is parsed by itself, so that an error in one does not hide those of another. */
export const sections = {
  version,
  workload,
  firewalls,
  ha,
  tunnel,
  telemetry,
  policy,
  sets,
  default: choice('redirect', 'pass', 'drop').default(defaults.default),
  rules: z
    .preprocess((value) => value ?? [], list(rule, limits.rules, 'rules'))
    .meta({ type: ['array', 'null'] }),
  acceleration: choice('auto', 'kernel', 'off').default(defaults.acceleration),
  limits: block({
    flows: integer(limits.flows).default(defaults.limits.flows),
    acceleratedFlows: integer(limits.acceleratedFlows).default(defaults.limits.acceleratedFlows),
    workers: integer(limits.workers).default(defaults.limits.workers),
    busyPoll: yesOrNo.default(defaults.limits.busyPoll),
  }),
  control: block({
    socket: text(
      `an absolute path of at most ${limits.socketPath.max} bytes`,
      new RegExp(`^/[^\\0]{1,${limits.socketPath.max - 1}}$`),
    ).default(defaults.control.socket),
    http: block({ listen: loopback.optional(), tokenFile: path.default('') }),
  }),
  metrics: block({ listen: endpoint.optional() }),
  log: block({
    level: choice('debug', 'info', 'warn', 'error').default(defaults.log.level),
    format: choice('auto', 'pretty', 'json').default(defaults.log.format),
    flows: path.default(defaults.log.flows),
    which: choice('all', 'rules').default(defaults.log.which),
  }),
} as const;

export type SectionName = keyof typeof sections;
export type Sections = { [K in SectionName]: z.output<(typeof sections)[K]> };
