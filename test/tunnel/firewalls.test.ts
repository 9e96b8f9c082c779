/** Health and choice of firewalls, by tables of events; no clock, no network. */
import t, { type Test } from 'tap';
import {
  type ChoiceOptions,
  Firewalls,
  ProbeHealth,
  ProbeState,
  rendezvous,
} from '../../tunnel/firewalls.ts';

/**
 * A firewall over time, looked at every 10 ms as a loop would. `alive` says when it answers probes,
 * `traffic` when packets go to it and come back. Answers the probes' times and when it was lost.
 */
function live(
  options: { intervalMs?: number; failures?: number; untilMs: number; roundTripMs?: number },
  alive: (ms: number) => boolean,
  traffic: (ms: number) => boolean = () => false,
) {
  const { failures = 3, intervalMs = 1000, roundTripMs = 5, untilMs } = options;
  const health = new ProbeHealth(intervalMs, failures, 0, ProbeState.Waiting);
  const sent: number[] = [];
  const changes: [number, ProbeState][] = [];
  const answers: { at: number; sent: number }[] = [];
  let silentSince = -1;
  for (let ms = 0; ms <= untilMs; ms += 10) {
    const before = health.state;
    while (answers.length > 0 && answers[0].at <= ms) health.answered(answers.shift()!.sent);
    if (traffic(ms) && alive(ms)) {
      health.carried(ms);
      silentSince = -1;
    } else if (traffic(ms) && silentSince < 0) silentSince = ms;
    if (silentSince >= 0) health.silent(silentSince, ms);
    health.look(ms);
    if (health.state !== before) changes.push([ms, health.state]);
    if (ms < health.nextAtMs) continue;
    health.sent(ms);
    sent.push(ms);
    if (alive(ms)) answers.push({ at: ms + roundTripMs, sent: ms });
  }
  return { sent, changes, health };
}

const { Answered, Lost } = ProbeState;

t.test('one probe an interval while it answers', async (t) => {
  const { changes, sent } = live({ untilMs: 5000 }, () => true);
  t.same(sent, [0, 1000, 2000, 3000, 4000, 5000]);
  t.same(changes, [[10, Answered]]);
});

t.test('no probe while traffic comes back', async (t) => {
  const { changes, sent } = live(
    { untilMs: 5000 },
    () => true,
    () => true,
  );
  t.same(sent, [], 'traffic is an answer');
  t.same(changes, [[0, Answered]]);
});

t.test('lost within the bound, sooner when traffic is missed', async (t) => {
  const rows: [string, intervalMs: number, traffic: boolean, lostByMs: number][] = [
    ['idle', 1000, false, 3500],
    ['busy', 1000, true, 3000],
    ['idle, fast', 100, false, 350],
    ['busy, fast', 100, true, 300],
  ];
  for (const [name, intervalMs, busy, lostByMs] of rows) {
    const killedMs = 5010;
    const { changes } = live(
      { intervalMs, untilMs: 10_000 },
      (ms) => ms < killedMs,
      () => busy,
    );
    const [, lost] = changes;
    t.equal(lost?.[1], Lost, name);
    const tookMs = lost![0] - killedMs;
    t.ok(tookMs <= lostByMs + 20, `${name}: lost after ${tookMs} ms`);
    t.ok(tookMs >= 2 * intervalMs, `${name}: not before it had its time`);
  }
});

t.test('a third of all packets lost is no loss of the firewall', async (t) => {
  let seed = 7;
  const draw = () => {
    seed = (Math.imul(seed, 1103515245) + 12345) & 0x7fffffff;
    return seed / 0x7fffffff;
  };
  const { changes, sent } = live({ untilMs: 600_000 }, () => draw() > 0.33);
  t.same(
    changes.map(([, state]) => state),
    [Answered],
    'ten minutes without a flap',
  );
  t.ok(sent.length > 700, `${sent.length} probes`);
});

t.test('silence alone never declares it lost', async (t) => {
  // It blocks everything that is sent to it, and answers its probes.
  const health = new ProbeHealth(1000, 3, 0, Answered);
  const states = new Set<ProbeState>();
  let probes = 0;
  for (let ms = 0; ms < 20_000; ms += 10) {
    health.silent(ms - (ms % 1000), ms);
    health.look(ms);
    states.add(health.state);
    if (ms < health.nextAtMs) continue;
    probes++;
    health.sent(ms);
    health.answered(ms);
  }
  t.same([...states], [Answered]);
  t.ok(probes <= 41, `${probes} probes in 20 s`);
});

t.test('what waited while we did not run is heard first', async (t) => {
  const health = new ProbeHealth(1000, 3, 0, ProbeState.Waiting);
  health.sent(0);
  // We were stopped for a minute; the answer is there.
  health.answered(0);
  health.look(60_000);
  t.equal(health.state, Answered);
  const unsent = new ProbeHealth(1000, 3, 0, ProbeState.Waiting);
  unsent.sent(0);
  unsent.look(60_000);
  t.equal(unsent.state, ProbeState.Waiting, 'one probe of three says nothing');
});

t.test('a lost one is probed once an interval, and an answer brings it back', async (t) => {
  const { changes, sent } = live({ untilMs: 20_000 }, (ms) => ms < 1000 || ms >= 12_000);
  t.same(
    changes.map(([, state]) => state),
    [Answered, Lost, Answered],
  );
  const [, lost, back] = changes;
  t.ok(back![0] - 12_000 <= 1020, `back after ${back![0] - 12_000} ms`);
  const during = sent.filter((ms) => ms > lost![0] && ms < 12_000);
  t.ok(during.length <= 9, `${during.length} probes in ${12_000 - lost![0]} ms`);
});

t.test('late traffic does not bring a lost one back', async (t) => {
  const health = new ProbeHealth(1000, 1, 0, ProbeState.Waiting);
  health.sent(0);
  health.look(500);
  health.carried(600);
  t.equal(health.state, Lost);
});

const base: ChoiceOptions = {
  seeds: [11, 22, 33],
  spread: false,
  preempt: false,
  holdDownMs: 10_000,
  graceMs: 15_000,
};
const all = 0b111;

/** Steps: at this time, these firewalls are healthy; then this one must be active for all. */
function play(
  t: Test,
  name: string,
  options: Partial<ChoiceOptions>,
  steps: readonly (readonly [ms: number, healthy: string, active: number])[],
) {
  const firewalls = new Firewalls({ ...base, ...options }, 0);
  for (const [ms, healthy, active] of steps) {
    for (const [i, letter] of ['a', 'b', 'c'].entries()) {
      firewalls.setHealthy(i, healthy.includes(letter));
    }
    firewalls.update(ms);
    t.equal(firewalls.active(all), active, `${name}: at ${ms} ms with "${healthy}"`);
  }
}

t.test('which one is active', async (t) => {
  play(t, 'in order', {}, [
    [0, '', -1],
    [100, 'abc', 0],
    [200, 'bc', 1],
    [300, 'c', 2],
    [400, '', -1],
  ]);
  play(t, 'the order of coming up is no reason', {}, [
    [100, 'c', 2],
    [200, 'bc', 1],
    [5000, 'abc', 0],
  ]);
  play(t, 'after the grace it is', {}, [
    [100, 'b', 1],
    [16_000, 'b', 1],
    [17_000, 'ab', 1],
    [60_000, 'ab', 1],
  ]);
  play(t, 'without preemption it stays', {}, [
    [0, 'ab', 0],
    [1000, 'b', 1],
    [2000, 'ab', 1],
    [60_000, 'ab', 1],
    [61_000, 'a', 0],
  ]);
  play(t, 'with preemption it goes back after the hold-down', { preempt: true }, [
    [0, 'ab', 0],
    [1000, 'b', 1],
    [2000, 'ab', 1],
    [11_900, 'ab', 1],
    [12_000, 'ab', 0],
  ]);
  play(t, 'each loss begins the hold-down again', { preempt: true }, [
    [0, 'ab', 0],
    [1000, 'b', 1],
    [2000, 'ab', 1],
    [9000, 'b', 1],
    [10_000, 'ab', 1],
    [19_900, 'ab', 1],
    [20_000, 'ab', 0],
  ]);
  play(t, 'one that is held down is better than none', {}, [
    [0, 'a', 0],
    [1000, '', -1],
    [2000, 'a', 0],
  ]);
  play(t, 'and worse than one that is not', {}, [
    [0, 'abc', 0],
    [1000, 'bc', 1],
    [2000, 'abc', 1],
    [3000, 'ac', 2],
  ]);
});

t.test('each set has its own', async (t) => {
  const firewalls = new Firewalls(base, 0);
  firewalls.watch(0b110);
  firewalls.watch(0b100);
  for (const i of [0, 1]) firewalls.setHealthy(i, true);
  firewalls.update(0);
  t.same(
    [all, 0b110, 0b100].map((set) => firewalls.active(set)),
    [0, 1, -1],
  );
  firewalls.watch(0b010);
  t.equal(firewalls.place(0b010, 5), 1, 'a set that comes with a reload');
  const { generation } = firewalls;
  t.notOk(firewalls.update(10));
  t.equal(firewalls.generation, generation, 'nothing changed');
});

t.test('spread: the loss of one moves its flows only, and evenly', async (t) => {
  const firewalls = new Firewalls({ ...base, spread: true }, 0);
  for (const i of [0, 1, 2]) firewalls.setHealthy(i, true);
  firewalls.update(0);
  const hashes = Array.from({ length: 6000 }, (_, i) => Math.imul(i + 1, 0x9e3779b1));
  const before = hashes.map((hash) => firewalls.place(all, hash));
  for (const i of [0, 1, 2]) {
    const share = before.filter((one) => one === i).length;
    t.ok(share > 1800 && share < 2200, `${share} of 6000`);
  }
  firewalls.setHealthy(1, false);
  firewalls.update(1000);
  const during = hashes.map((hash) => firewalls.place(all, hash));
  t.notOk(
    during.some((one, i) => before[i] !== 1 && one !== before[i]),
    'others stay',
  );
  const taken = during.filter((one, i) => before[i] === 1 && one === 0).length;
  t.ok(taken > 800 && taken < 1200, `${taken} of 2000 went to one of the two`);
  firewalls.setHealthy(1, true);
  firewalls.update(2000);
  t.notOk(
    hashes.some((hash) => firewalls.place(all, hash) === 1),
    'held down',
  );
  firewalls.update(12_000);
  t.same(
    hashes.map((hash) => firewalls.place(all, hash)),
    before,
    'and as before',
  );
  t.equal(rendezvous(base.seeds, 0, 1), -1);
});
