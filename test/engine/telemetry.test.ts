import t from 'tap';
import { leaseMs } from '../../engine/config.ts';
import { GateCause } from '../../engine/gate.ts';
import { type Failure, TelemetryPlan } from '../../engine/telemetry.ts';

const config = { intervalMs: 5_000, timeoutMs: 2_000, retries: 3, startupGraceMs: 15_000 };
const refused: Failure = { cause: GateCause.TelemetryRefused, detail: 500, message: 'HTTP 500' };
const timeout: Failure = { cause: GateCause.TelemetryTimeout, detail: 0, message: 'late' };

/** One attempt as the worker makes it: from when it is due, lasting `takesMs`. */
function attempt(plan: TelemetryPlan, takesMs: number, failure?: Failure, lateMs = 0) {
  const startMs = plan.nextAttemptMs + lateMs;
  const endMs = plan.begin(startMs);
  const now = startMs + takesMs;
  const decision = failure === undefined ? plan.succeeded() : plan.failed(failure, now);
  return { startMs, endMs, decision };
}

t.test('an open gate: one attempt per interval, each renews the lease', async (t) => {
  const plan = new TelemetryPlan(config, 1_000);
  t.equal(plan.state, 'starting');
  const first = attempt(plan, 30);
  t.match(first, { startMs: 1_000, endMs: 3_000 });
  t.match(first.decision, { gate: 'renew', deadlineMs: 1_000 + leaseMs(config) });
  t.match(first.decision.change, { state: 'open', level: 'info', cause: GateCause.Open });
  const second = attempt(plan, 1_900);
  t.equal(second.startMs, 6_000, 'an interval after the start of the last');
  t.match(second.decision, { gate: 'renew', deadlineMs: 17_000, change: undefined });
});

t.test('a round of failures ends exactly when the lease does', async (t) => {
  const rows: [string, takesMs: number, failure: Failure, closedAt: number][] = [
    ['hanging: each attempt takes its timeout', 2_000, timeout, 11_000],
    ['refused at once: the next waits for the timeout all the same', 1, refused, 9_001],
  ];
  for (const [name, takesMs, failure, closedAt] of rows) {
    const plan = new TelemetryPlan(config, 0);
    const lease = attempt(plan, 10).decision;
    const starts: number[] = [];
    for (const gate of ['keep', 'keep', 'close']) {
      const { startMs, endMs, decision } = attempt(plan, takesMs, failure);
      starts.push(startMs);
      t.equal(decision.gate, gate, name);
      t.equal(endMs, startMs + 2_000);
    }
    t.same(starts, [5_000, 7_000, 9_000]);
    t.equal(starts[2]! + takesMs, closedAt);
    t.match(lease, { deadlineMs: 11_000 });
    t.equal(plan.state, 'closed');
  }
});

t.test('a success within a round ends it, silently', async (t) => {
  const plan = new TelemetryPlan(config, 0);
  attempt(plan, 10);
  attempt(plan, 1, refused);
  const { startMs, decision } = attempt(plan, 10);
  t.match(decision, { gate: 'renew', deadlineMs: startMs + 11_000, change: undefined });
  t.equal(plan.nextAttemptMs, startMs + 5_000);
  t.equal(attempt(plan, 1, refused).decision.gate, 'keep', 'and the next round begins anew');
});

t.test('late timers do not add up within a round', async (t) => {
  const plan = new TelemetryPlan(config, 0);
  attempt(plan, 10);
  t.equal(attempt(plan, 1_950, timeout, 50).startMs, 5_050);
  const second = attempt(plan, 1_950, timeout, 50);
  t.match(second, { startMs: 7_100, endMs: 9_050 });
  const late = attempt(plan, 900, timeout, 1_900);
  t.match(late, { startMs: 10_950, endMs: 11_950 }, 'but half a timeout is always there');
});

t.test('closed: one attempt per interval, one report per cause', async (t) => {
  const plan = new TelemetryPlan(config, 0);
  attempt(plan, 10);
  for (let i = 0; i < 2; i++) attempt(plan, 1, refused);
  t.match(attempt(plan, 1, refused).decision.change, {
    level: 'error',
    state: 'closed',
    cause: GateCause.TelemetryRefused,
    sentence: /status 500$/,
  });
  const again = attempt(plan, 1, refused);
  t.equal(again.startMs, 14_000);
  t.match(again.decision, { gate: 'close', change: undefined }, 'the same cause is not news');
  const other = attempt(plan, 2_000, timeout).decision;
  t.match(other.change, { cause: GateCause.TelemetryTimeout }, 'another cause is');
  const back = attempt(plan, 10);
  t.match(back.decision, { gate: 'renew', deadlineMs: back.startMs + 11_000 });
  t.match(back.decision.change, { state: 'open' });
});

t.test('starting: silent within the grace, attempts a timeout apart', async (t) => {
  const plan = new TelemetryPlan(config, 0);
  const starts: number[] = [];
  let decision = attempt(plan, 1, refused).decision;
  while (decision.gate === 'keep') {
    starts.push(plan.nextAttemptMs);
    decision = attempt(plan, 1, refused).decision;
  }
  t.same(starts, [2_000, 4_000, 6_000, 8_000, 10_000, 12_000, 14_000, 16_000]);
  t.match(decision, { gate: 'close', cause: GateCause.TelemetryRefused, detail: 500 });
  t.match(decision.change, { level: 'warn', state: 'closed' });
  t.equal(plan.nextAttemptMs, 21_000, 'then an interval apart');
  t.equal(attempt(plan, 1, refused).decision.change, undefined);
});

t.test('no grace: the first failure closes; one retry: the first failure of a round', async (t) => {
  const eager = new TelemetryPlan({ ...config, startupGraceMs: 0, retries: 1 }, 0);
  t.match(attempt(eager, 1, refused).decision, { gate: 'close', change: { level: 'warn' } });
  attempt(eager, 10);
  t.match(attempt(eager, 1, refused).decision, { gate: 'close', change: { level: 'error' } });
});
