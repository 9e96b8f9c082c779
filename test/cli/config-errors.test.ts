import t from 'tap';
import { file, firewall, pin, problemsOf } from './config-file.ts';

const rows: [text: string, problem: string][] = [
  // YAML itself.
  ['', 'f:1:1: the file is empty'],
  ['- a\n', 'f:1:1: must be a block of keys, not a list'],
  [file({ log: 'log: { level: info' }), 'f:7:1: '],
  [file({ again: 'version: 1' }), 'f:6:1: map keys must be unique'],
  [file({ two: '---\na: 1' }), 'f:6:1: '],
  [file({ tag: 'log: !js {}' }), 'f:6:6: unresolved tag: !js'],
  // Unknown keys.
  [file({ x: 'tunel: {}' }), 'f:6:1: tunel: unknown key: did you mean tunnel?'],
  [file({ x: 'xyz: 1' }), 'f:6:1: xyz: unknown key: known here: version, workload, '],
  [file({ x: 'log:\n  levle: info' }), 'f:7:3: log.levle: unknown key: did you mean level?'],
  [
    file({ x: 'tunnel: { geneve: { iner: ipv4 } }' }),
    'f:6:21: tunnel.geneve.iner: unknown key: did you mean inner?',
  ],
  [
    file({ firewalls: firewall('name: a, address: 10.9.0.4, returnfrom: 10.9.0.0/28') }),
    'f:3:35: firewalls[0].returnfrom: unknown key: did you mean returnFrom?',
  ],
  [
    file({
      firewalls: firewall('name: a, address: 10.9.0.4', 'url: https://10.0.0.1, ca: /a, pn: b'),
    }),
    'f:3:79: firewalls[0].telemetry.pn: unknown key: did you mean pin?',
  ],
  // What must be there.
  [file({ version: '' }), 'f:1:1: version: is missing: write version: 1'],
  [file({ version: 'version: 2' }), 'f:1:10: version: must be 1'],
  ['version: 1\n', 'f:1:1: firewalls: is missing: a list with a firewall is needed'],
  [file({ firewalls: 'firewalls: []' }), 'f:2:1: firewalls: must have an entry'],
  [file({ firewalls: 'firewalls: [1]' }), 'f:2:13: firewalls[0]: must be a block with name'],
  [
    file({ firewalls: firewall('name: a') }),
    'f:3:5: firewalls[0].address: is missing: an IPv4 address such as 10.9.0.4 is needed',
  ],
  [
    file({ firewalls: 'firewalls:\n  - { name: a, address: 10.9.0.4 }' }),
    'f:3:5: firewalls[0].telemetry: is missing: a block with url and ca (or pin)',
  ],
  // Kinds of values.
  [file({ x: 'log: 5' }), 'f:6:6: log: must be a block of keys'],
  [
    file({ x: 'log: { level: 5 }' }),
    'f:6:15: log.level: must be debug or info or warn or error, not 5',
  ],
  [
    file({ x: 'tunnel: { vni: 16777216 }' }),
    'f:6:16: tunnel.vni: must be a whole number from 0 to 16777215, not 16777216',
  ],
  [
    file({ x: 'tunnel: { port: "6081" }' }),
    'f:6:17: tunnel.port: must be a whole number from 1 to 65535, not "6081"',
  ],
  [
    file({ x: 'tunnel: { mtu: 100 }' }),
    'f:6:16: tunnel.mtu: must be auto or a whole number from 576 to 9216',
  ],
  [
    file({ x: 'tunnel: { vxlan: { innerSource: 02:00 } }' }),
    'f:6:33: tunnel.vxlan.innerSource: must be a MAC address',
  ],
  [file({ x: 'limits: { flows: 63 }' }), 'f:6:18: limits.flows: must be a whole number from 64'],
  [
    file({ x: 'telemetry: { interval: 5 }' }),
    'f:6:24: telemetry.interval: must be a duration from 200ms to 5m, such as 500ms, 10s or 2m, not 5',
  ],
  [
    file({ x: 'telemetry: { retries: 0 }' }),
    'f:6:23: telemetry.retries: must be a whole number from 1',
  ],
  [
    file({ x: 'workload: { interfaces: eth0 }' }),
    'f:6:25: workload.interfaces: must be a list of network interfaces',
  ],
  [
    file({ x: 'workload: { interfaces: [lo] }' }),
    'f:6:26: workload.interfaces[0]: must be a network interface other than lo',
  ],
  [
    file({ x: 'workload: { interfaces: [a, b, a] }' }),
    'f:6:32: workload.interfaces[2]: a is listed twice',
  ],
  [
    file({ x: 'workload: { management: ["tcp:10.0.0.0/8"] }' }),
    'f:6:26: workload.management[0]: must be an address, a prefix, or tcp:PREFIX:PORT',
  ],
  [
    file({ x: 'workload: { management: [10.1.2.3/24] }' }),
    'f:6:26: workload.management[0]: 10.1.2.3/24 has bits set beyond its length: did you mean 10.1.2.0/24?',
  ],
  [file({ x: 'control: { socket: run/x }' }), 'f:6:20: control.socket: must be an absolute path'],
  [
    file({ firewalls: firewall('name: a b, address: 10.9.0.4') }),
    'f:3:13: firewalls[0].name: must be a name of letters',
  ],
  [
    file({ firewalls: firewall('name: a, address: fw.example') }),
    'f:3:25: firewalls[0].address: must be an IPv4 address such as 10.9.0.4, not "fw.example"',
  ],
  [
    file({ firewalls: firewall('name: a, address: 10.9.0.4, returnFrom: 10.9.0.4/28') }),
    'f:3:47: firewalls[0].returnFrom: 10.9.0.4/28 has bits set',
  ],
  // Telemetry.
  ...(
    [
      [
        'url: http://10.9.0.4/, ca: /a',
        ':53: firewalls[0].telemetry.url: must begin with https://',
      ],
      [
        'url: https://fw.example/, ca: /a',
        ':53: firewalls[0].telemetry.url: must name its host by an IPv4 address',
      ],
      [
        'url: "https://u:p@10.9.0.4/", ca: /a',
        ':53: firewalls[0].telemetry.url: must not hold a user or password',
      ],
      [
        'url: nonsense, ca: /a',
        ':53: firewalls[0].telemetry.url: must be an address such as https://',
      ],
      [
        'url: https://224.0.0.1/, ca: /a',
        ':53: firewalls[0].telemetry.url: 224.0.0.1 is not an address that a host can have',
      ],
      ['url: https://10.9.0.4/', ':46: firewalls[0].telemetry: needs either ca or pin'],
      [
        `url: https://10.9.0.4/, ca: /a, pin: "${pin}"`,
        ':46: firewalls[0].telemetry: needs either ca or pin',
      ],
      [
        'url: https://10.9.0.4/, ca: ca.pem',
        ':76: firewalls[0].telemetry.ca: must be the absolute path of a file, not "ca.pem"',
      ],
      [
        'url: https://10.9.0.4/, pin: "sha1/abc"',
        ':77: firewalls[0].telemetry.pin: must be sha256/ and the base64',
      ],
      [
        'url: https://10.9.0.4/, ca: /a, clientKey: /k',
        ':46: firewalls[0].telemetry: clientCertificate and clientKey go together',
      ],
    ] as const
  ).map(([telemetry, problem]): [string, string] => [
    file({ firewalls: firewall('name: a, address: 10.9.0.4', telemetry) }),
    `f:3${problem}`,
  ]),
  // What does not fit together.
  [
    file({ firewalls: firewall('name: a, address: 127.0.0.1') }),
    'f:3:25: firewalls[0].address: 127.0.0.1 is not an address that a firewall can have',
  ],
  [
    file({ firewalls: firewall('name: a, address: 255.255.255.255') }),
    'f:3:25: firewalls[0].address: 255.255.255.255 is not',
  ],
  [
    file({ x: 'workload: { management: [10.9.0.0/16] }' }),
    'f:6:26: workload.management[0]: 10.9.0.0/16 holds the firewall fw-a (10.9.0.4): a firewall must not be a management exception',
  ],
  [
    file({ x: 'workload: { management: ["udp:0.0.0.0/0:6081"] }' }),
    'f:6:26: workload.management[0]: 0.0.0.0/0 holds the firewall',
  ],
  [
    file({ x: 'telemetry: { interval: 1s, timeout: 2s }' }),
    'f:6:37: telemetry.timeout: 2s is longer than the interval of 1s',
  ],
  [
    file({ x: 'tunnel: { vxlan: { innerDestination: 02:00:00:00:00:01 } }' }),
    'f:6:38: tunnel.vxlan.innerDestination: is the same as innerSource',
  ],
  // Policy.
  [
    file({ x: 'policy: { mode: watch }' }),
    'f:6:17: policy.mode: must be enforce or observe, not "watch"',
  ],
  [
    file({ x: 'policy: { rollout: 101% }' }),
    'f:6:20: policy.rollout: must be a share from 0% to 100%, such as 10%, not "101%"',
  ],
  [file({ x: 'default: allow' }), 'f:6:10: default: must be redirect or pass or drop, not "allow"'],
  // Known, and not honoured by this version.
  [
    file({ x: 'workload: { addresses: [10.0.0.1] }' }),
    'f:6:13: workload.addresses: not supported yet: ',
  ],
  [
    file({ x: 'workload: { group: { members: [10.1.0.0/24] } }' }),
    'f:6:13: workload.group: not supported yet: ',
  ],
  [file({ x: 'ha: { preempt: 1 }' }), 'f:6:16: ha.preempt: must be true or false, not 1'],
  [file({ x: 'ha: { holdDown: 2h }' }), 'f:6:17: ha.holdDown: must be a duration from 0s to 60m'],
  [
    file({ x: 'ha: { distribution: random }' }),
    'f:6:21: ha.distribution: must be active-passive or flow-hash, not "random"',
  ],
  [file({ x: 'ha: { onLoss: move }' }), 'f:6:15: ha.onLoss: must be rebalance or stick or reset'],
  [
    file({ x: 'ha: { probe: { interval: 50ms } }' }),
    'f:6:26: ha.probe.interval: must be a duration from 100ms to 1m',
  ],
  [
    file({ x: 'ha: { probe: { failures: 0 } }' }),
    'f:6:26: ha.probe.failures: must be a whole number from 1 to 10',
  ],
  [
    file({ x: 'ha: { probe: { kind: tcp } }' }),
    'f:6:7: ha.probe.port: is missing: tcp needs a port',
  ],
  [file({ x: 'ha: { probe: { port: 80 } }' }), 'f:6:16: ha.probe.port: is for tcp, http and https'],
  [
    file({ x: 'ha: { probe: { kind: tcp, port: 80, path: /x } }' }),
    'f:6:37: ha.probe.path: is for http and https only',
  ],
  [file({ x: 'ha: { probe: on }' }), 'f:6:14: ha.probe: must be'],
  [
    file({ x: 'tunnel: { encapsulation: gre }' }),
    'f:6:26: tunnel.encapsulation: must be geneve or gwlb or gcp or vxlan, not "gre"',
  ],
  [
    file({ x: 'tunnel: { encapsulation: gwlb, vni: 7 }' }),
    'f:6:37: tunnel.vni: must be 0 or left out: gwlb has no other',
  ],
  [
    file({ x: 'tunnel: { gwlb: { endpointId: 0x0123456789abcdef } }' }),
    'f:6:31: tunnel.gwlb.endpointId: must be a number of 64 bits: up to 9007199254740991, or hexadecimal digits in quotes such as "0x1a2b", not 81985529216486900',
  ],
  [
    file({ x: 'tunnel: { gwlb: { attachmentId: "0x00112233445566778" } }' }),
    'f:6:33: tunnel.gwlb.attachmentId: must be a number of 64 bits',
  ],
  [
    file({ x: 'tunnel: { gcp: { endpointId: 0 } }' }),
    'f:6:30: tunnel.gcp.endpointId: must be hexadecimal digits in quotes, 8 for each of 1 to 31 words, not 0',
  ],
  [
    file({ x: 'tunnel: { gcp: { endpointId: "0011223" } }' }),
    'f:6:30: tunnel.gcp.endpointId: must',
  ],
  [file({ x: 'tunnel: { gcp: { profileId: -1 } }' }), 'f:6:29: tunnel.gcp.profileId: must be a'],
  [
    file({ x: 'policy: { onFirewallDown: stop }' }),
    'f:6:27: policy.onFirewallDown: must be pass or drop, not "stop"',
  ],
  [
    file({ x: 'policy: { onBoot: drop }' }),
    'f:6:19: policy.onBoot: drop needs workload.interfaces: at boot there is no default route',
  ],
  [
    file({ x: 'limits: { workers: 2 }' }),
    'f:6:11: limits.workers: not supported yet: there is exactly one',
  ],
  [
    file({ x: 'metrics: { listen: 9469 }' }),
    'f:6:20: metrics.listen: must be an IPv4 address and port such as 127.0.0.1:9469, not 9469',
  ],
];

t.test('one error each, where it is and in words', async (t) => {
  for (const [text, expected] of rows) {
    const problems = problemsOf(text);
    t.equal(problems.length, 1, problems.join(' | '));
    t.equal(problems[0]?.slice(0, expected.length), expected);
  }
});
