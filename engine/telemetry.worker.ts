/**
 * Entry of the telemetry worker: when telemetry.ts says so, gather the counters, report them to the
 * firewall, and move the gate by the outcome. It shares the gate and the counters with the data
 * path as memory; to its parent it tells changes of state, nothing else.
 *
 * It closes the gate by doing nothing: if this thread hangs or dies, the lease runs out.
 */
import { parentPort, workerData } from 'node:worker_threads';
import { openPublishedCounters, snapshot } from './counters.ts';
import { type Gate, openGate } from './gate.ts';
import { type Decision, TelemetryPlan } from './telemetry.ts';
import { TelemetryClient } from './telemetry-client.ts';
import { type AgentEvent, reportContentType, TelemetryReport } from './telemetry-report.ts';
import type { TelemetryMessage, TelemetryWorkerData } from './telemetry-thread.ts';
import { monotonicMs } from './ticks.ts';

function tell(message: TelemetryMessage): void {
  parentPort?.postMessage(message);
}

/** A sleep that a stop message ends early. */
class Alarm {
  private wake: () => void = () => {};

  sleep(ms: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, Math.max(0, Math.ceil(ms)));
      this.wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }

  ring(): void {
    this.wake();
  }
}

function apply(decision: Decision, gate: Gate): void {
  if (decision.gate === 'renew') gate.renew(decision.deadlineMs);
  else if (decision.gate === 'close') gate.close(decision.cause, decision.detail);
  if (decision.change !== undefined) tell({ type: 'change', change: decision.change });
}

async function main(data: TelemetryWorkerData): Promise<void> {
  const gate = openGate(data.gate);
  const counters = openPublishedCounters(data.counters);
  const client = new TelemetryClient(data.url, data.credentials);
  const report = new TelemetryReport(data.identity);
  const plan = new TelemetryPlan(data.schedule, monotonicMs());
  const alarm = new Alarm();
  const pending: AgentEvent[] = ['start'];
  let stopping = false;

  function post(events: readonly AgentEvent[], timeoutMs: number) {
    const body = report.build(snapshot(counters), gate.status(monotonicMs()), events, Date.now());
    return client.post(body, reportContentType, timeoutMs);
  }

  parentPort?.once('message', () => {
    stopping = true;
    client.cancel();
    alarm.ring();
  });

  while (!stopping) {
    await alarm.sleep(plan.nextAttemptMs - monotonicMs());
    if (stopping) break;
    const startMs = monotonicMs();
    const failure = await post(pending, plan.begin(startMs) - startMs);
    if (stopping) break;
    if (failure === undefined) pending.length = 0;
    apply(failure === undefined ? plan.succeeded() : plan.failed(failure, monotonicMs()), gate);
  }

  const failure = await post([...pending, 'stop'], data.schedule.timeoutMs);
  client.close();
  tell({ type: 'stopped', failure: failure?.message ?? '' });
}

// No await out here: a bundle is a script, which has none. A rejection ends the worker.
void main(workerData as TelemetryWorkerData);
