import { Worker } from 'node:worker_threads';
import t from 'tap';
import {
  createGates,
  GateCause,
  gateCauseNames,
  gateCauseSentence,
  openGates,
} from '../../engine/gate.ts';

t.test('open until the deadline and never longer', async (t) => {
  const rows: [string, deadlineMs: number, nowMs: number, open: boolean][] = [
    ['well before', 10_000, 5_000, true],
    ['in the last whole tick', 10_000, 9_999.9, true],
    ['at the deadline', 10_000, 10_000, false],
    ['after it', 10_000, 10_000.1, false],
    ['a deadline within a tick is rounded down', 10_099, 9_999, true],
    ['so it closes early, not late', 10_099, 10_000, false],
    ['ticks beyond 31 bits', 2 ** 31 * 100 + 5_000, 2 ** 31 * 100 - 5_000, true],
    ['ticks beyond 32 bits, expired', 2 ** 32 * 100 + 100, 2 ** 32 * 100 + 200, false],
  ];
  for (const [name, deadlineMs, nowMs, open] of rows) {
    const [gate] = createGates(1);
    gate.renew(deadlineMs);
    t.equal(gate.isOpen(nowMs), open, name);
  }
});

t.test('states, causes and generations', async (t) => {
  const [gate] = createGates(1);
  t.equal(gate.isOpen(0), false, 'a new gate is closed');
  t.match(gate.status(0), { open: false, cause: 'starting', generation: 0, leaseMs: 0 });
  t.ok(gate.renew(2_000));
  t.ok(gate.renew(3_000));
  t.match(gate.status(1_000), { open: true, cause: 'open', generation: 1, renewals: 2 });
  t.equal(gate.status(1_000).leaseMs, 2_000);
  t.match(gate.status(3_000), { open: false, cause: 'lease-expired', generation: 1 });
  gate.close(GateCause.TelemetryRefused, 503);
  t.equal(gate.isOpen(1_000), false, 'closing does not wait for the lease');
  t.match(gate.status(1_000), { cause: 'telemetry-refused', generation: 2 });
  t.match(gate.status(1_000).sentence, /HTTP status 503$/);
  gate.close(GateCause.TelemetryTimeout);
  t.match(gate.status(1_000), { cause: 'telemetry-timeout', generation: 2 });
  gate.close(GateCause.Stopping);
  t.equal(gate.renew(9_000), false, 'a stopping gate does not open');
  gate.close(GateCause.WorkerDead);
  t.match(gate.status(1_000), { open: false, cause: 'stopping' }, 'and keeps its cause');
});

t.test('another thread renews and closes the same gate', async (t) => {
  const [gate] = createGates(1);
  const file = new URL('../../engine/gate.js', import.meta.url).href;
  const code = `
    const { workerData, parentPort } = require('node:worker_threads');
    import(${JSON.stringify(file)}).then(({ openGates }) => {
      const [gate] = openGates(workerData);
      gate.renew(5_000);
      parentPort.once('message', () => gate.close(4));
      parentPort.postMessage('renewed');
    });`;
  const worker = new Worker(code, { eval: true, workerData: gate.shared });
  await new Promise((resolve) => worker.once('message', resolve));
  t.equal(gate.isOpen(1_000), true);
  worker.postMessage('close');
  await new Promise((resolve) => worker.once('exit', resolve));
  t.equal(gate.isOpen(1_000), false);
  t.equal(openGates(gate.shared)[0].status(0).cause, gateCauseNames[4]);
});

t.test('each firewall has a gate of its own in one memory', async (t) => {
  const gates = createGates(3);
  t.equal(new Set(gates.map(({ shared }) => shared)).size, 1);
  gates[1].renew(5_000);
  gates[2].close(GateCause.TelemetryTimeout);
  t.same(
    openGates(gates[0].shared).map((gate) => gate.status(1_000).cause),
    ['starting', 'open', 'telemetry-timeout'],
  );
});

t.test('every cause has a name of its own and a sentence', async (t) => {
  t.equal(new Set(gateCauseNames).size, gateCauseNames.length);
  for (const cause of Object.values(GateCause)) t.match(gateCauseSentence(cause, 0), /^\w.* \w/);
  t.equal(GateCause.Open, 0, 'isOpen compares with 0');
});
