/** Findings about rules: each is true of the linear twin, and says what a person needs. */
import fc from 'fast-check';
import t from 'tap';
import { type LintContext, lint } from '../../engine/classifier/lint.ts';
import { noRule, type Rule } from '../../engine/classifier/rules.ts';
import { Verdict } from '../../engine/flows.ts';
import { type Header, linearMatch, matches } from '../model/classifier.ts';
import { characters, generateRules, makeRule, seeded } from '../model/rule-sets.ts';
import { nearHeaders, ruleArbitrary } from '../support/arbitrary-rules.ts';

const seed = Number(process.env.SEED ?? 20_240_611);

const context: LintContext = {
  builtIns: { tunnelPorts: [6081], tunnelPeers: [], telemetry: [], management: [], broadcasts: [] },
  default: Verdict.Pass,
};

function verdictOf(rules: readonly Rule[], header: Header): string {
  const found = linearMatch(rules, header);
  if (found === noRule) return `${context.default} inherit false`;
  const { verdict, onFailure, log } = rules[found];
  return `${verdict} ${onFailure} ${log}`;
}

function tells(rules: readonly Partial<Rule>[], changes: Partial<LintContext> = {}): string[] {
  const whole = rules.map((fields, index) =>
    makeRule({ name: 'abcdef'[index], line: index * 2 + 3, ...fields }),
  );
  return lint(whole, { ...context, ...changes }).map(({ kind, severity, text }) =>
    [kind, severity, text].join(': '),
  );
}

const port = (first: number, last = first) => [{ first, last }];
const redirect = { verdict: Verdict.Redirect };
const drop = { verdict: Verdict.Drop };

t.test('every finding is true', (t) => {
  const verdicts = fc.constantFrom(Verdict.Redirect, Verdict.Pass, Verdict.Drop);
  const rule = fc
    .tuple(ruleArbitrary, verdicts)
    .map(([fields, verdict]): Rule => ({ ...fields, verdict }));
  const kinds = new Map<string, number>();
  fc.assert(
    fc.property(fc.array(rule, { maxLength: 10 }), fc.nat(), (rules, headerSeed) => {
      const headers = nearHeaders(rules, 200, seeded(headerSeed));
      for (const { kind, rule, others } of lint(rules, context)) {
        kinds.set(kind, (kinds.get(kind) ?? 0) + 1);
        const without = rules.filter((_, index) => index !== rule);
        const covering = others.map((other) => rules[other.rule]);
        for (const header of headers) {
          const isTrue = {
            empty: () => !matches(rules[rule], header),
            shadowed: () =>
              !matches(rules[rule], header) || linearMatch(covering, header) !== noRule,
            redundant: () => verdictOf(without, header) === verdictOf(rules, header),
            'self-cutting': () => false,
            unfinished: () => false,
          }[kind];
          if (!isTrue()) return false;
        }
      }
      return true;
    }),
    { seed, numRuns: 200 },
  );
  for (const kind of ['empty', 'shadowed', 'redundant']) {
    t.ok((kinds.get(kind) ?? 0) > 10, `${kind}: ${kinds.get(kind)}`);
  }
  t.end();
});

t.test('shadowed by one, and by several together', (t) => {
  t.same(
    tells([
      { ...redirect, protocol: 6, remotePort: port(1, 1000) },
      { ...drop, protocol: 6, remotePort: port(443) },
    ]),
    ['shadowed: warning: rule "b" (line 5) can never match: rule "a" (line 3) covers it'],
  );
  t.same(
    tells([
      { ...redirect, protocol: 6, remotePort: port(1, 500) },
      { ...drop, protocol: 17 },
      { ...redirect, protocol: 6, remotePort: port(501, 1000) },
      { ...drop, protocol: 6, remotePort: port(400, 600) },
    ]),
    [
      'shadowed: warning: rule "d" (line 9) can never match: ' +
        'rule "a" (line 3), rule "c" (line 7) cover it together',
    ],
  );
  t.same(
    tells([
      { ...redirect, protocol: 6, remotePort: port(1, 499) },
      { ...redirect, protocol: 6, remotePort: port(501, 1000) },
      { ...drop, protocol: 6, remotePort: port(400, 600) },
    ]),
    [],
    'port 500 is left',
  );
  t.end();
});

t.test('redundant before a later rule, and before the default', (t) => {
  const web = { protocol: 6, remotePort: port(443) };
  t.same(tells([{ ...redirect, ...web }, redirect]), [
    'redundant: note: rule "a" (line 3) changes nothing: rule "b" (line 5) decides the same',
  ]);
  t.same(tells([{ ...redirect, ...web }, { ...drop, protocol: 6 }, redirect]), []);
  t.same(tells([{ ...redirect, ...web, onFailure: 'drop' }, redirect]), [], 'other consequences');
  t.same(tells([{ verdict: Verdict.Pass, ...web }]), [
    'redundant: note: rule "a" (line 3) changes nothing: the default decides the same',
  ]);
  t.end();
});

t.test('rules that no packet can match', (t) => {
  t.same(tells([{ ...drop, protocol: 1, remotePort: port(80) }]), [
    'empty: warning: rule "a" (line 3) can never match: ' +
      'it asks for ports, and protocol 1 has none',
  ]);
  t.same(tells([{ ...drop, local: port(9, 3) }]), [
    'empty: warning: rule "a" (line 3) can never match: a range in it ends before it begins',
  ]);
  t.end();
});

t.test('rules that would cut the tunnel, telemetry or management', (t) => {
  const builtIns = {
    tunnelPorts: [6081],
    tunnelPeers: [{ address: 0x0a000001, length: 32 }],
    telemetry: [{ address: 0x0a000002, port: 4318 }],
    management: [{ protocol: 6, remote: { address: 0x0a090000, length: 16 }, port: 22 }],
    broadcasts: [],
  };
  t.same(tells([redirect], { builtIns }), [
    'self-cutting: note: rule "a" (line 3) would redirect the tunnel to 10.0.0.1 ' +
      '(UDP port 6081), which passes whatever the rules say',
    'self-cutting: note: rule "a" (line 3) would redirect telemetry to 10.0.0.2:4318, ' +
      'which passes whatever the rules say',
    'self-cutting: note: rule "a" (line 3) would redirect management from 10.9.0.0/16 port 22, ' +
      'which passes whatever the rules say',
  ]);
  const ssh = { protocol: 6, localPort: port(22), remote: port(0x0a090101, 0x0a0901ff) };
  t.same(tells([{ ...drop, ...ssh }], { builtIns }), [
    'self-cutting: warning: rule "a" (line 3) has no effect: ' +
      'management from 10.9.0.0/16 port 22 passes whatever the rules say',
  ]);
  t.same(tells([{ ...drop, protocol: 6, remotePort: port(443) }], { builtIns }), [
    'self-cutting: note: rule "a" (line 3) would drop management from 10.9.0.0/16 port 22, ' +
      'which passes whatever the rules say',
  ]);
  t.end();
});

t.test('too many rules: it says where it stopped', (t) => {
  const rules = generateRules(characters.acl, 300, seed);
  const findings = lint(rules, { ...context, pairsMax: 30_000 });
  const unfinished = findings.filter(({ kind }) => kind === 'unfinished');
  t.equal(unfinished.length, 1);
  t.equal(unfinished[0].rule, 100);
  t.end();
});
