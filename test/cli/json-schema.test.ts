/** The published JSON Schema and the reader of the file: one source, and they agree. */

import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import t from 'tap';
import { parse } from 'yaml';
import { z } from 'zod';
import { jsonSchemaText } from '../../cli/config/json-schema.ts';
import { file, problemsOf } from './config-file.ts';

const published = readFileSync('schema/microperimeter.schema.json', 'utf8');
// Read back by zod: no other validator is installed, and this one reads every keyword in use.
const validator = z.fromJSONSchema(JSON.parse(published));
const schemaAccepts = (text: string) => validator.safeParse(parse(text)).success;
const readerAccepts = (text: string) => problemsOf(text).length === 0;

t.test('what is published is what the source says', async (t) => {
  t.equal(published, jsonSchemaText(), 'else: node dist/cli/main.js schema > schema/…');
  const bare: string[] = [];
  const visit = (shape: Record<string, unknown>, path: string) => {
    if (path !== '' && shape.description === undefined) bare.push(path);
    const properties = (shape.properties ?? {}) as Record<string, Record<string, unknown>>;
    for (const [key, inner] of Object.entries(properties)) visit(inner, `${path}.${key}`);
    const items = shape.items as Record<string, unknown> | undefined;
    for (const [key, inner] of Object.entries(items?.properties ?? {})) {
      visit(inner as Record<string, unknown>, `${path}[].${key}`);
    }
  };
  visit(JSON.parse(published), '');
  t.same(bare, [], 'every key has a description');
});

const contract = readFileSync('test/golden/config.example.yaml', 'utf8');
const policy = contract.slice(contract.indexOf('policy:'), contract.indexOf('limits:'));

const good: string[] = [
  file(),
  file({ x: policy }),
  file({ x: 'log:\npolicy:\nsets:\nrules:\nworkload:' }),
  file({ x: 'sets: { a: 80, b: [$a, 1-2], c: [10.0.0.0/8, 1.2.3.4 - 1.2.3.5] }' }),
  file({ x: 'rules: [{ action: pass, localPort: ["80", " 1-2 ", any], remote: any }]' }),
  file({ x: 'rules: [{ action: pass, protocol: 0, firewall: }]' }),
  file({ x: 'policy: { mode: observe, rollout: 0%, established: reset }\ndefault: drop' }),
  file({ x: 'rules: [{ action: pass, firewall: fw-a }, { action: drop, firewall: [fw-a] }]' }),
  file({ x: 'ha: { distribution: flow-hash, onLoss: stick, probe: off }' }),
  file({ x: 'ha: { probe: { kind: https, port: 443, path: /health, interval: 100ms } }' }),
  file({ x: 'tunnel: { mtu: auto, geneve: , vni: 0x10 }\nha: { preempt: false }' }),
  file({ x: 'tunnel: { encapsulation: gwlb, gwlb: { endpointId: "0xffffffffffffffff" } }' }),
  file({ x: 'tunnel: { encapsulation: gcp, gcp: { endpointId: "00ff00ff", profileId: 7 } }' }),
  file({ x: 'workload: { management: [10.0.0.1, "tcp:10.0.0.0/8:22"], interfaces: [eth0] }' }),
];

/** Refused by both: what an editor underlines. */
const badShape: string[] = [
  contract,
  'version: 1',
  file({ version: 'version: 2' }),
  file({ firewalls: 'firewalls: []' }),
  file({ x: 'rule: []' }),
  file({ x: 'rules: {}' }),
  file({ x: 'rules: [{ name: a }]' }),
  file({ x: 'rules: [{ action: allow }]' }),
  file({ x: 'rules: [{ action: pass, remotPort: 1 }]' }),
  file({ x: 'rules: [{ action: pass, remotePort: [] }]' }),
  file({ x: 'rules: [{ action: pass, remotePort: 65536 }]' }),
  file({ x: 'rules: [{ action: pass, remote: example.org }]' }),
  file({ x: 'rules: [{ action: pass, protocol: sctp }]' }),
  file({ x: 'rules: [{ action: pass, log: 1 }]' }),
  file({ x: 'rules: [{ action: pass, firewall: 7 }]' }),
  file({ x: 'ha: { probe: { kind: ping } }' }),
  file({ x: 'sets: [1]' }),
  file({ x: 'sets: { 1a: [1] }' }),
  file({ x: 'sets: { a: [] }' }),
  file({ x: 'sets: { a: [any] }' }),
  file({ x: 'default: allow' }),
  file({ x: 'policy: { mode: watch }' }),
  file({ x: 'policy: { rollout: 10 }' }),
  file({ x: 'policy: { onBoot: redirect }' }),
  file({ x: 'telemetry: { interval: 5 }' }),
  file({ x: 'log: { level: loud }' }),
  file({ x: 'tunnel: { gwlb: { endpointId: "17" } }' }),
  file({ x: 'tunnel: { gcp: { endpointId: "00ff" } }' }),
];

/** What only the reader can see. */
const badMeaning: string[] = [
  file({ x: 'policy: { onBoot: drop }' }),
  file({ x: 'rules: [{ action: pass, remote: $a }]' }),
  file({ x: 'rules: [{ action: pass, firewall: fw-b }]' }),
  file({ x: 'ha: { probe: { kind: tcp } }' }),
  file({ x: 'rules: [{ action: pass, remote: 10.0.0.1/8 }]' }),
  file({ x: 'rules: [{ action: pass, localPort: 9-1 }]' }),
  file({ x: 'rules: [{ action: pass, protocol: icmp, localPort: 9 }]' }),
  file({ x: 'rules: [{ name: a, action: pass }, { name: a, action: pass }]' }),
  file({ x: 'sets: { a: [80, 10.0.0.1] }' }),
  file({ x: 'policy: { rollout: 101% }' }),
  file({ x: 'tunnel: { encapsulation: gcp, vni: 7 }' }),
  file({ x: 'telemetry: { interval: 1s, timeout: 2s }' }),
];

t.test('a table of documents', async (t) => {
  for (const text of good) {
    t.same(problemsOf(text), []);
    t.ok(schemaAccepts(text), text);
  }
  for (const text of badShape) {
    t.notOk(readerAccepts(text), text);
    t.notOk(schemaAccepts(text), text);
  }
  for (const text of badMeaning) {
    t.notOk(readerAccepts(text), text);
    t.ok(schemaAccepts(text), text);
  }
});

t.test('what the reader accepts, the schema accepts', async (t) => {
  const word = fc.constantFrom('any', '80', '8-9', '"80"', '10.0.0.0/8', '1.1.1.1-2.2.2.2', '$a');
  const noise = fc.oneof(
    word,
    fc.array(word, { maxLength: 3 }).map((words) => `[${words.join(', ')}]`),
    fc.constantFrom('pass', 'drop', 'tcp', '6', 'true', '~', '{}', '50%', 'observe', 'egress'),
  );
  const or = (...right: string[]) =>
    fc.oneof({ weight: 4, arbitrary: fc.constantFrom(...right) }, { weight: 1, arbitrary: noise });
  const block = (keys: Record<string, fc.Arbitrary<string>>, ...requiredKeys: string[]) =>
    fc.record(keys, { requiredKeys }).map((pairs) =>
      Object.entries(pairs)
        .map((pair) => pair.join(': '))
        .join(', '),
    );
  const addresses = or('any', '10.0.0.0/8', '[1.1.1.1-2.2.2.2, any]', '[10.0.0.1]');
  const ports = or('$a', '80', '[$a, 8-9, "80"]', '" 1 - 2"');
  const rule = block(
    {
      action: or('pass'),
      protocol: or('tcp', 'udp', 'any', '6'),
      local: addresses,
      remotePort: ports,
    },
    'action',
  ).map((text) => `{ ${text} }`);
  const modes = block({ mode: or('observe'), rollout: or('50%'), established: or('reset') }).map(
    (text) => `{ ${text} }`,
  );
  const set = or('80', '[80]', '[8-9, "80"]');
  let accepted = 0;
  fc.assert(
    fc.property(set, rule, modes, (ports, one, policy) => {
      const text = file({ x: `sets: { a: ${ports} }\nrules: [${one}]\npolicy: ${policy}` });
      if (!readerAccepts(text)) return;
      accepted++;
      if (!schemaAccepts(text)) throw new Error(`the schema refuses ${text}`);
    }),
    { numRuns: 1500 },
  );
  t.ok(accepted > 100, `${accepted} accepted`);
});
