/** Small sets of rules whose ranges meet in every way, and headers at their ends. */
import fc from 'fast-check';
import type { Range, Rule } from '../../engine/classifier/rules.ts';
import type { Header } from '../model/classifier.ts';
import { makeRule } from '../model/rule-sets.ts';

const small = (last: number) =>
  fc.oneof(
    fc.integer({ min: 0, max: 9 }),
    fc.integer({ min: last - 9, max: last }),
    fc.integer({ min: 0, max: last }),
  );
/** Few ends, so that ranges meet, touch, overlap and repeat; some end before they begin. */
const ranges = (last: number): fc.Arbitrary<Range[]> =>
  fc.array(
    fc.oneof(
      fc.record({ first: small(last), last: small(last) }),
      fc.constant({ first: 0, last }),
      small(last).map((value) => ({ first: value, last: value })),
    ),
    { maxLength: 3 },
  );
const protocols = fc.constantFrom(-1, 6, 17, 1, 0, 255);
export const ruleArbitrary: fc.Arbitrary<Rule> = fc
  .record({
    opener: fc.constantFrom(1, 2, 3),
    protocol: protocols,
    local: ranges(2 ** 32 - 1),
    remote: ranges(2 ** 32 - 1),
    localPort: fc.oneof(fc.constant([]), ranges(65535)),
    remotePort: fc.oneof(fc.constant([]), ranges(65535)),
  })
  .map((fields) => makeRule(fields as Partial<Rule>));

/** Headers at and beside the ends of every range, mixed at random, and any others. */
export function nearHeaders(rules: readonly Rule[], count: number, random: () => number): Header[] {
  const pick = <T>(values: readonly T[]) => values[Math.floor(random() * values.length)];
  const near = (field: 'local' | 'remote' | 'localPort' | 'remotePort', last: number) => {
    const ends = rules.flatMap((rule) => rule[field].flatMap((range) => [range.first, range.last]));
    const all = [0, last, Math.floor(random() * last), ...ends];
    return all.flatMap((end) => [end, Math.max(0, end - 1), Math.min(last, end + 1)]);
  };
  const locals = near('local', 2 ** 32 - 1);
  const remotes = near('remote', 2 ** 32 - 1);
  const localPorts = near('localPort', 65535);
  const remotePorts = near('remotePort', 65535);
  return Array.from({ length: count }, () => ({
    opener: pick([0, 1] as const),
    local: pick(locals),
    remote: pick(remotes),
    localPort: pick(localPorts),
    remotePort: pick(remotePorts),
    protocol: pick([6, 6, 17, 17, 1, 0, 255, 47]),
  }));
}
