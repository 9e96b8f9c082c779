/** The firewalls of a running agent, as the main thread sees them: status, metrics and the log. */
import type { FirewallStatus } from '../control/status.ts';
import type { Settings } from '../engine/config.ts';
import {
  cumulatedRoundTrips,
  type FirewallColumns,
  openFirewallColumns,
} from '../engine/firewall-columns.ts';
import type { Gate, GateStatus } from '../engine/gate.ts';
import { Availability } from '../engine/peers.ts';
import { monotonicMs } from '../engine/ticks.ts';
import { formatAddress } from '../parsers/text.ts';
import { ProbeState } from '../tunnel/firewalls.ts';
import type { Logger } from './log.ts';

const probeNames: Readonly<Record<ProbeState, string>> = {
  [ProbeState.Off]: 'off',
  [ProbeState.Waiting]: 'waiting',
  [ProbeState.Answered]: 'answered',
  [ProbeState.Lost]: 'lost',
};

/** Changes are in the log a moment after they happened; the data path does not wait for it. */
const pollMs = 100;

export class FirewallWatch {
  readonly columns: FirewallColumns;
  private readonly config: Settings;
  private readonly gates: readonly Gate[];
  private readonly logger: Logger;
  private readonly timer: NodeJS.Timeout;
  private readonly seenProbes: Float64Array;
  private seenActive = '';

  /** @param memory of firewallColumnsByteLength bytes, which the data path writes */
  constructor(config: Settings, gates: readonly Gate[], memory: SharedArrayBuffer, logger: Logger) {
    this.config = config;
    this.gates = gates;
    this.logger = logger;
    this.columns = openFirewallColumns(memory);
    this.seenProbes = this.columns.probeState.slice();
    this.timer = setInterval(() => this.tell(), pollMs);
    this.timer.unref();
  }

  /** Whether some firewall has been usable since the start. */
  get everUsable(): boolean {
    return this.columns.changes.some((count) => count > 0);
  }

  close(): void {
    clearInterval(this.timer);
  }

  nameOf(firewall: number): string {
    return this.config.firewalls[firewall]?.name ?? '';
  }

  /** The firewall that takes new flows, the first of them; the first of all when there is none. */
  active(): number {
    return Math.max(0, this.columns.active.indexOf(1));
  }

  /** Of all firewalls together: may traffic be redirected, and if not, why. */
  gate(availability: number): GateStatus {
    const statuses = this.gates.map((gate) => gate.status(monotonicMs()));
    const active = statuses[this.active()]!;
    const status = active.open ? active : (statuses.find(({ open }) => open) ?? statuses[0]!);
    if (!status.open || availability === Availability.Usable) return status;
    const closed = { ...status, open: false, leaseMs: 0 };
    if (availability === Availability.FirewallDown) {
      const whys = statuses.map((_, i) => `${this.nameOf(i)}: ${this.why(i)}`);
      const sentence = `no firewall is healthy (${whys.join('; ')})`;
      return { ...closed, cause: 'firewall-down', sentence };
    }
    const sentence = 'no firewall has answered a probe yet';
    return { ...closed, cause: 'starting', sentence };
  }

  status(): FirewallStatus[] {
    const nowMs = monotonicMs();
    return this.gates.map((_, firewall) => this.describe(firewall, nowMs));
  }

  private describe(firewall: number, nowMs: number): FirewallStatus {
    const { columns, config } = this;
    const of = (column: Float64Array) => column[firewall]!;
    const age = (column: Float64Array) =>
      of(column) === 0 ? -1 : Math.max(0, Math.round(nowMs - of(column)));
    const { name, address } = config.firewalls[firewall]!;
    const { cause, leaseMs, open, sentence } = this.gates[firewall]!.status(nowMs);
    return {
      name,
      address: formatAddress(address),
      usable: of(columns.usable) === 1,
      active: of(columns.active) === 1,
      heldDown: of(columns.held) === 1,
      sinceMs: age(columns.sinceMs),
      changes: of(columns.changes),
      why: of(columns.usable) === 1 ? '' : this.why(firewall),
      telemetry: { open, cause, sentence, leaseMs },
      probe: {
        kind: config.ha.probe.kind,
        state: probeNames[of(columns.probeState) as ProbeState],
        roundTripMs: of(columns.roundTripMs),
        sent: of(columns.probesSent),
        answered: of(columns.probesAnswered),
        lastAnswerMs: age(columns.lastAnswerMs),
      },
      traffic: {
        sent: { packets: of(columns.sentPackets), bytes: of(columns.sentBytes) },
        returned: { packets: of(columns.returnedPackets), bytes: of(columns.returnedBytes) },
        lastReturnMs: age(columns.lastReturnMs),
        flowsTaken: of(columns.flowsTaken),
      },
      innerMtu: of(columns.innerMtu),
    };
  }

  /** With round trips, for metrics. */
  measure() {
    const nowMs = monotonicMs();
    return this.gates.map((_, firewall) => ({
      ...this.describe(firewall, nowMs),
      roundTrips: cumulatedRoundTrips(this.columns, firewall),
      roundTripSumMs: this.columns.roundTripSumMs[firewall]!,
    }));
  }

  /** Why a firewall is not usable. */
  private why(firewall: number): string {
    const { open, sentence } = this.gates[firewall]!.status(monotonicMs());
    if (!open) return sentence;
    const state = this.columns.probeState[firewall];
    if (state === ProbeState.Waiting) return 'it has not answered a probe yet';
    return state === ProbeState.Lost ? this.probeWords() : '';
  }

  private probeWords(): string {
    const { kind, port } = this.config.ha.probe;
    return kind === 'tunnel'
      ? 'it does not return the probe through the tunnel'
      : `it does not answer the ${kind} probe on port ${port}`;
  }

  /** Once for each change. */
  private tell(): void {
    const { columns, config, logger, seenProbes } = this;
    for (const [i, { name }] of config.firewalls.entries()) {
      const probe = columns.probeState[i]!;
      if (probe === seenProbes[i]) continue;
      seenProbes[i] = probe;
      const fields = { firewall: name, probe: probeNames[probe as ProbeState] };
      if (probe === ProbeState.Lost) {
        logger.error(fields, `firewall ${name} is lost: ${this.probeWords()}`);
      } else if (probe === ProbeState.Answered) {
        logger.info(fields, `firewall ${name} answers its probe`);
      }
    }
    const active = config.firewalls.filter((_, i) => columns.active[i] === 1);
    const names = active.map(({ name }) => name).join(', ');
    if (names === this.seenActive || config.firewalls.length === 1) return;
    const before = this.seenActive;
    this.seenActive = names;
    if (names === '') logger.error({ before }, 'no firewall takes new flows');
    else logger.warn({ before, active: names }, `new flows go to ${names}`);
  }
}
