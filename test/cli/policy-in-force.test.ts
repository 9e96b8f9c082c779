/** Another policy comes into force everywhere, or nowhere. */
import t from 'tap';
import type { Compiled } from '../../cli/compile.ts';
import { type InForce, PolicyInForce } from '../../cli/policy-in-force.ts';
import type { Policy } from '../../engine/classifier/lookup.ts';

/** 10.0.0.0/8, and everything. */
const ten = { address: 0x0a000000, length: 8 };
const all = { address: 0, length: 0 };

const compiled = (name: string) =>
  ({
    settings: { name },
    rules: { names: [name] },
    networks: name.startsWith('first') ? [ten] : [all],
    policy: {},
  }) as unknown as Compiled;

type Faults = { adopts: boolean; refuses: (call: string) => boolean };

/** Everything that happens, as words; the data path adopts what it is given last, or nothing. */
function arrange(faults: Faults, redirects = () => true) {
  const calls: string[] = [];
  let adopted = 1;
  const say = (call: string) => {
    if (faults.refuses(call)) throw new Error(`no ${call}`);
    calls.push(call);
  };
  const first = { ...compiled('first'), policy: { generation: 1 } } as unknown as InForce;
  const inForce = new PolicyInForce(
    {
      steering: {
        setNetworks: (networks, generation) =>
          say(`networks ${networks.map(({ length }) => `/${length}`)} at ${generation}`),
        forgetNetworks: (generation) => say(`forget before ${generation}`),
        replace: (policy) => say(`programs ${policy}`),
      },
      redirectsBefore: redirects,
      replacePolicy: ({ generation }) => {
        say(`data path ${generation}`);
        if (faults.adopts) adopted = generation;
      },
      adoptedGeneration: () => adopted,
      policyOf: (_, generation) => ({ generation }) as Policy,
      steeringPolicyOf: (settings) => (settings as unknown as { name: string }).name as never,
    },
    first,
    30,
    10,
  );
  return { calls, inForce };
}

const never = () => false;

t.test('it comes into force', async (t) => {
  const { calls, inForce } = arrange({ adopts: true, refuses: never });
  await inForce.change(compiled('second'));
  t.same(calls, ['networks /8 at 2', 'programs second', 'data path 2', 'forget before 2']);
  t.match(inForce.now, { settings: { name: 'second' }, policy: { generation: 2 } });
  t.equal(inForce.nameOf(0, 2), 'second');
  t.equal(inForce.nameOf(0, 1), 'first', 'flows of the one before have their names');
});

t.test('the kernel passes no network in which a flow is redirected yet', async (t) => {
  let redirects = true;
  const pause = () => new Promise((resolve) => setTimeout(resolve, 50));
  const { calls, inForce } = arrange({ adopts: true, refuses: never }, () => redirects);
  t.teardown(() => inForce.close());
  await inForce.change(compiled('second'));
  await pause();
  t.equal(calls[0], 'networks /8 at 2', 'what both policies pass');
  t.equal(calls.length, 4, 'and no more');
  redirects = false;
  await pause();
  t.same(calls.slice(4), ['networks /0 at 2']);
  redirects = true;
  await inForce.change(compiled('first again'));
  await inForce.change(compiled('second again'), true);
  t.equal(calls.at(-4), 'networks /0 at 4', 'when flows are decided again, at once');
  await inForce.change(compiled('first again'));
  await inForce.change(compiled('second again'));
  inForce.close();
  redirects = false;
  await pause();
  t.equal(calls.at(-4), 'networks /8 at 6', 'nothing happens after the end');
});

t.test('a data path that does not take it: everything is as it was', async (t) => {
  const faults = { adopts: false, refuses: never };
  const { calls, inForce } = arrange(faults);
  await t.rejects(inForce.change(compiled('second')), /data path did not take .* within 30 ms$/);
  t.same(calls.slice(3), ['data path 1', 'programs first', 'networks /8 at 1']);
  t.match(inForce.now, { settings: { name: 'first' }, policy: { generation: 1 } });
  faults.adopts = true;
  await inForce.change(compiled('third'));
  t.match(inForce.now.policy, { generation: 3 }, 'a generation is never used twice');
});

t.test('a kernel that refuses it', async (t) => {
  const { calls, inForce } = arrange({
    adopts: true,
    refuses: (call) => call === 'programs second',
  });
  await t.rejects(inForce.change(compiled('second')), { message: 'no programs second' });
  t.same(calls.slice(1), ['data path 1', 'programs first', 'networks /8 at 1']);
  t.match(inForce.now, { settings: { name: 'first' } });
});

t.test('a kernel that does not take back what it had: that is said', async (t) => {
  const { inForce } = arrange({ adopts: false, refuses: (call) => call === 'programs first' });
  await t.rejects(inForce.change(compiled('second')), {
    message: /^the data path did not .*; in the kernel a part of it stays \(no programs first\)/,
  });
});

t.test('names of a few policies are kept', async (t) => {
  const { inForce } = arrange({ adopts: true, refuses: never });
  for (let i = 0; i < 8; i++) await inForce.change(compiled(`p${i}`));
  t.equal(inForce.nameOf(0, 1), 'rule 0 of an earlier policy');
  t.equal(inForce.nameOf(0, 2), 'p0');
});
