/** Rule sets of every character, compiled, against the same rules read one after the other. */
import { compile } from '../../engine/classifier/compile.ts';
import { match } from '../../engine/classifier/match.ts';
import { Opener, type Range, type Rule } from '../../engine/classifier/rules.ts';
import { type Header, linearMatch } from '../model/classifier.ts';
import {
  characters,
  generateHeaders,
  generateRules,
  headerDefaults,
  makeRule,
} from '../model/rule-sets.ts';
import type { Random } from './random.ts';
import { type Fuzzer, must, type Trial } from './trial.ts';

const headersPerCase = 200;
const addressEdges = [0, 1, 0x7fffffff, 0x80000000, 0xfffffffe, 0xffffffff, 0x0a01000a, 0x0a020014];
const portEdges = [0, 1, 53, 255, 256, 1023, 1024, 32767, 32768, 65534, 65535];

/** Ranges as no one writes them: overlapping, of one value, over everything. */
function ranges(random: Random, edges: readonly number[], last: number): Range[] {
  return Array.from({ length: random.below(4) }, () => {
    const pick = () => (random.once(2) ? random.pick(edges) : random.next() % (last + 1));
    const [a, b] = [pick(), random.once(3) ? -1 : pick()];
    return b < 0 ? { first: a, last: a } : { first: Math.min(a, b), last: Math.max(a, b) };
  });
}

function wildRules(random: Random): Rule[] {
  return Array.from({ length: 1 + random.below(30) }, () =>
    makeRule({
      opener: random.pick(Object.values(Opener)),
      protocol: random.pick([-1, -1, 6, 17, 1, 0, 255]),
      local: ranges(random, addressEdges, 2 ** 32 - 1),
      remote: ranges(random, addressEdges, 2 ** 32 - 1),
      localPort: ranges(random, portEdges, 65535),
      remotePort: ranges(random, portEdges, 65535),
    }),
  );
}

function wildHeaders(random: Random): Header[] {
  return Array.from({ length: 50 }, () => ({
    opener: random.once(2) ? 0 : 1,
    local: random.pick(addressEdges),
    remote: random.pick(addressEdges),
    localPort: random.pick(portEdges),
    remotePort: random.pick(portEdges),
    protocol: random.pick([0, 1, 6, 17, 255]),
  }));
}

function rulesOf(random: Random): Rule[] {
  if (random.once(2)) return wildRules(random);
  const character = random.pick(Object.values(characters));
  return generateRules(character, 1 + random.below(60), random.next());
}

function create(change: (rules: Rule[], random: Random) => Rule[]) {
  return (trial: Trial) => {
    const { random } = trial;
    const rules = rulesOf(random);
    const tables = compile(change(rules, random));
    const options = { ...headerDefaults, seed: random.next(), corners: 0.5 };
    const headers = [...generateHeaders(rules, headersPerCase, options), ...wildHeaders(random)];
    for (const header of headers) {
      const { local, localPort, opener, protocol, remote, remotePort } = header;
      const found = match(tables, opener, local, remote, localPort, remotePort, protocol);
      const expected = linearMatch(rules, header);
      must(found === expected, () => {
        return `rule ${found}, not ${expected}, for ${JSON.stringify({ header, rules })}`;
      });
    }
    trial.checked += headers.length;
  };
}

export const classifier: Fuzzer = {
  name: 'classifier',
  promise: 'the tables find the rule that reading one after the other finds',
  smoke: 80,
  create: () => create((rules) => rules),
};

/** One rule in three is left out. */
export const classifierCanary: Fuzzer = {
  name: 'canary-rules',
  promise: 'a compiler that forgets a rule is found out',
  smoke: 50,
  canary: true,
  create: () => create((rules, random) => rules.filter(() => !random.once(3))),
};
