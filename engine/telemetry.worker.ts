/**
 * Entry of the telemetry worker: for each firewall, when telemetry.ts says so, gather the counters,
 * report them, and move the firewall's gate by the outcome. It shares gates and counters with the
 * data path as memory; to its parent it tells changes of state, nothing else.
 *
 * It closes the gates by doing nothing: if this thread hangs or dies, the lease runs out.
 */
import { parentPort, workerData } from 'node:worker_threads';
import type { TelemetryConfig } from './config.ts';
import { openPublishedCounters, type PublishedCounters, snapshot } from './counters.ts';
import { type Gate, openGates } from './gate.ts';
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

/** The reports to one firewall, and its gate. */
class Reporter {
  private readonly firewall: number;
  private readonly gate: Gate;
  private readonly schedule: TelemetryConfig;
  private readonly counters: PublishedCounters;
  private readonly client: TelemetryClient;
  private readonly report: TelemetryReport;
  private readonly alarm = new Alarm();
  private readonly pending: AgentEvent[] = ['start'];
  private stopping = false;

  constructor(data: TelemetryWorkerData, firewall: number, gate: Gate) {
    const { credentials, identity, url } = data.targets[firewall]!;
    this.firewall = firewall;
    this.gate = gate;
    this.schedule = data.schedule;
    this.counters = openPublishedCounters(data.counters);
    this.client = new TelemetryClient(url, credentials);
    this.report = new TelemetryReport(identity);
  }

  stop(): void {
    this.stopping = true;
    this.client.cancel();
    this.alarm.ring();
  }

  /** Until it is told to stop. Resolves with why the stop event was not delivered, or nothing. */
  async run(): Promise<string> {
    const { alarm, pending, schedule } = this;
    const plan = new TelemetryPlan(schedule, monotonicMs());
    while (!this.stopping) {
      await alarm.sleep(plan.nextAttemptMs - monotonicMs());
      if (this.stopping) break;
      const startMs = monotonicMs();
      const failure = await this.post(pending, plan.begin(startMs) - startMs);
      if (this.stopping) break;
      if (failure === undefined) pending.length = 0;
      this.apply(failure === undefined ? plan.succeeded() : plan.failed(failure, monotonicMs()));
    }
    const failure = await this.post([...pending, 'stop'], schedule.timeoutMs);
    this.client.close();
    return failure?.message ?? '';
  }

  private post(events: readonly AgentEvent[], timeoutMs: number) {
    const status = this.gate.status(monotonicMs());
    const body = this.report.build(snapshot(this.counters), status, events, Date.now());
    return this.client.post(body, reportContentType, timeoutMs);
  }

  private apply(decision: Decision): void {
    const { firewall, gate } = this;
    if (decision.gate === 'renew') gate.renew(decision.deadlineMs);
    else if (decision.gate === 'close') gate.close(decision.cause, decision.detail);
    const { change } = decision;
    if (change !== undefined) tell({ type: 'change', firewall, change });
  }
}

/** All firewalls get telemetry all the time, so that one that waits is known to be well. */
async function main(data: TelemetryWorkerData): Promise<void> {
  const reporters = openGates(data.gates).map((gate, i) => new Reporter(data, i, gate));
  parentPort?.once('message', () => {
    for (const reporter of reporters) reporter.stop();
  });
  const failures = await Promise.all(reporters.map((reporter) => reporter.run()));
  const named = failures.flatMap((failure, i) =>
    failure === '' ? [] : `${data.targets[i]!.identity.firewall}: ${failure}`,
  );
  tell({ type: 'stopped', failure: named.join('; ') });
}

// No await out here: a bundle is a script, which has none. A rejection ends the worker.
void main(workerData as TelemetryWorkerData);
