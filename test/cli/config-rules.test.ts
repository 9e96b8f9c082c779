import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import t from 'tap';
import { ConfigError, formatProblem, parseConfig, readConfig } from '../../cli/config/parse.ts';
import { file, problemsOf } from './config-file.ts';

const rules = (...lines: string[]) =>
  file({ x: `rules:\n${lines.map((line) => `  - ${line}`).join('\n')}` });
const withSets = (sets: string, ...lines: string[]) =>
  file({ x: `sets: ${sets}\nrules:\n${lines.map((line) => `  - ${line}`).join('\n')}` });

t.test("the contract's rules, as the classifier takes them", async (t) => {
  const contract = readFileSync('test/golden/config.example.yaml', 'utf8');
  const policy = contract.slice(contract.indexOf('sets:'), contract.indexOf('limits:'));
  const config = parseConfig(file({ x: policy }), 'f');
  const any = { local: [], remote: [], localPort: [], remotePort: [] };
  const plain = { ...any, onFailure: 'inherit', firewalls: -1, log: false };
  t.equal(config.default, 'redirect');
  const port = (number: number) => [{ first: number, last: number }];
  const first = 5 + policy.slice(0, policy.indexOf('- { name: dns')).split('\n').length;
  t.same(config.rules, [
    {
      ...plain,
      name: 'dns',
      line: first,
      opener: 1,
      protocol: 17,
      remotePort: port(53),
      verdict: 2,
    },
    {
      ...plain,
      name: 'web-in',
      line: first + 1,
      opener: 2,
      protocol: 6,
      localPort: [...port(80), ...port(443), { first: 8000, last: 8099 }],
      verdict: 1,
    },
    {
      ...plain,
      name: 'db-out',
      line: first + 2,
      opener: 1,
      protocol: 6,
      remote: [
        { first: 0x0a020000, last: 0x0a0200ff },
        { first: 0x0a020709, last: 0x0a020709 },
      ],
      remotePort: port(5432),
      verdict: 1,
      onFailure: 'drop',
    },
    {
      ...plain,
      name: 'backup',
      line: first + 3,
      opener: 3,
      protocol: 6,
      remote: [{ first: 0x0a030005, last: 0x0a030005 }],
      verdict: 2,
    },
    {
      ...plain,
      name: 'no-telnet',
      line: first + 4,
      opener: 3,
      protocol: 6,
      localPort: port(23),
      verdict: 3,
    },
  ]);
});

t.test('lists, ranges, sets in lists and in sets', async (t) => {
  const text = withSets(
    '{ a: [10.0.0.0/24, 10.0.1.0/24], b: [$a, 200.0.0.1], p: 80 }',
    '{ local: [$b, 10.0.2.0 - 10.0.2.255], remote: any, localPort: [79, "81-90", $p], action: pass }',
    '{ protocol: 132, remote: [any, 1.2.3.4], action: drop, log: true }',
    '{ protocol: any, remote: 0.0.0.0/0, remotePort: 0-65535, action: pass }',
  );
  const { rules } = parseConfig(text, 'f');
  t.match(rules, [
    {
      name: '#1',
      line: 8,
      protocol: -1,
      local: [
        { first: 0x0a000000, last: 0x0a0002ff },
        { first: 0xc8000001, last: 0xc8000001 },
      ],
      remote: [],
      localPort: [{ first: 79, last: 90 }],
    },
    { name: '#2', protocol: 132, log: true, verdict: 3 },
    { remote: [{ first: 0, last: 0xffffffff }], remotePort: [{ first: 0, last: 65535 }] },
  ]);
  t.same(rules[1]!.remote, []);
});

const rows: [text: string, problem: string][] = [
  // Rules.
  [file({ x: 'rules: 5' }), 'f:6:8: rules: must be a list of rules'],
  [rules('5'), 'f:7:5: rules[0]: must be a block of keys with an action'],
  [rules('{ name: a }'), 'f:7:5: rules[0].action: is missing: redirect or pass or drop is needed'],
  [rules('{ action: allow }'), 'f:7:15: rules[0].action: must be redirect or pass or drop'],
  [
    rules('{ action: pass, remotPort: 1 }'),
    'f:7:21: rules[0].remotPort: unknown key: did you mean remotePort?',
  ],
  [
    rules('{ action: pass, firewall: [fw-a, fw-b] }'),
    'f:7:31: rules[0].firewall: there is no firewall fw-b: did you mean fw-a?',
  ],
  [
    rules('{ name: a, action: pass }', '{ name: a, action: drop }'),
    'f:8:13: rules[1].name: a is the name of the rule in line 7 already',
  ],
  [rules('{ name: "a b", action: pass }'), 'f:7:13: rules[0].name: must be a name of letters'],
  [
    rules('{ protocol: sctp, action: pass }'),
    'f:7:17: rules[0].protocol: must be any, tcp, udp, icmp or a number from 0 to 255, not "sctp"',
  ],
  [rules('{ protocol: 256, action: pass }'), 'f:7:17: rules[0].protocol: must be any'],
  [rules('{ log: "no", action: pass }'), 'f:7:12: rules[0].log: must be true or false, not "no"'],
  [
    rules('{ onFailure: block, action: pass }'),
    'f:7:18: rules[0].onFailure: must be inherit or pass or drop',
  ],
  [
    rules('{ direction: out, action: pass }'),
    'f:7:18: rules[0].direction: must be ingress or egress or both',
  ],
  // Addresses and ports.
  [
    rules('{ remote: 10.0.0.300, action: pass }'),
    'f:7:15: rules[0].remote: must be an address, CIDR, A-B, $set or any, not "10.0.0.300"',
  ],
  [
    rules('{ remote: [10.0.0.1, 10.0.0.1/8], action: pass }'),
    'f:7:26: rules[0].remote[1]: 10.0.0.1/8 has bits set beyond its length: did you mean 10.0.0.0/8?',
  ],
  [
    rules('{ local: 10.0.0.9-10.0.0.1, action: pass }'),
    'f:7:14: rules[0].local: 10.0.0.9-10.0.0.1 is reversed: did you mean 10.0.0.1-10.0.0.9?',
  ],
  [rules('{ local: [], action: pass }'), 'f:7:14: rules[0].local: must have at least one entry'],
  [
    rules('{ remotePort: 65536, action: pass }'),
    'f:7:19: rules[0].remotePort: 65536 is out of range: ports go from 0 to 65535',
  ],
  [
    rules('{ remotePort: [1, 90-80], action: pass }'),
    'f:7:23: rules[0].remotePort[1]: 90-80 is reversed: did you mean 80-90?',
  ],
  [rules('{ localPort: http, action: pass }'), 'f:7:18: rules[0].localPort: must be a port from 0'],
  [rules('{ localPort: -5, action: pass }'), 'f:7:18: rules[0].localPort: -5 is out of range'],
  [rules('{ localPort: 1.5, action: pass }'), 'f:7:18: rules[0].localPort: 1.5 is out of range'],
  [
    rules('{ protocol: icmp, remotePort: 53, action: pass }'),
    'f:7:23: rules[0].remotePort: icmp has no ports: only tcp and udp have',
  ],
  [
    rules('{ protocol: 47, localPort: [1], action: pass }'),
    'f:7:21: rules[0].localPort: protocol 47 has no ports',
  ],
  // Sets.
  [file({ x: 'sets: [1]' }), 'f:6:7: sets: must be a block of named lists'],
  [file({ x: 'sets: { a: [] }' }), 'f:6:12: sets.a: is empty: a rule with it could never match'],
  [file({ x: 'sets:\n  a:' }), 'f:7:'],
  [file({ x: 'sets: { 1a: [1] }' }), 'f:6:13: sets.1a: must be a name of letters'],
  [file({ x: 'sets: { a: [1, ten] }' }), 'f:6:16: sets.a[1]: must be an address, CIDR, port'],
  [file({ x: 'sets: { a: [any] }' }), 'f:6:13: sets.a[0]: any is not for sets'],
  [
    file({ x: 'sets: { a: [10.0.0.1, 80] }' }),
    'f:6:23: sets.a[1]: a set holds addresses or ports, not both',
  ],
  [file({ x: 'sets: { a: [10.0.0.1, $b] }' }), 'f:6:23: sets.a[1]: there is no set b: '],
  [file({ x: 'sets: { a: $a }' }), 'f:6:12: sets.a: the set holds itself: $a -> $a'],
  [
    file({ x: 'sets: { a: [$b], b: [$a] }' }),
    'f:6:22: sets.b[0]: the set holds itself: $a -> $b -> $a',
  ],
  [
    withSets('{ databases: [10.0.0.1] }', '{ remote: $database, action: pass }'),
    'f:8:15: rules[0].remote: there is no set database: did you mean $databases?',
  ],
  [
    withSets('{ web: [80] }', '{ remote: [10.0.0.1, $web], action: pass }'),
    'f:8:26: rules[0].remote[1]: $web is a set of ports: addresses are needed here',
  ],
  [
    withSets('{ dbs: [10.0.0.1] }', '{ localPort: $dbs, action: pass }'),
    'f:8:18: rules[0].localPort: $dbs is a set of addresses: ports are needed here',
  ],
  [
    rules('{ remote: $a, action: pass }'),
    'f:7:15: rules[0].remote: there is no set a: sets: is empty',
  ],
  [rules('{ remote: $, action: pass }'), 'f:7:15: rules[0].remote: "$" is not the name of a set'],
  // Limits.
  [
    withSets(
      `{ p: [${Array.from({ length: 30_000 }, (_, i) => 2 * i).join(',')}] }`,
      ...Array.from({ length: 70 }, () => '{ localPort: $p, action: pass }'),
    ),
    'f:74:5: rules[66]: the rules down to here have, with their sets, 2010000 ranges',
  ],
  // What the YAML reader itself cannot take.
  ['['.repeat(50_000), 'f:1:'],
];

t.test('one error each, where it is and in words', async (t) => {
  for (const [text, expected] of rows) {
    const problems = problemsOf(text);
    t.equal(problems.length, 1, problems.join(' | '));
    t.equal(problems[0]?.slice(0, expected.length), expected);
  }
});

t.test('an unused set is a warning', async (t) => {
  const text = withSets('{ a: [1], b: [2], c: [$b] }', '{ localPort: [$a], action: pass }');
  const { warnings, placeOf } = readConfig(text, 'f');
  t.same(
    warnings.map((warning) => formatProblem('f', warning)),
    ['f:6:25: sets.c: is used by no rule'],
  );
  t.same(placeOf(['rules', 0]), { line: 8, column: 5 });
  t.same(placeOf(['default']), { line: 0, column: 0 });
});

t.test('more rules than the limit are refused', { timeout: 120_000 }, async (t) => {
  const many = (count: number) => file({ x: `rules:\n${'  - action: pass\n'.repeat(count)}` });
  t.match(problemsOf(many(100_001)), [/^f:7:3: rules: must have no more than 100000 of them$/]);
});

/** Text that looks like a configuration, with everything that may be wrong with one. */
const scalar = fc.oneof(
  fc.constantFrom('any', 'tcp', 'pass', 'drop', '$a', '$b', '10.0.0.0/8', '10.0.0.1-10.0.0.9'),
  fc.constantFrom('1', '-1', '80-90', '0x1F', '~', 'true', '""', "'", '*x', '&x 1', '!!binary x'),
  fc.constantFrom('[', ']', '{', '}', '[[', '? a', '<<', '__proto__', 'constructor', '%', '---'),
  fc.string({ maxLength: 12 }),
);
const key = fc.oneof(
  fc.constantFrom('version', 'firewalls', 'sets', 'rules', 'default', 'policy', 'tunnel', 'log'),
  fc.constantFrom('name', 'action', 'remote', 'localPort', 'protocol', 'a', 'b', 'mode', 'rollout'),
  fc.constantFrom('__proto__', 'toString', 'hasOwnProperty', '? [a]', '? {a: b}', 'length'),
  scalar,
);
const value = fc.letrec((tie) => ({
  node: fc.oneof({ maxDepth: 4 }, scalar, tie('list'), tie('map')),
  list: fc.array(tie('node'), { maxLength: 4 }).map((parts) => `[${parts.join(', ')}]`),
  map: fc
    .array(fc.tuple(key, tie('node')), { maxLength: 4 })
    .map((pairs) => `{ ${pairs.map(([name, node]) => `${name}: ${node}`).join(', ')} }`),
})).node as fc.Arbitrary<string>;
const document = fc
  .array(fc.tuple(fc.constantFrom('', '  ', '  - '), key, value), { maxLength: 8 })
  .map((lines) => lines.map(([indent, name, node]) => `${indent}${name}: ${node}`).join('\n'));

t.test('no text crashes the reader, and every problem has its place', async (t) => {
  const check = (text: string) => {
    try {
      parseConfig(text, 'f');
    } catch (error) {
      if (!(error instanceof ConfigError)) throw error;
      for (const { line, column, message } of error.problems) {
        if (!(line >= 1 && column >= 1 && message !== ''))
          throw new Error('a problem without place');
      }
    }
  };
  fc.assert(fc.property(document, check), { numRuns: 700 });
  fc.assert(
    fc.property(value, value, value, (sets, list, policy) =>
      check(file({ x: `sets: ${sets}\nrules: [${list}]\npolicy: ${policy}\ndefault: pass` })),
    ),
    { numRuns: 700 },
  );
  t.pass('crashes would have thrown');
});

t.test('keys of the flow log that change nothing are warned of', (t) => {
  const logged = 'rules: [{ action: pass }, { action: drop, log: true }]';
  const rows: [text: string, warnings: string[]][] = [
    ['log: { flows: /f }', []],
    [`log: { flows: /f, which: rules }\n${logged}`, []],
    ['log: { which: rules }', ['log.which: has no effect without log.flows']],
    [
      'log: { flows: /f, which: rules }',
      ['log.which: no rule has log: true, so the flow log stays empty'],
    ],
    [
      `log: { flows: /f }\n${logged}`,
      ['rules[1].log: has no effect without log.flows and log.which: rules'],
    ],
  ];
  for (const [text, expected] of rows) {
    const { warnings } = readConfig(file({ x: text }), 'f');
    t.same(
      warnings.map(({ key, message }) => `${key}: ${message}`),
      expected,
      text,
    );
  }
  t.end();
});
