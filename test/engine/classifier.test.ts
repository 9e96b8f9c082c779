// Flags: --expose-gc
/**
 * The compiled rules against the linear twin. MICROPERIMETER_FULL=1 takes 100,000 headers of each
 * ClassBench set instead of some thousand.
 */
import fc from 'fast-check';
import t from 'tap';
import { compile, defaultLimits } from '../../engine/classifier/compile.ts';
import { match } from '../../engine/classifier/match.ts';
import { noRule, type Range, type Rule } from '../../engine/classifier/rules.ts';
import { RulesTooLargeError, type Tables } from '../../engine/classifier/tables.ts';
import { classBenchFolder, classBenchSets } from '../model/classbench.ts';
import { type Header, linearMatch } from '../model/classifier.ts';
import {
  characters,
  generateHeaders,
  generateRules,
  headerDefaults,
  makeRule,
  seeded,
} from '../model/rule-sets.ts';
import { nearHeaders, ruleArbitrary } from '../support/arbitrary-rules.ts';

const seed = Number(process.env.SEED ?? 20_240_611);
const isFull = process.env.MICROPERIMETER_FULL === '1';
if (isFull) t.setTimeout(0);

function lookUp(tables: Tables, header: Header): number {
  const { opener, local, remote, localPort, remotePort, protocol } = header;
  return match(tables, opener, local | 0, remote | 0, localPort, remotePort, protocol);
}

/** The first header on which the two differ, with both answers. */
function difference(rules: readonly Rule[], tables: Tables, headers: readonly Header[]) {
  for (const header of headers) {
    const found = lookUp(tables, header);
    const expected = linearMatch(rules, header);
    if (found !== expected) return { header, found, expected };
  }
  return undefined;
}

t.test('random rules, whose ranges meet in every way', (t) => {
  fc.assert(
    fc.property(fc.array(ruleArbitrary, { maxLength: 24 }), fc.nat(), (rules, headerSeed) => {
      const headers = nearHeaders(rules, 120, seeded(headerSeed));
      const tables = compile(rules);
      return tables.scanRoot < 0 && difference(rules, tables, headers) === undefined;
    }),
    { seed, numRuns: 200 },
  );
  t.end();
});

t.test('no rules, one rule, the same rule twice', (t) => {
  const one = makeRule({
    protocol: 6,
    opener: 2,
    local: [{ first: 0xc0a80000, last: 0xc0a800ff }],
    remotePort: [{ first: 443, last: 443 }],
  });
  for (const rules of [[], [one], [one, one], [makeRule({})], [one, makeRule({}), one]]) {
    const headers = nearHeaders([one], 2000, seeded(seed));
    t.equal(difference(rules, compile(rules), headers), undefined, `${rules.length} rules`);
  }
  const header = {
    opener: 1,
    local: 0xc0a80001,
    remote: 1,
    localPort: 5,
    remotePort: 443,
    protocol: 6,
  } as const;
  t.equal(lookUp(compile([one, one]), header), 0, 'the first of two');
  t.equal(lookUp(compile([]), header), noRule);
  t.end();
});

t.test('ports belong to TCP and UDP: a rule with all of them matches no other', (t) => {
  const rules = [makeRule({ localPort: [{ first: 0, last: 65535 }] })];
  const tables = compile(rules);
  const header = { opener: 0, local: 1, remote: 2, localPort: 0, remotePort: 0 } as const;
  for (let protocol = 0; protocol < 256; protocol++) {
    const expected = protocol === 6 || protocol === 17 ? 0 : noRule;
    t.equal(lookUp(tables, { ...header, protocol }), expected, `protocol ${protocol}`);
  }
  t.end();
});

t.test('generated sets', (t) => {
  for (const [name, character] of Object.entries(characters)) {
    for (const count of [100, 500, 2000]) {
      const rules = generateRules(character, count, seed);
      const tables = compile(rules);
      const headers = [
        ...generateHeaders(rules, 3000, { ...headerDefaults, seed }),
        ...nearHeaders(rules.slice(0, 200), 1000, seeded(seed)),
      ];
      t.ok(tables.scanRoot < 0, `${name} ${count} is a trie`);
      t.equal(difference(rules, tables, headers), undefined, `${name} ${count}`);
    }
  }
  t.end();
});

t.test('ClassBench sets', (t) => {
  const sets = classBenchSets();
  if (sets.size === 0) t.comment(`no ClassBench sets in ${classBenchFolder}; not tried`);
  for (const [name, rules] of sets) {
    const count = isFull ? 100_000 : 1000;
    const tables = compile(rules);
    const headers = generateHeaders(rules, count, { ...headerDefaults, seed });
    t.equal(difference(rules, tables, headers), undefined, `${name}, ${count} headers`);
  }
  t.end();
});

t.test('ranges that all cross each other are scanned, and decide the same', (t) => {
  const random = seeded(seed);
  const any = (last: number): Range[] => {
    const [a, b] = [Math.floor(random() * last), Math.floor(random() * last)];
    return [{ first: Math.min(a, b), last: Math.max(a, b) }];
  };
  const rules = Array.from({ length: 250 }, () =>
    makeRule({
      opener: ([1, 2, 3] as const)[Math.floor(random() * 3)],
      protocol: [-1, 6, 17, 1][Math.floor(random() * 4)],
      local: any(2 ** 32),
      remote: any(2 ** 32),
      localPort: any(2 ** 16),
      remotePort: any(2 ** 16),
    }),
  );
  const tables = compile(rules);
  t.ok(tables.scanRoot >= 0, 'scanned');
  const headers = [
    ...generateHeaders(rules, 2000, { ...headerDefaults, seed }),
    ...nearHeaders(rules, 2000, random),
  ];
  t.equal(difference(rules, tables, headers), undefined);
  t.end();
});

t.test('limits', (t) => {
  const rules = generateRules(characters.acl, 5000, seed);
  t.throws(() => compile(rules, { ...defaultLimits, bytes: 1 << 20 }), {
    code: 'RULES_TOO_LARGE',
    message: /more than 1\.0 MiB/,
  });
  t.throws(() => compile(rules, { ...defaultLimits, ms: -1 }), { code: 'RULES_TOO_SLOW' });
  t.throws(() => compile(rules, { ...defaultLimits, bytes: 0 }), RulesTooLargeError);
  t.end();
});

t.test('tables cross to a thread without a copy', (t) => {
  const tables = compile(generateRules(characters.fw, 100, seed));
  t.ok(tables.words.buffer instanceof SharedArrayBuffer);
  const clone = structuredClone(tables);
  t.same(Object.keys(clone), Object.keys(tables));
  t.equal(clone.words.byteLength, tables.words.byteLength);
  t.end();
});

t.test('a lookup allocates nothing', (t) => {
  const rules = generateRules(characters.ipc, 1000, seed);
  const tables = compile(rules);
  const headers = generateHeaders(rules, 1000);
  const columns = Int32Array.from(
    headers.flatMap((h) => [h.opener, h.local | 0, h.remote | 0, h.localPort, h.remotePort]),
  );
  const run = (rounds: number) => {
    let sum = 0;
    for (let round = 0; round < rounds; round++) {
      for (let i = 0; i < columns.length; i += 5) {
        const c = columns;
        const opener = c[i] as 0 | 1;
        sum += match(tables, opener, c[i + 1], c[i + 2], c[i + 3], c[i + 4], 6);
      }
    }
    return sum;
  };
  run(300);
  const collect = globalThis.gc;
  if (!collect) throw new Error('needs --expose-gc');
  collect();
  const before = process.memoryUsage().heapUsed;
  run(500);
  const bytes = (process.memoryUsage().heapUsed - before) / 500_000;
  t.ok(bytes <= 1, `${bytes.toFixed(3)} bytes a lookup`);
  t.end();
});
