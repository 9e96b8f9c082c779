import fc from 'fast-check';
import t from 'tap';
import type { Prefix } from '../../engine/classifier/built-in.ts';
import { contains } from '../../engine/classifier/built-in.ts';
import { compile } from '../../engine/classifier/compile.ts';
import { match } from '../../engine/classifier/match.ts';
import { commonNetworks, passNetworks } from '../../engine/classifier/networks.ts';
import { noRule, Opener, type Rule } from '../../engine/classifier/rules.ts';
import { Verdict } from '../../engine/flows.ts';
import { formatAddress } from '../../parsers/text.ts';
import { rule } from '../support/engine.ts';
import { address } from '../support/packets.ts';

function network(text: string) {
  const [base, length] = text.split('/');
  const first = address(base) >>> 0;
  return { first, last: first + 2 ** (32 - Number(length)) - 1 };
}

function texts(rules: readonly Rule[], byDefault: Verdict = Verdict.Redirect) {
  const found = passNetworks(rules, byDefault, 100);
  return found?.map((prefix) => `${formatAddress(prefix.address)}/${prefix.length}`);
}

t.test('what passes by its address alone is found', async (t) => {
  const backup = rule({ remote: [network('10.3.0.0/16')] });
  const db = rule({ remote: [network('10.3.7.0/24')], verdict: Verdict.Redirect });
  const dns = rule({ protocol: 17, remotePort: [{ first: 53, last: 53 }] });
  const telnet = rule({ localPort: [{ first: 23, last: 23 }], verdict: Verdict.Drop });
  t.same(texts([backup]), ['10.3.0.0/16']);
  t.same(texts([backup, db]), ['10.3.0.0/16'], 'a later rule takes nothing away');
  t.same(texts([telnet, backup]), [], 'an earlier one that may drop does');
  t.same(texts([dns, backup]), ['10.3.0.0/16'], 'an earlier one that passes does not');
  t.equal(texts([db, backup])?.length, 8, 'all but the /24');
  t.same(texts([rule({ opener: Opener.Egress })]), [], 'a direction is a condition');
  t.same(texts([], Verdict.Pass), ['0.0.0.0/0'], 'default: pass');
  t.same(texts([rule({})]), ['0.0.0.0/0']);
  t.equal(passNetworks([db, backup], Verdict.Redirect, 7), undefined, 'more than allowed');
});

t.test('what is in networks of both', async (t) => {
  const lists = fc.array(
    fc.record({ address: fc.nat(63), length: fc.integer({ min: 26, max: 32 }) }),
  );
  const covers = (prefixes: readonly Prefix[], address: number) =>
    prefixes.some(({ address: first, length }) => (first ^ address) >>> (32 - length) === 0);
  const aligned = (prefixes: readonly Prefix[]) =>
    prefixes.map(({ address, length }) => ({
      length,
      address: (address >>> (32 - length)) << (32 - length),
    }));
  t.doesNotThrow(() =>
    fc.assert(
      fc.property(lists, lists, (one, other) => {
        const [a, b] = [aligned(one), aligned(other)];
        const common = commonNetworks(a, b);
        for (let address = 0; address < 64; address++) {
          const isIn = covers(a, address) && covers(b, address);
          if (covers(common, address) !== isIn) return false;
        }
        return true;
      }),
    ),
  );
  const all = { address: 0, length: 0 };
  t.same(commonNetworks([all], [{ address: 0x0a000000, length: 8 }]), [
    { address: 0x0a000000, length: 8 },
  ]);
  t.same(commonNetworks([all], [all]), [all]);
  t.same(commonNetworks([all], []), []);
});

t.test('every connection to a network that was found passes', async (t) => {
  const range = (most: number) =>
    fc.tuple(fc.nat(most), fc.nat(most)).map(([a, b]) => ({
      first: Math.min(a, b),
      last: Math.max(a, b),
    }));
  const ranges = (most: number) => fc.array(range(most), { maxLength: 2 });
  const rules = fc.array(
    fc.record({
      remote: ranges(40),
      localPort: fc.oneof(fc.constant([]), ranges(3)),
      protocol: fc.constantFrom(-1, 6, 17),
      opener: fc.constantFrom(Opener.Both, Opener.Egress),
      verdict: fc.constantFrom(Verdict.Pass, Verdict.Redirect, Verdict.Drop),
    }),
    { maxLength: 6 },
  );
  const verdict = fc.constantFrom(Verdict.Pass, Verdict.Redirect);
  t.doesNotThrow(() =>
    fc.assert(
      fc.property(rules, verdict, (parts, byDefault) => {
        const list = parts.map((part) => rule(part));
        const tables = compile(list);
        const networks = passNetworks(list, byDefault, 1000)!;
        for (let remote = 0; remote <= 42; remote++) {
          let always = true;
          for (const opener of [0, 1] as const) {
            for (const protocol of [1, 6, 17]) {
              for (let port = 0; port <= 4; port++) {
                const found = match(tables, opener, 1, remote, port, 9, protocol);
                const decided = found === noRule ? byDefault : list[found].verdict;
                if (decided !== Verdict.Pass) always = false;
              }
            }
          }
          if (networks.some((prefix) => contains(prefix, remote)) && !always) return false;
        }
        return true;
      }),
      { seed: 20, numRuns: 500 },
    ),
  );
});
