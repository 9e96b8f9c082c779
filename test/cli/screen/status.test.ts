/**
 * The screen of `status` as a person sees it: golden, from an answer of the agent. `--update`
 * rewrites it.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { stripVTControlCharacters } from 'node:util';
import pc from 'picocolors';
import t from 'tap';
import { formatAge, wrap } from '../../../cli/screen/format.ts';
import { drawStatus } from '../../../cli/screen/status.ts';
import type { AgentStatus } from '../../../control/status.ts';

const plain = pc.createColors(false);
const sample = JSON.parse(readFileSync('test/golden/screen/status.json', 'utf8')) as AgentStatus;
const nowMs = Date.parse('2026-11-25T03:12:02.000Z');

t.test('the screen', async (t) => {
  const golden = 'test/golden/screen/status.txt';
  const text = drawStatus(sample, plain, nowMs);
  if (process.argv.includes('--update')) writeFileSync(golden, text);
  t.equal(text, readFileSync(golden, 'utf8'));
  for (const line of text.split('\n')) t.ok(line.length <= 80, line);
  t.ok(text.split('\n').length <= 50, 'one screen');
  const painted = drawStatus(sample, pc.createColors(true), nowMs);
  t.not(painted, text);
  t.equal(stripVTControlCharacters(painted), text, 'colours change nothing else');
});

t.test('a closed gate: what is in force, and why', async (t) => {
  const closed: AgentStatus = {
    ...sample,
    state: 'closed',
    cause: 'the telemetry endpoint cannot be reached',
    interfaces: [{ name: 'eth0', index: 2, redirected: false, drift: [] }],
    gate: { ...sample.gate, open: false, sentence: 'the telemetry endpoint cannot be reached' },
    failurePolicies: [
      { key: 'onTelemetryLoss', value: 'drop', inForce: true, words: 'only management flows' },
    ],
    counters: {},
    tunDropped: 0,
  };
  const text = drawStatus(closed, plain, nowMs);
  t.match(text, /CLOSED for 3 h 12 min/);
  t.match(text, /eth0 {2}not redirected: the telemetry endpoint cannot be reached/);
  t.match(text, /gate +closed: the telemetry endpoint/);
  t.match(text, /onTelemetryLoss: drop +IN FORCE: only management flows/);
  t.match(text, /dropped by the agent: nothing/);
});

t.test('of many rules, those that count and those that cannot match are shown', async (t) => {
  const rules = Array.from({ length: 1000 }, (_, index) => ({
    name: `rule-${index}`,
    line: index + 1,
    action: 'pass',
    hits: index === 900 ? 0 : 1000 - index,
    never: index === 900 ? 'it is shadowed' : '',
  }));
  const text = drawStatus({ ...sample, rules: [...rules, sample.rules.at(-1)!] }, plain, nowMs);
  t.match(text, /rule-0 .*\n {2}rule-1 /);
  t.match(text, /rule-900 .*\n {4}it is shadowed\n {2}default .*\n {2}and 993 more/);
});

t.test('ages and wrapped lines', async (t) => {
  t.same(
    [0, 59_000, 61_000, 3_600_000, 11_520_000, 90_000_000].map((ms) => formatAge(ms)),
    ['0 s', '59 s', '1 min 1 s', '1 h', '3 h 12 min', '1 d 1 h'],
  );
  t.same(wrap('one two three', 7), ['one two', 'three']);
  t.same(wrap('unbreakable', 3), ['unbreakable']);
});
