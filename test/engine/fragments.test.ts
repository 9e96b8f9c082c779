/** Fragments out of order: those that come before their first one wait for it. */
import t from 'tap';
import { HeldFragments, heldSlotLength, heldSlots } from '../../engine/held-fragments.ts';
import { back, headerLength, out, startEngine, workload } from '../support/engine.ts';
import { address, fragments, udp } from '../support/packets.ts';

const source = address('10.1.0.10');
const target = address('10.2.0.20');

function createHeld() {
  const bytes = new Uint8Array(100_000 + heldSlots * heldSlotLength);
  const held = new HeldFragments(bytes, 100_000);
  return {
    held,
    /** A fragment whose bytes are all `value`, which is also its tag. */
    hold(id: number, value: number, nowTick = 0, length = 100): boolean {
      bytes.fill(value, 0, length);
      return held.hold(0, length, source, target, id, 17, value, nowTick);
    },
    /** The value of what was taken, all its bytes compared. */
    taken(found: boolean): number | undefined {
      if (!found) return undefined;
      const same = bytes.subarray(held.at, held.at + held.length).every((b) => b === held.tag);
      return same ? held.tag : -1;
    },
  };
}

t.test('fragments are taken by their datagram, oldest first', async (t) => {
  const { held, hold, taken } = createHeld();
  for (const [id, value] of [
    [7, 1],
    [8, 2],
    [7, 3],
    [9, 4],
  ])
    t.ok(hold(id!, value!));
  t.equal(taken(held.take(source, target, 7, 17)), 1);
  t.equal(taken(held.take(source, target, 7, 17)), 3);
  t.notOk(held.take(source, target, 7, 17));
  t.notOk(held.take(target, source, 8, 17), 'the other direction');
  t.notOk(held.take(source, target, 8, 6), 'another protocol');
  t.equal(taken(held.take(source, target, 8, 17)), 2);
  t.equal(held.count, 1);
});

t.test('a slot is not filled again before it is reclaimed', async (t) => {
  const { held, hold, taken } = createHeld();
  for (let i = 0; i < heldSlots; i++) t.ok(hold(1, i + 1));
  t.notOk(hold(1, 200), 'full');
  t.notOk(hold(1, 200, 0, heldSlotLength + 1), 'and nothing longer than a slot');
  t.equal(taken(held.take(source, target, 1, 17)), 1);
  const { at } = held;
  t.notOk(hold(2, 201), 'a send may still point to it');
  held.reclaim();
  t.ok(hold(2, 202));
  t.ok(held.take(source, target, 2, 17));
  t.equal(held.at, at, 'the same slot');
});

t.test('agrees with a list under random use', async (t) => {
  const { held, hold, taken } = createHeld();
  let model: { id: number; value: number; tick: number }[] = [];
  let unreclaimed = 0;
  let seed = 7;
  const random = (limit: number) => {
    seed = (Math.imul(seed, 1103515245) + 12345) & 0x7fffffff;
    return (seed >>> 8) % limit;
  };
  for (let step = 0; step < 20_000; step++) {
    const tick = step >> 5;
    const id = random(6);
    const choice = random(10);
    if (choice < 6) {
      const fits = model.length + unreclaimed < heldSlots;
      if (hold(id, step & 0xff, tick) !== fits) t.fail(`step ${step}: hold`);
      if (fits) model.push({ id, value: step & 0xff, tick });
    } else if (choice < 8) {
      const at = model.findIndex((one) => one.id === id);
      const expected = model[at]?.value;
      if (taken(held.take(source, target, id, 17)) !== expected) t.fail(`step ${step}: take`);
      if (at >= 0) {
        model.splice(at, 1);
        unreclaimed++;
      }
    } else if (choice === 8) {
      held.reclaim();
      unreclaimed = 0;
    } else {
      while (held.takeExpired(tick)) unreclaimed++;
      model = model.filter((one) => tick - one.tick < 9);
    }
    if (held.count !== model.length) t.fail(`step ${step}: count`);
  }
});

const big = (ip = out) => udp(ip, 5, 6, Buffer.alloc(4000, 'xyz'));

t.test('redirecting: fragments in reverse order follow their first one', async (t) => {
  const path = startEngine();
  const [first, ...later] = fragments(big(), 1400, out);
  for (const part of later.toReversed()) path.egress(part);
  t.equal(path.io.socket.sent.length, 0);
  path.egress(first);
  const sent = path.io.socket.sent.map(({ bytes }) => bytes.subarray(headerLength));
  t.same(sent, [first, ...later.toReversed()]);
  t.same(path.counts(), { redirected: 3 });
  path.egress(later[0]);
  t.equal(path.io.socket.sent.length, 4, 'one that comes again is known');
});

t.test('source and destination are equal: the ports alone tell the direction', async (t) => {
  const self = { source: workload, target: workload };
  for (const [from, to] of [
    [5, 6],
    [6, 5],
  ] as const) {
    const path = startEngine();
    const whole = udp(self, from, to, Buffer.alloc(4000, 'xyz'));
    const parts = fragments(whole, 1400, self);
    for (const part of parts) path.egress(part);
    path.answer(path.io.socket.sent.map(({ bytes }) => bytes).slice(0, 1));
    for (const { bytes } of path.io.socket.sent.slice(1)) path.answer([bytes]);
    t.same(
      path.io.egress.written.map(({ bytes }) => bytes),
      parts,
      `from ${from} to ${to}`,
    );
  }
});

t.test('reinjecting: so do those that the firewall returns', async (t) => {
  const path = startEngine();
  path.egress(big());
  const [template] = path.io.socket.sent.map(({ bytes }) => bytes.subarray(0, headerLength));
  // The firewall cut the datagram in another way, under an identification of its own.
  const parts = fragments(big({ ...out, id: 99 }), 1000, { ...out, id: 99 });
  const datagrams = parts.map((part) => Buffer.concat([template, part]));
  const forged = Buffer.from(datagrams[2]);
  forged[headerLength - 1] ^= 1;
  for (const one of [forged, ...datagrams.slice(1).toReversed()]) path.answer([one]);
  t.equal(path.io.egress.written.length, 0);
  path.answer([datagrams[0]]);
  const written = path.io.egress.written.map(({ bytes }) => bytes);
  t.same(written, [parts[0], ...parts.slice(1).toReversed()]);
  path.answer([datagrams[1]]);
  t.equal(path.io.egress.written.length, parts.length + 1);
  t.match(path.counts(), { reinjected: parts.length + 1, 'tunnel-cookie-wrong': 1 });
});

t.test(
  'what waits in vain is counted within a second, and what finds no room at once',
  async (t) => {
    const path = startEngine();
    const stray = (id: number, ip = out) => fragments(big({ ...ip, id }), 1500, { ...ip, id })[1];
    path.egress(stray(1));
    path.ingress(stray(1, back));
    path.io.clock.nowMs += 700;
    t.same(path.counts(), {});
    path.io.clock.nowMs += 200;
    t.same(path.counts(), { 'fragment-unmatched': 2 });
    for (let id = 0; id < heldSlots + 3; id++) path.egress(stray(id));
    t.same(path.counts(), { 'fragment-unmatched': 2, 'fragments-full': 3 });
  },
);

t.test('what waits when nothing is decided any more goes straight on', async (t) => {
  const path = startEngine();
  const [, later] = fragments(big(), 1500, out);
  path.egress(later);
  path.gate.close(2);
  t.same(path.counts(), { 'passed-gate-closed': 1 });
  t.same(
    path.io.egress.written.map(({ bytes }) => bytes),
    [later],
  );
});
