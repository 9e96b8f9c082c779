import t from 'tap';
import { Idle } from '../../engine/idle.ts';

const pollMs = 0.05;
/** A look, a wake-up, and what a processor does that others need too. */
const lookMs = 0.001;
const wakeMs = 0.03;

/** Packets come at these times; the time that was slept and how often it looked are noted. */
function world(arrivals: readonly number[], lookLasts: () => number = () => lookMs) {
  const state = { nowMs: 0, looks: 0, sleeps: 0, taken: 0 };
  const clock = { now: () => state.nowMs };
  const wait = (timeoutMs: number): boolean => {
    const next = arrivals[state.taken] ?? Number.POSITIVE_INFINITY;
    if (timeoutMs === 0) {
      state.looks++;
      state.nowMs += lookLasts();
      return next <= state.nowMs;
    }
    state.sleeps++;
    const comes = next <= state.nowMs + timeoutMs;
    state.nowMs = comes ? Math.max(state.nowMs, next) + wakeMs : state.nowMs + timeoutMs;
    return comes;
  };
  const idle = new Idle(clock, { wait }, pollMs);
  return {
    state,
    /** Waits until everything has come and been taken, or until then. */
    run(untilMs: number) {
      let handled = 0;
      while (state.nowMs < untilMs) {
        idle.wait(100, handled);
        handled = 0;
        while ((arrivals[state.taken] ?? Number.POSITIVE_INFINITY) <= state.nowMs) {
          state.taken++;
          handled++;
        }
      }
      return state;
    },
  };
}

const every = (gapMs: number, count: number) =>
  Array.from({ length: count }, (_, index) => (index + 1) * gapMs);

t.test('an idle host is not polled for', async (t) => {
  const { looks, sleeps } = world([]).run(5000);
  t.equal(looks, 0);
  t.equal(sleeps, 50);
});

t.test('packets that come slower than polling lasts cost no polling', async (t) => {
  const { looks, sleeps, taken } = world(every(1, 1000)).run(1000);
  t.equal(taken, 1000);
  t.equal(sleeps, 1000);
  t.equal(looks, 0);
});

t.test('after one that came soon, the next is looked for', async (t) => {
  const { looks, sleeps } = world(every(0.02, 1000)).run(20);
  t.ok(sleeps <= 2, `slept ${sleeps} times`);
  t.ok(looks > 1000);
});

t.test('what does not come costs one round of polling, once', async (t) => {
  const { looks } = world([0.01, 0.02]).run(5000);
  t.ok(looks <= pollMs / lookMs + 2, `${looks} looks`);
});

t.test('an interruption ends polling for a moment', async (t) => {
  let looks = 0;
  const interrupted = () => (looks++ === 100 ? 3 : lookMs);
  const { sleeps } = world(every(0.02, 10_000), interrupted).run(200);
  // 100 ms of packets every 20 us, each of which has to wake us.
  t.ok(sleeps > 1000, `slept ${sleeps} times`);
  t.ok(sleeps < 6000, 'and polled again afterwards');
});

t.test('where several come at once, their wake-up is shared', async (t) => {
  const bursts = every(0.03, 3000).flatMap((at) => [at, at, at]);
  const { looks } = world(bursts).run(90);
  t.equal(looks, 0);
});

t.test('polling for 0 ms is none', async (t) => {
  let looks = 0;
  const readiness = { wait: (ms: number) => ms === 0 && ++looks > 0 };
  new Idle({ now: () => 0 }, readiness, 0).wait(100, 1);
  t.equal(looks, 0);
});
