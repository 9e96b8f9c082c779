/** A running agent: its threads, what it says about itself, and how it ends. */
import type { Readable } from 'node:stream';
import { CaptureSource, parseCaptureQuery } from '../control/capture.ts';
import { type FlowNames, listFlows, parseFlowQuery, redirectsBefore } from '../control/flows.ts';
import type { Measurements } from '../control/metrics.ts';
import type { AgentState, AgentStatus } from '../control/status.ts';
import { type Counters, Gauge, totals } from '../engine/counters.ts';
import { type FlowColumns, openFlowColumns } from '../engine/flow-columns.ts';
import { type Gate, GateCause, type GateStatus } from '../engine/gate.ts';
import type { Spread } from '../engine/spread.ts';
import { TelemetryThread, type TelemetryWorkerData } from '../engine/telemetry-thread.ts';
import { monotonicMs, tickMs } from '../engine/ticks.ts';
import { releaseLeftovers } from '../linux/bpf/methods.ts';
import type { Closers } from '../linux/fd.ts';
import { listInterfaces } from '../linux/netlink.ts';
import { NetlinkWatch } from '../linux/netlink-watch.ts';
import type { AttachedSteering } from '../linux/steering.ts';
import type { Tun } from '../linux/tun.ts';
import { reconnectSenders } from '../linux/udp.ts';
import { reasonKinds, reasonNames } from '../parsers/reason.ts';
import { type AccelerationPlan, Carrying } from './acceleration.ts';
import { captureHeaderOf } from './capture/header.ts';
import type { Compiled } from './compile.ts';
import type { DataPathStart } from './data-path-thread.ts';
import { Breaths, DataPaths } from './data-paths.ts';
import { ExitCode } from './exit-codes.ts';
import { FirewallWatch } from './firewalls.ts';
import { FlowLog } from './flow-log.ts';
import { builtInsOf, type Links, pinDirectory, steeringPolicyOf } from './host-policy.ts';
import { type Host, HostWatch } from './host-watch.ts';
import { linksNow, sourceTo } from './links.ts';
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
  /** One for each worker, and what wakes it. */
  readonly dataPaths: readonly DataPathStart[];
  readonly wakes: readonly (() => void)[];
  /** Of all workers. */
  readonly counters: SharedArrayBuffer;
  readonly senders: Parameters<typeof reconnectSenders>[0];
  readonly telemetry: TelemetryWorkerData;
  readonly closers: Closers;
  /** Absent where there is one worker. */
  readonly spread: Spread | undefined;
};

/** What is redirected by then, the guard still drops on its way back. */
const guardPollMs = 20;

export class Agent {
  /** Resolves with an exit code when the agent cannot go on. */
  readonly ended: Promise<number>;
  private readonly parts: AgentParts;
  private readonly inForce: PolicyInForce;
  private readonly dataPath: DataPaths;
  private readonly breaths: Breaths;
  private readonly telemetry: TelemetryThread;
  private readonly captures: CaptureSource;
  private readonly flowColumns: readonly FlowColumns[];
  private readonly flowLog: FlowLog | undefined;
  private readonly hostWatch: HostWatch;
  /** As the host is now. */
  private links: Links;
  private readonly carrying: Carrying;
  private turn: Promise<void> = Promise.resolve();
  private guardGone = false;
  private readonly pulse: Pulse;
  private readonly firewalls: FirewallWatch;
  private readonly startedMs = Date.now();
  private readonly startedAt = performance.now();

  constructor(parts: AgentParts) {
    this.parts = parts;
    this.links = parts.links;
    this.carrying = new Carrying(parts.plan, parts.steering.carrying, parts.senders, parts.logger);
    this.inForce = new PolicyInForce(this.policyPlaces(), parts.inForce);
    const { dataPaths, gates, logger, wakes } = parts;
    const taps = dataPaths.map(({ tap }) => tap);
    this.captures = new CaptureSource(taps, (rule, generation) =>
      this.inForce.nameOf(rule, generation),
    );
    this.flowColumns = dataPaths.map(({ engine, flows }) => openFlowColumns(flows, engine.flows));
    this.breaths = new Breaths(parts.counters, dataPaths.length);
    this.firewalls = new FirewallWatch(
      parts.inForce.settings,
      gates,
      dataPaths.map(({ firewalls }) => firewalls),
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
    this.dataPath = new DataPaths(dataPaths, wakes, {
      died: died('data path'),
      failed: failed('data path'),
    });
    this.hostWatch = this.watchHost();
    this.hostWatch.start();
    this.pulse = new Pulse(() => this.feel());
    this.sayHowItStands();
    this.disarmGuardInTime();
    const isAlone = gates.length === 1;
    this.telemetry = new TelemetryThread(parts.telemetry, gates, {
      change: (index, { level, message, sentence, state }) => {
        const words = message === '' ? sentence : `${sentence}: ${message}`;
        const firewall = this.firewalls.nameOf(index);
        const what = isAlone ? 'the gate' : `the gate of ${firewall}`;
        // The data path may be asleep; it need not find out by itself.
        for (const wake of wakes) wake();
        logger[level]({ gate: state, firewall }, `${what} is ${state}: ${words}`);
      },
      died: died('telemetry worker'),
      failed: failed('telemetry worker'),
    });
  }

  private openFlowLog(): FlowLog | undefined {
    const { dataPaths, inForce, logger } = this.parts;
    const config = inForce.settings;
    const file = config.log.flows;
    if (file === '') return undefined;
    return new FlowLog({
      file,
      rings: dataPaths.map(({ flowLog }) => flowLog),
      names: this.flowNames(),
      failed: (message) => logger.error(`lines of the flow log are lost: ${message}`),
    });
  }

  private flowNames(): FlowNames {
    return {
      interfaces: this.parts.links.interfaces.map(({ name }) => name),
      rule: (rule, generation) => this.inForce.nameOf(rule, generation),
      firewall: (firewall) => this.firewalls.nameOf(firewall),
    };
  }

  private sayHowItStands(): void {
    const { dataPaths, logger } = this.parts;
    const { limits, policy } = this.inForce.now.settings;
    if (policy.onBoot === 'drop') {
      logger.info('traffic is dropped until a firewall is usable: policy.onBoot');
    }
    const bytes = dataPaths.reduce((sum, { flows }) => sum + flows.byteLength, 0);
    const megabytes = Math.round(bytes / 1e6);
    logger.info(`${limits.flows} flows at most take ${megabytes} MB of memory, as they are used`);
    this.carrying.announce(this.inForce.now.settings, this.links);
    if (leaksIpv6(this.inForce.now.settings, this.links)) {
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
   * exceptions, IPv6. Flows that are known keep their verdict, or are decided again. Resolves when
   * the data path decides by it. The caller has made sure that nothing else differs.
   *
   * @throws as PolicyInForce.change
   */
  reload(next: Compiled, reclassify: boolean): Promise<void> {
    return this.inTurn(() => this.inForce.change(next, reclassify));
  }

  /** One change at a time: the data path is waited for. */
  private inTurn(change: () => Promise<void>): Promise<void> {
    const done = this.turn.then(change);
    this.turn = done.catch(() => {});
    return done;
  }

  private policyPlaces(): PolicyPlaces {
    const { spread, steering, tun } = this.parts;
    return {
      steering,
      replacePolicy: (policy) => this.dataPath.replacePolicy(policy),
      redirectsBefore: (generation) =>
        this.flowColumns.some((columns) => redirectsBefore(columns, generation)),
      adoptedGeneration: () => this.counters().gauges[Gauge.PolicyGeneration],
      policyOf: ({ policy, settings }, generation, reclassifyBefore) => ({
        ...policy,
        builtIns: builtInsOf(settings, this.links),
        generation,
        reclassifyBefore,
      }),
      steeringPolicyOf: (settings) =>
        steeringPolicyOf(settings, this.links, tun, this.parts.plan.acceleration, spread),
    };
  }

  /** The host is not as it was: programs go where they belong now. */
  private async applyLinks(next: Links): Promise<void> {
    const { spread, steering, tun } = this.parts;
    const { now } = this.inForce;
    const known = this.links.broadcasts.join() === next.broadcasts.join();
    const indexes = ({ interfaces }: Links) => interfaces.map(({ index }) => index).join();
    if (indexes(this.links) !== indexes(next)) this.carrying.stop();
    this.links = next;
    const { acceleration } = this.parts.plan;
    if (known) steering.replace(steeringPolicyOf(now.settings, next, tun, acceleration, spread));
    else await this.inForce.change(now);
  }

  private watchHost(): HostWatch {
    const { closers, logger, senders, steering } = this.parts;
    const news = new NetlinkWatch();
    closers.add(() => news.close());
    const host: Host = {
      hasChanged: () => news.hasChanged(),
      links: linksNow,
      sourceTo: (firewall) => sourceTo(firewall),
      missing: () => steering.missing(),
      others: () => steering.others(),
      segmentation: () => this.counters().gauges[Gauge.SegmentationOff] === 0,
      apply: (links) => this.inTurn(() => this.applyLinks(links)),
      reconnect: () => {
        this.carrying.stop();
        return reconnectSenders(senders.filter(({ address }) => sourceTo(address) !== 0));
      },
      settled: () => this.carrying.resume(this.inForce.now.settings, this.links),
    };
    const firewalls = this.inForce.now.settings.firewalls.map(({ address }) => address);
    return new HostWatch(host, this.links, firewalls, logger);
  }

  /** With `onBoot: drop` when a firewall is usable: what is behind the guard is redirected then. */
  private disarmGuardInTime(): void {
    if (this.inForce.now.settings.policy.onBoot === 'pass') {
      this.disarmGuard('policy.onBoot is pass');
      return;
    }
    const timer = setInterval(() => {
      if (!this.firewalls.everUsable) return;
      clearInterval(timer);
      this.disarmGuard('a firewall is usable');
    }, guardPollMs);
    timer.unref();
    this.parts.closers.add(() => clearInterval(timer));
  }

  /**
   * The boot guard has held until now. Once: from then on the agent's own programs follow
   * `onAgentFailure` whatever becomes of it.
   */
  disarmGuard(reason: string): void {
    if (this.guardGone) return;
    this.guardGone = true;
    const count = releaseLeftovers(pinDirectory, 'guard');
    if (count > 0) this.parts.logger.info(`the boot guard is disarmed: ${reason}`);
  }

  /**
   * What `GET /status` answers.
   *
   * @param found how many management exceptions, the last ones, are not the file's
   */
  status(found = 0): AgentStatus {
    const { steering, tun } = this.parts;
    const { firewalls, hostWatch, links, pulse, startedAt, startedMs } = this;
    const { plan } = this.carrying;
    return {
      ...describeStatus({
        inForce: this.inForce.now,
        links,
        firewalls,
        steering,
        plan,
        tunIndex: tun.index,
        foundExceptions: found,
        counters: this.counters(),
        pulse,
        startedAt,
        startedMs,
      }),
      drift: hostWatch.drift,
      repairs: { count: hostWatch.repairCount, latest: hostWatch.repairs },
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
      handedOver: counters.gauges[Gauge.HandedOver],
      innerMtu: counters.gauges[Gauge.InnerMtu],
      tunDropped: tunDroppedOf(listInterfaces(), tun.index),
    };
  }

  /** What the service manager is told. */
  health(): Health {
    const counters = this.counters();
    const gate = this.gate(counters);
    const state = stateOf(gate, counters);
    return {
      breaths: this.breaths.look(),
      words: gate.open ? state : `${state}: ${gate.sentence}`,
    };
  }

  private feel(): { state: AgentState; breaths: number } {
    const counters = this.counters();
    const state = stateOf(this.gate(counters), counters);
    return { state, breaths: this.breaths.look() };
  }

  private counters(): Counters {
    return totals(this.parts.counters);
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

  /** Undefined while another one is open. Throws RangeError about what is wrong with the query. */
  capture(query: URLSearchParams): Readable | undefined {
    const { links, senders } = this.parts;
    const header = captureHeaderOf(this.inForce.now.settings, links, senders);
    return this.captures.open(parseCaptureQuery(query), header);
  }

  private async close(): Promise<void> {
    for (const gate of this.parts.gates) gate.close(GateCause.Stopping);
    await this.hostWatch.stop();
    this.firewalls.close();
    this.inForce.close();
    await this.dataPath.stop();
    this.pulse.close();
    this.flowLog?.close();
    this.parts.closers.closeAll();
  }
}
