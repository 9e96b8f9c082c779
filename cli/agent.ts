/** A running agent: its threads, what it says about itself, and how it ends. */
import { type FlowNames, listFlows, parseFlowQuery } from '../control/flows.ts';
import type { Measurements } from '../control/metrics.ts';
import type { AgentState, AgentStatus } from '../control/status.ts';
import { builtInRule } from '../engine/classifier/lookup.ts';
import { noRule } from '../engine/classifier/rules.ts';
import { type Counters, Gauge, openPublishedCounters, snapshot } from '../engine/counters.ts';
import { type FlowColumns, openFlowColumns } from '../engine/flow-columns.ts';
import { type Gate, GateCause, type GateStatus } from '../engine/gate.ts';
import { TelemetryThread, type TelemetryWorkerData } from '../engine/telemetry-thread.ts';
import { monotonicMs, tickMs } from '../engine/ticks.ts';
import type { Closers } from '../linux/fd.ts';
import { listInterfaces } from '../linux/netlink.ts';
import type { AttachedSteering } from '../linux/steering.ts';
import type { Tun } from '../linux/tun.ts';
import { reasonKinds, reasonNames } from '../parsers/reason.ts';
import type { AccelerationPlan } from './acceleration.ts';
import type { Compiled } from './compile.ts';
import { type DataPathStart, DataPathThread } from './data-path-thread.ts';
import { ExitCode } from './exit-codes.ts';
import { FirewallWatch } from './firewalls.ts';
import { FlowLog } from './flow-log.ts';
import { builtInsOf, type Links, steeringPolicyOf } from './host-policy.ts';
import type { Logger } from './log.ts';
import { type InForce, PolicyInForce, type PolicyPlaces } from './policy-in-force.ts';
import { Pulse } from './pulse.ts';
import type { Health } from './service.ts';
import { describeStatus, leaksIpv6, rulesOf, stateOf, tunDroppedOf } from './status.ts';
import { version } from './version.ts';

/** What assemble.ts has opened; the agent closes it. */
export type AgentParts = {
  readonly inForce: InForce;
  readonly logger: Logger;
  readonly links: Links;
  readonly gates: readonly Gate[];
  readonly steering: AttachedSteering;
  readonly plan: AccelerationPlan;
  readonly tun: Tun;
  readonly dataPath: DataPathStart;
  readonly wake: () => void;
  readonly telemetry: TelemetryWorkerData;
  readonly closers: Closers;
};

export class Agent {
  /** Resolves with an exit code when the agent cannot go on. */
  readonly ended: Promise<number>;
  private readonly parts: AgentParts;
  private readonly inForce: PolicyInForce;
  private readonly dataPath: DataPathThread;
  private readonly telemetry: TelemetryThread;
  private readonly flowColumns: FlowColumns;
  private readonly flowLog: FlowLog | undefined;
  private readonly pulse: Pulse;
  private readonly firewalls: FirewallWatch;
  private readonly startedMs = Date.now();

  constructor(parts: AgentParts) {
    this.parts = parts;
    this.inForce = new PolicyInForce(this.policyPlaces(), parts.inForce);
    const { flows } = parts.inForce.settings.limits;
    this.flowColumns = openFlowColumns(parts.dataPath.flows, flows);
    const { gates, logger } = parts;
    this.firewalls = new FirewallWatch(
      parts.inForce.settings,
      gates,
      parts.dataPath.firewalls,
      logger,
    );
    this.flowLog = this.openFlowLog();
    let end: (code: number) => void = () => {};
    this.ended = new Promise((resolve) => {
      end = resolve;
    });
    const failed = (name: string) => (message: string) => {
      logger.error(`the ${name} died three times within a minute (${message}): stopping`);
      this.close().then(() => end(ExitCode.Unexpected));
    };
    const died = (name: string) => (message: string) =>
      logger.error(`the ${name} died and is started again: ${message}`);
    this.dataPath = new DataPathThread(parts.dataPath, parts.wake, {
      died: died('data path'),
      failed: failed('data path'),
    });
    this.pulse = new Pulse(() => this.feel());
    this.sayHowItStands();
    const isAlone = gates.length === 1;
    this.telemetry = new TelemetryThread(parts.telemetry, gates, {
      change: (index, { level, message, sentence, state }) => {
        const words = message === '' ? sentence : `${sentence}: ${message}`;
        const firewall = this.firewalls.nameOf(index);
        const what = isAlone ? 'the gate' : `the gate of ${firewall}`;
        // The data path may be asleep; it need not find out by itself.
        parts.wake();
        logger[level]({ gate: state, firewall }, `${what} is ${state}: ${words}`);
      },
      died: died('telemetry worker'),
      failed: failed('telemetry worker'),
    });
  }

  private openFlowLog(): FlowLog | undefined {
    const { dataPath, inForce, logger } = this.parts;
    const config = inForce.settings;
    const file = config.log.flows;
    if (file === '') return undefined;
    return new FlowLog({
      file,
      ring: dataPath.flowLog,
      names: this.flowNames(),
      failed: (message) => logger.error(`lines of the flow log are lost: ${message}`),
    });
  }

  private flowNames(): FlowNames {
    return {
      interfaces: this.parts.links.interfaces.map(({ name }) => name),
      rule: (rule, generation) => this.ruleName(rule, generation),
      firewall: (firewall) => this.firewalls.nameOf(firewall),
    };
  }

  private sayHowItStands(): void {
    const { dataPath, logger } = this.parts;
    const { limits } = this.inForce.now.settings;
    const megabytes = Math.round(dataPath.flows.byteLength / 1e6);
    logger.info(`${limits.flows} flows at most take ${megabytes} MB of memory, as they are used`);
    const { acceleration, reason } = this.parts.plan;
    if (reason !== '') logger.warn(`the kernel does not carry established flows: ${reason}`);
    if (acceleration !== undefined) {
      logger.info(`the kernel carries up to ${acceleration.flows} established flows`);
    }
    if (leaksIpv6(this.inForce.now.settings, this.parts.links)) {
      logger.warn('this host has IPv6, which is not inspected and passes: workload.ipv6');
    }
  }

  /** Tell the firewall, let everything pass, deliver what is on its way, leave no trace. */
  async stop(): Promise<void> {
    const failure = await this.telemetry.stop();
    if (failure !== '') this.parts.logger.warn(`the stop event was not delivered: ${failure}`);
    await this.close();
  }

  /**
   * Put the policy of another configuration in force: rules, default, failure policies, management
   * exceptions, IPv6. Flows that are known keep their verdict. Resolves when the data path decides
   * by it. The caller has made sure that nothing else differs.
   *
   * @throws as PolicyInForce.change
   */
  reload(next: Compiled): Promise<void> {
    return this.inForce.change(next);
  }

  private policyPlaces(): PolicyPlaces {
    const { dataPath, links, plan, steering, tun } = this.parts;
    const published = openPublishedCounters(dataPath.counters);
    return {
      steering,
      replacePolicy: (policy) => this.dataPath.replacePolicy(policy),
      adoptedGeneration: () => snapshot(published).gauges[Gauge.PolicyGeneration],
      policyOf: ({ policy, settings }, generation) => ({
        ...policy,
        builtIns: builtInsOf(settings, links),
        generation,
      }),
      steeringPolicyOf: (settings) => steeringPolicyOf(settings, links, tun, plan.acceleration),
    };
  }

  /** What `GET /status` answers. */
  status(): AgentStatus {
    const { links, plan, steering, tun } = this.parts;
    const { firewalls, pulse, startedMs } = this;
    return {
      ...describeStatus({
        inForce: this.inForce.now,
        links,
        firewalls,
        steering,
        plan,
        tunIndex: tun.index,
        counters: this.counters(),
        pulse,
        startedMs,
      }),
      ...(this.flowLog === undefined ? {} : { flowLog: this.flowLog.status() }),
    };
  }

  /** What the metrics page tells. */
  measurements(): Measurements {
    const { steering, tun } = this.parts;
    const counters = this.counters();
    const { settings } = this.inForce.now;
    const { leaseMs, open } = this.gate(counters);
    return {
      version,
      reasons: reasonNames.flatMap((reason, index) =>
        reasonKinds[index] === 'none'
          ? []
          : {
              reason,
              kind: reasonKinds[index],
              packets: counters.packets[index],
              bytes: counters.bytes[index],
            },
      ),
      kernel: steering.readCounters(),
      rules: rulesOf(this.inForce.now),
      gateOpen: open,
      leaseSeconds: leaseMs / 1000,
      firewalls: this.firewalls.measure(),
      flows: counters.gauges[Gauge.Flows],
      flowCapacity: settings.limits.flows,
      innerMtu: counters.gauges[Gauge.InnerMtu],
      tunDropped: tunDroppedOf(listInterfaces(), tun.index),
    };
  }

  /** What the service manager is told. */
  health(): Health {
    const counters = this.counters();
    const { open, sentence } = this.gate(counters);
    const state = stateOf(this.gate(counters), counters);
    return {
      breaths: counters.gauges[Gauge.Breaths],
      words: open ? state : `${state}: ${sentence}`,
    };
  }

  private feel(): { state: AgentState; breaths: number } {
    const counters = this.counters();
    const state = stateOf(this.gate(counters), counters);
    return { state, breaths: counters.gauges[Gauge.Breaths] };
  }

  private counters(): Counters {
    return snapshot(openPublishedCounters(this.parts.dataPath.counters));
  }

  private gate({ gauges }: Counters): GateStatus {
    return this.firewalls.gate(gauges[Gauge.Availability]);
  }

  /** What `GET /flows` answers. Throws RangeError when the question is wrong. */
  flows(parameters: URLSearchParams): object {
    const query = parseFlowQuery(parameters);
    const nowTick = Math.floor(monotonicMs() / tickMs);
    return listFlows(this.flowColumns, query, nowTick, this.flowNames());
  }

  private ruleName(rule: number, generation: number): string {
    if (rule === builtInRule) return 'built-in';
    if (rule === noRule) return 'default';
    return this.inForce.nameOf(rule, generation) ?? `rule ${rule} of an earlier policy`;
  }

  private async close(): Promise<void> {
    for (const gate of this.parts.gates) gate.close(GateCause.Stopping);
    this.firewalls.close();
    await this.dataPath.stop();
    this.pulse.close();
    this.flowLog?.close();
    this.parts.closers.closeAll();
  }
}
