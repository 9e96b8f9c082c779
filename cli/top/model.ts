/** What `top` knows: two readings of the agent make rates, and rates make a history. */
import type { FlowRow } from '../../control/flows.ts';
import type { AgentStatus } from '../../control/status.ts';
import type { Alert } from './alerts.ts';

export type Reading = {
  /** Of a monotonic clock. */
  readonly nowMs: number;
  readonly status: AgentStatus;
  readonly flows: readonly FlowRow[];
  /** Flows in the table, shown or not. */
  readonly matching: number;
  /** Of an inspection engine, where its file is followed. */
  readonly alertOf?: ((flow: FlowRow) => Alert | undefined) | undefined;
};

export const sortKeys = ['rate', 'bytes', 'packets', 'age', 'alerts'] as const;
export type SortKey = (typeof sortKeys)[number];

export type TopFlow = FlowRow & { readonly bitsPerSecond: number; readonly alert?: Alert };
export type TopRule = AgentStatus['rules'][number] & { readonly perSecond: number };

/** Of one kind of traffic. */
export type Series = {
  readonly name: 'redirected' | 'returned' | 'passed' | 'dropped';
  readonly bitsPerSecond: number;
  readonly packetsPerSecond: number;
  /** Bits per second, the newest last. */
  readonly history: readonly number[];
};

type Amount = { readonly packets: number; readonly bytes: number };
const seriesNames = ['redirected', 'returned', 'passed', 'dropped'] as const;
type Amounts = Readonly<Record<(typeof seriesNames)[number], Amount>>;

/** As many readings as the widest terminal has columns. */
const rememberedReadings = 512;

export class TopModel {
  private before: Reading | undefined;
  private reading: Reading | undefined;
  private readonly histories = new Map<string, number[]>(seriesNames.map((name) => [name, []]));
  private rates = new Map<string, Amount>();
  private flowRates = new Map<string, number>();

  /** Undefined before the first. */
  get status(): AgentStatus | undefined {
    return this.reading?.status;
  }

  get matching(): number {
    return this.reading?.matching ?? 0;
  }

  take(reading: Reading): void {
    const isSameRun = this.reading?.status.startedAt === reading.status.startedAt;
    this.before = isSameRun ? this.reading : undefined;
    this.reading = reading;
    const { before } = this;
    if (before === undefined) return;
    const seconds = Math.max(0.001, (reading.nowMs - before.nowMs) / 1000);
    const [was, is] = [amountsOf(before.status), amountsOf(reading.status)];
    for (const name of seriesNames) {
      const rate = {
        // A worker that was started again counts from zero.
        packets: Math.max(0, is[name].packets - was[name].packets) / seconds,
        bytes: Math.max(0, is[name].bytes - was[name].bytes) / seconds,
      };
      this.rates.set(name, rate);
      const history = this.histories.get(name)!;
      history.push(rate.bytes * 8);
      if (history.length > rememberedReadings) history.shift();
    }
    const old = new Map(before.flows.map((flow) => [flowKey(flow), bytesOf(flow)]));
    this.flowRates = new Map(
      reading.flows.map((flow) => {
        // A flow that was not there began since.
        const grown = bytesOf(flow) - (old.get(flowKey(flow)) ?? 0);
        const isNew = !old.has(flowKey(flow)) && flow.ageMs > seconds * 2000;
        return [flowKey(flow), isNew ? 0 : (Math.max(0, grown) * 8) / seconds];
      }),
    );
  }

  series(): Series[] {
    return seriesNames.map((name) => ({
      name,
      bitsPerSecond: (this.rates.get(name)?.bytes ?? 0) * 8,
      packetsPerSecond: this.rates.get(name)?.packets ?? 0,
      history: this.histories.get(name)!,
    }));
  }

  /** Whether there is anything to tell of alerts. */
  get hasAlerts(): boolean {
    return this.reading?.alertOf !== undefined;
  }

  /** Those in whose line `filter` occurs, the first by `sort` first. */
  flows(sort: SortKey, filter: string): TopFlow[] {
    const wanted = filter.toLowerCase();
    const key = {
      rate: (flow: TopFlow) => flow.bitsPerSecond,
      bytes: bytesOf,
      packets: (flow: TopFlow) => flow.egress.packets + flow.ingress.packets,
      age: (flow: TopFlow) => flow.ageMs,
      alerts: (flow: TopFlow) => (flow.alert === undefined ? 0 : 1),
    }[sort];
    return (this.reading?.flows ?? [])
      .map((flow): TopFlow => {
        const bitsPerSecond = this.flowRates.get(flowKey(flow)) ?? 0;
        const alert = this.reading?.alertOf?.(flow);
        return alert === undefined ? { ...flow, bitsPerSecond } : { ...flow, bitsPerSecond, alert };
      })
      .filter((flow) => wanted === '' || wordsOf(flow).includes(wanted))
      .sort((a, b) => key(b) - key(a) || bytesOf(b) - bytesOf(a));
  }

  rules(): TopRule[] {
    const { before, reading } = this;
    if (reading === undefined) return [];
    const isSamePolicy = before?.status.policyGeneration === reading.status.policyGeneration;
    const seconds = before === undefined ? 1 : (reading.nowMs - before.nowMs) / 1000;
    return reading.status.rules
      .map((rule, index) => {
        const was = isSamePolicy ? (before?.status.rules[index]?.hits ?? rule.hits) : rule.hits;
        return { ...rule, perSecond: Math.max(0, rule.hits - was) / seconds };
      })
      .sort((a, b) => b.hits - a.hits);
  }

  drops(): { readonly words: string; readonly packets: number }[] {
    const { counters = {}, tunDropped = 0 } = this.reading?.status ?? {};
    const waited = { words: 'the agent was too slow: its queue was full', packets: tunDropped };
    return [...Object.values(counters).filter(({ kind }) => kind === 'dropped'), waited]
      .filter(({ packets }) => packets > 0)
      .sort((a, b) => b.packets - a.packets);
  }
}

function amountsOf({ counters, kernel }: AgentStatus): Amounts {
  const sum = (rows: readonly (Amount | undefined)[]): Amount => ({
    packets: rows.reduce((total, row) => total + (row?.packets ?? 0), 0),
    bytes: rows.reduce((total, row) => total + (row?.bytes ?? 0), 0),
  });
  const agent = (test: (name: string, kind: string) => boolean) =>
    Object.entries(counters)
      .filter(([name, row]) => test(name, row.kind))
      .map(([, row]) => row);
  const byKernel = (test: RegExp) =>
    Object.entries(kernel)
      .filter(([name]) => test.test(name))
      .map(([, row]) => row);
  // The kernel's `excluded` is mostly the tunnel itself: what was redirected, once more.
  const isTunnelled = (name: string) => name === 'redirected' || name === 'reinjected';
  const straight = agent((name, kind) => kind === 'forwarded' && !isTunnelled(name));
  return {
    redirected: sum([counters.redirected]),
    returned: sum([counters.reinjected]),
    passed: sum([...straight, ...byKernel(/^passed/)]),
    dropped: sum([...agent((_, kind) => kind === 'dropped'), ...byKernel(/^dropped/)]),
  };
}

function flowKey(flow: FlowRow): string {
  const { interface: link, local, localPort, protocol, remote, remotePort } = flow;
  return `${protocol} ${local}:${localPort} ${remote}:${remotePort} ${link}`;
}

function bytesOf(flow: FlowRow): number {
  return flow.egress.bytes + flow.ingress.bytes;
}

function wordsOf(flow: TopFlow): string {
  const { alert, by, rule, state, verdict } = flow;
  const signature = alert?.signature ?? '';
  return `${flowKey(flow)} ${verdict} ${by} ${rule} ${state} ${signature}`.toLowerCase();
}
