import { readFileSync } from 'node:fs';
import t from 'tap';
import { parseConfig } from '../../cli/config/parse.ts';
import { defaults } from '../../engine/config.ts';
import { file, pin, problemsOf } from './config-file.ts';

t.test('the smallest file has every default', async (t) => {
  const config = parseConfig(file(), 'f');
  const group = { members: [], intraGroup: 'destination' };
  t.same(config.workload, { interfaces: [], management: [], group, ipv6: 'pass' });
  t.match(config.firewalls, [
    {
      name: 'fw-a',
      address: 0x0a090004,
      returnFrom: { address: 0x0a090004, length: 32 },
      telemetry: { address: 0x0a090004, port: 443, ca: '/etc/ca.pem', pin: '' },
    },
  ]);
  t.same(config.ha, {
    distribution: 'active-passive',
    preempt: false,
    holdDownMs: 10_000,
    sessionSync: true,
    onLoss: 'rebalance',
    probe: { kind: 'tunnel', intervalMs: 1000, failures: 3, port: 0, path: '' },
  });
  t.match(config.tunnel, { encapsulation: 'geneve', vni: 48813, port: 6081, mtu: 0 });
  t.match(config.tunnel.vxlan, { egressVni: 48813, ingressVni: 48813 });
  t.same(config.telemetry, { ...defaults.telemetry, ...defaults.telemetryFormat });
  t.same(config.policy, defaults.policy);
  t.equal(config.default, 'redirect');
  t.same(config.rules, []);
  t.same(config.limits, defaults.limits);
  t.same(config.control, defaults.control);
  t.same(config.log, defaults.log);
  t.throws(() => {
    (config.tunnel.vxlan.innerSource as number[])[0] = 1;
  }, 'and cannot be changed');
});

t.test('every key that is honoured', async (t) => {
  const config = parseConfig(
    `version: 1
workload:
  group: { members: [10.1.0.0/24], intraGroup: both }
  interfaces: [eth0, ens5.100]
  addresses: auto
  management: [192.0.2.10, "tcp:198.51.100.0/24:22"]
  ipv6: drop
firewalls:
  - name: fw-a
    address: 200.9.0.4
    returnFrom: 10.9.0.0/28
    telemetry:
      url: https://10.9.0.5:8443/in
      pin: "${pin}"
      clientCertificate: /etc/client.pem
      clientKey: /etc/client.key
ha:
  distribution: flow-hash
  preempt: true
  holdDown: 3s
  sessionSync: false
  onLoss: reset
  probe: { kind: https, interval: 100ms, failures: 5, port: 443, path: /health }
tunnel:
  encapsulation: vxlan
  vni: 7
  mtu: 9000
  geneve: { inner: ethernet, optionClass: 0xFFF2, optionType: 0x21,
    optionData: "aa00bbcc00000000", directionBit: 9, cookieAt: none }
  gwlb: { endpointId: "0x0123456789ABCDEF", attachmentId: 0x10 }
  gcp: { endpointId: "0xCAFE0001cafe0002", profileId: 255 }
  vxlan: { egressVni: 800, egressPort: 10800, ingressPort: 10801,
    innerSource: 02:00:00:00:00:0A, innerDestination: 02:00:00:00:00:0b }
telemetry: { interval: 500ms, timeout: 0.3s, retries: 2, startupGrace: 2m,
  encoding: protobuf, compression: gzip }
policy:
  mode: observe
  rollout: 25%
  onTelemetryLoss: drop
  onFirewallDown: drop
  onAgentFailure: drop
  onBoot: drop
  established: reset
sets: {}
default: pass
rules: []
acceleration: kernel
limits: { flows: 64, acceleratedFlows: 128, workers: 1, busyPoll: false }
control: { socket: /tmp/x.sock }
log: { level: debug, format: json, flows: /var/log/flows.ndjson, which: rules }
`,
    'f',
  );
  t.same(config, {
    workload: {
      interfaces: ['eth0', 'ens5.100'],
      management: [
        { prefix: { address: 0xc000020a | 0, length: 32 }, protocol: 0, port: 0 },
        { prefix: { address: 0xc6336400 | 0, length: 24 }, protocol: 6, port: 22 },
      ],
      group: { members: [{ address: 0x0a010000, length: 24 }], intraGroup: 'both' },
      ipv6: 'drop',
    },
    firewalls: [
      {
        name: 'fw-a',
        address: 0xc8090004 | 0,
        returnFrom: { address: 0x0a090000, length: 28 },
        telemetry: {
          url: 'https://10.9.0.5:8443/in',
          address: 0x0a090005,
          port: 8443,
          ca: '',
          pin: pin.slice(7),
          clientCertificate: '/etc/client.pem',
          clientKey: '/etc/client.key',
        },
      },
    ],
    ha: {
      distribution: 'flow-hash',
      preempt: true,
      holdDownMs: 3000,
      sessionSync: false,
      onLoss: 'reset',
      probe: { kind: 'https', intervalMs: 100, failures: 5, port: 443, path: '/health' },
    },
    tunnel: {
      encapsulation: 'vxlan',
      vni: 7,
      port: 10800,
      mtu: 9000,
      geneve: {
        inner: 'ethernet',
        optionClass: 0xfff2,
        optionType: 0x21,
        optionData: 'aa00bbcc00000000',
        directionBit: 9,
        cookieAt: -1,
      },
      gwlb: { endpointId: '0123456789abcdef', attachmentId: '0000000000000010' },
      gcp: { endpointId: 'cafe0001cafe0002', profileId: '00000000000000ff' },
      vxlan: {
        egressVni: 800,
        ingressVni: 7,
        ingressPort: 10801,
        innerSource: [2, 0, 0, 0, 0, 10],
        innerDestination: [2, 0, 0, 0, 0, 11],
      },
    },
    telemetry: {
      ...{ intervalMs: 500, timeoutMs: 300, retries: 2, startupGraceMs: 120_000 },
      ...{ encoding: 'protobuf', compression: 'gzip' },
    },
    policy: {
      mode: 'observe',
      rolloutPercent: 25,
      onTelemetryLoss: 'drop',
      onFirewallDown: 'drop',
      onAgentFailure: 'drop',
      onBoot: 'drop',
      established: 'reset',
    },
    default: 'pass',
    rules: [],
    acceleration: 'kernel',
    limits: { flows: 64, acceleratedFlows: 128, workers: 1, busyPoll: false },
    control: { socket: '/tmp/x.sock' },
    log: { level: 'debug', format: 'json', flows: '/var/log/flows.ndjson', which: 'rules' },
  });
});

t.test('all errors at once, in the order of lines', async (t) => {
  const text = `version: 1
workload: { ipv6: maybe }
firewalls:
  - { name: a, address: nowhere, telemetry: { url: https://10.9.0.4/, ca: /a } }
telemetry: { interval: 1s, timeout: 2s }
rules: [{ name: dns }, { remotePort: $web, action: pass }]
logs: {}
`;
  t.match(problemsOf(text), [
    /^f:2:19: workload.ipv6/,
    /^f:4:25: firewalls\[0\].address/,
    /^f:5:37: telemetry.timeout/,
    /^f:6:9: rules\[0\].action: is missing: redirect or pass or drop is needed/,
    /^f:7:1: logs: unknown key: did you mean log/,
  ]);
  t.equal(problemsOf(text).length, 5);
});

t.test('an alias bomb is refused, an ordinary alias is not', async (t) => {
  const list = (name: string, of: string) => `${name}: &${name} [${Array(20).fill(of).join(', ')}]`;
  const bomb = [list('a', 'x'), list('b', '*a'), list('c', '*b'), list('d', '*c')].join('\n');
  t.match(problemsOf(bomb), [/^f:1:1: .*alias/i]);
  const text = file({ x: 'policy: { onTelemetryLoss: &p drop, onAgentFailure: *p }' });
  t.match(parseConfig(text, 'f').policy, { onTelemetryLoss: 'drop', onAgentFailure: 'drop' });
});

t.test('a firewall of a gateway is not probed unless one says so', async (t) => {
  const gateway = parseConfig(file({ x: 'tunnel: { encapsulation: gwlb }' }), 'f');
  t.equal(gateway.ha.probe.kind, 'off');
  const told = 'tunnel: { encapsulation: gwlb }\nha: { probe: { kind: tcp, port: 80 } }';
  t.match(parseConfig(file({ x: told }), 'f').ha.probe, { kind: 'tcp', port: 80 });
});

t.test('several firewalls differ by name and address, and rules name them', async (t) => {
  const one = (name: string, address: string) =>
    `  - { name: ${name}, address: ${address}, telemetry: ` +
    `{ url: "https://${address}/v1", ca: /etc/ca.pem } }`;
  const firewalls = (...rows: string[]) => ({ firewalls: ['firewalls:', ...rows].join('\n') });
  const three = firewalls(one('a', '10.9.0.4'), one('b', '10.9.0.5'), one('c', '10.9.0.6'));
  const rules = 'rules: [{ action: redirect, firewall: [c, a] }, { action: redirect }]';
  const config = parseConfig(file({ ...three, x: rules }), 'f');
  t.same(
    config.rules.map((rule) => rule.firewalls),
    [0b101, -1],
  );
  t.match(problemsOf(file(firewalls(one('a', '10.9.0.4'), one('a', '10.9.0.4')))), [
    /^f:4:13: firewalls\[1\].name: a is the name of another firewall already/,
    /^f:4:25: firewalls\[1\].address: 10.9.0.4 is the address of a already/,
  ]);
  const many = Array.from({ length: 17 }, (_, i) => one(`f${i}`, `10.9.1.${i}`));
  t.match(problemsOf(file(firewalls(...many))), [/firewalls: must have at most 16 entries/]);
});

t.test('the contract is honoured whole', async (t) => {
  const text = readFileSync('test/golden/config.example.yaml', 'utf8');
  t.same(problemsOf(text), []);
  t.match(parseConfig(text, 'f').workload.group, {
    members: [{ length: 24 }],
    intraGroup: 'destination',
  });
});
