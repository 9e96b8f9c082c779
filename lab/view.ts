/**
 * The lab on a terminal: what goes where, live. On a terminal the picture is drawn over itself a
 * few times a second; elsewhere each event is a line of its own.
 */
import pc from 'picocolors';
import type { AgentStatus, Amount } from './agent.ts';
import type { FirewallEvent, FirewallKind } from './firewalls.ts';
import type { JoinedFlow } from './joined-flows.ts';
import type { StepResult } from './step.ts';
import { addresses } from './topology.ts';

/** What the picture is drawn from; whoever knows something new writes it here. */
export type Live = {
  readonly firewall: FirewallKind;
  readonly encapsulation: string;
  readonly startedAt: number;
  stepTitle: string;
  stepStartedAt: number;
  readonly results: StepResult[];
  /** Undefined while the agent does not answer. */
  status: AgentStatus | undefined;
  traffic: Traffic;
  requests: { answered: number; lost: number };
  throughput: string;
  /** What the firewall allowed and blocked, the latest last. */
  readonly verdicts: FirewallEvent[];
  firewallCounters: FirewallEvent | undefined;
  /** Connections as agent and firewall counted them; of a firewall that does. */
  readonly flows: JoinedFlow[];
};

/** Totals, and packets and bytes per second. */
export type Row = { total: Amount; rate: Amount };
export type Traffic = { redirected: Row; reinjected: Row; passed: Row; dropped: Row };

export type View = {
  begin(title: string): void;
  end(result: StepResult): void;
  verdict(event: FirewallEvent): void;
  /** Call a few times a second. */
  refresh(): void;
  finish(): void;
};

const verdictCount = 6;
const nothing: Amount = { packets: 0, bytes: 0 };

export function createLive(firewall: FirewallKind, encapsulation: string): Live {
  return {
    firewall,
    encapsulation,
    startedAt: performance.now(),
    stepTitle: 'Setting the stage',
    stepStartedAt: performance.now(),
    results: [],
    status: undefined,
    traffic: countTraffic(undefined, undefined, 1),
    requests: { answered: 0, lost: 0 },
    throughput: '',
    verdicts: [],
    firewallCounters: undefined,
    flows: [],
  };
}

/** From two statuses that lie `seconds` apart; an agent that started anew begins at 0. */
export function countTraffic(
  before: AgentStatus | undefined,
  now: AgentStatus | undefined,
  seconds: number,
): Traffic {
  const [old, total] = [sumUp(before), sumUp(now)];
  const row = (kind: keyof typeof total): Row => ({
    total: total[kind],
    rate: {
      packets: Math.max(0, total[kind].packets - old[kind].packets) / seconds,
      bytes: Math.max(0, total[kind].bytes - old[kind].bytes) / seconds,
    },
  });
  return {
    redirected: row('redirected'),
    reinjected: row('reinjected'),
    passed: row('passed'),
    dropped: row('dropped'),
  };
}

/** Fates by their names: `redirected`, `reinjected`, `passed-…`; the others lost the packet. */
function sumUp(status: AgentStatus | undefined): Record<keyof Traffic, Amount> {
  const sums = { redirected: nothing, reinjected: nothing, passed: nothing, dropped: nothing };
  for (const [name, amount] of Object.entries(status?.counters ?? {})) {
    if (name === 'ok' || name === 'probe-answered') continue;
    const isPassed = name.startsWith('passed');
    const kind =
      name === 'redirected' || name === 'reinjected' ? name : isPassed ? 'passed' : 'dropped';
    sums[kind] = add(sums[kind], amount);
  }
  for (const [name, amount] of Object.entries(status?.kernel ?? {})) {
    if (name.startsWith('pass')) sums.passed = add(sums.passed, amount);
    if (name.startsWith('drop')) sums.dropped = add(sums.dropped, amount);
  }
  return sums;
}

function add(a: Amount, b: Amount): Amount {
  return { packets: a.packets + b.packets, bytes: a.bytes + b.bytes };
}

export function createView(live: Live, kind: 'terminal' | 'lines' | 'silent'): View {
  if (kind === 'terminal') return new TerminalView(live);
  return kind === 'lines' ? linesView(live) : silentView;
}

const silentView: View = {
  begin: () => {},
  end: () => {},
  verdict: () => {},
  refresh: () => {},
  finish: () => {},
};

function linesView(live: Live): View {
  const say = (line: string) => {
    const seconds = ((performance.now() - live.startedAt) / 1000).toFixed(1);
    console.log(`${pc.dim(`${seconds.padStart(5)} s`)}  ${line}`);
  };
  return {
    ...silentView,
    begin: (title) => say(`${title} …`),
    end: (result) => {
      say(`${title(result)} ${pc.dim(`${(result.durationMs / 1000).toFixed(1)} s`)}`);
      if (live.status !== undefined) for (const row of trafficRows(live)) say(`  ${row}`);
    },
    verdict: (event) => {
      if (event.event === 'blocked') say(`  firewall ${verdictRow(event)}`);
    },
  };
}

class TerminalView implements View {
  private readonly live: Live;
  private drawn = 0;

  constructor(live: Live) {
    this.live = live;
    process.stdout.write('\x1b[?25l');
    process.once('exit', () => process.stdout.write('\x1b[?25h'));
  }

  begin(): void {
    this.refresh();
  }

  end(): void {
    this.refresh();
  }

  verdict(): void {}

  refresh(): void {
    const { columns = 100, rows = 40 } = process.stdout;
    const lines = draw(this.live)
      .slice(0, rows - 1)
      .map((line) => cut(line, columns - 1));
    const up = this.drawn > 0 ? `\x1b[${this.drawn}A` : '';
    process.stdout.write(`${up}${lines.map((line) => `\x1b[2K${line}\n`).join('')}\x1b[0J`);
    this.drawn = lines.length;
  }

  finish(): void {
    this.refresh();
    process.stdout.write('\x1b[?25h\n');
  }
}

function draw(live: Live): string[] {
  const seconds = ((performance.now() - live.startedAt) / 1000).toFixed(1);
  const line = pc.dim('──');
  const name = `${pc.bold('microperimeter lab')}  ${live.firewall} firewall, ${live.encapsulation}`;
  return [
    `${name}  ${pc.dim(`${seconds} s`)}`,
    '',
    `  workload ${addresses.workload} ${line} router ${line} server ${addresses.server}`,
    `                         ${pc.dim('└──')} transit ${line} firewall ${addresses.firewall}`,
    '',
    ...live.results.map((result) => `  ${title(result)}`),
    live.stepTitle === '' ? '' : `  ${pc.cyan('▸')} ${live.stepTitle} ${pc.dim(stepSeconds(live))}`,
    '',
    `  ${pc.bold('agent'.padEnd(11))}${agentRow(live.status)}`,
    ...trafficRows(live).map((row) => `  ${row}`),
    `  ${'requests'.padEnd(11)}${requestsRow(live)}`,
    `  ${'throughput'.padEnd(11)}${live.throughput || pc.dim('-')}`,
    '',
    `  ${pc.bold('firewall'.padEnd(11))}${firewallRow(live)}`,
    ...live.verdicts.slice(-verdictCount).map((event) => `  ${verdictRow(event)}`),
  ];
}

function stepSeconds(live: Live): string {
  return `${((performance.now() - live.stepStartedAt) / 1000).toFixed(1)} s`;
}

function title(result: StepResult): string {
  const signs = { held: pc.green('✓'), failed: pc.red('✗'), skipped: pc.yellow('-') };
  return `${signs[result.verdict]} ${result.title}`;
}

function agentRow(status: AgentStatus | undefined): string {
  if (status === undefined) return pc.dim('not running');
  const { state, cause, gate, firewalls, flows, innerMtu } = status;
  const firewall = firewalls.find(({ active }) => active) ?? firewalls[0];
  if (gate === undefined) return state;
  const open = gate.open ? pc.green('open') : pc.red('closed');
  const lease = gate.open ? ` for ${(gate.leaseMs / 1000).toFixed(1)} s` : '';
  const why = state === 'redirecting' || !cause ? '' : ` (${cause})`;
  const to = `firewall ${firewall?.name} ${firewall?.address}, inner MTU ${innerMtu}`;
  return `${state}${why}, gate ${open}${lease}, ${flows.count} flows, ${to}`;
}

function trafficRows(live: Live): string[] {
  return (Object.entries(live.traffic) as [string, Row][]).map(([name, { total, rate }]) => {
    const packets = `${total.packets.toLocaleString('en')} packets`.padStart(20);
    const bytes = scale(total.bytes, 'B').padStart(10);
    const rates = `${Math.round(rate.packets).toLocaleString('en')}/s`.padStart(12);
    const bits = `${scale(rate.bytes * 8, 'bit')}/s`.padStart(13);
    const isBad = name === 'dropped' && total.packets > 0;
    return `${(isBad ? pc.yellow : String)(name.padEnd(11))}${packets}${bytes}${rates}${bits}`;
  });
}

function requestsRow(live: Live): string {
  const { answered, lost } = live.requests;
  return `${answered} answered, ${lost > 0 ? pc.red(`${lost} lost`) : '0 lost'}`;
}

function firewallRow({ firewall, firewallCounters: counters }: Live): string {
  if (firewall === 'vxlan') return pc.dim('the kernel, routing from its VXLAN device back into it');
  if (counters === undefined) return pc.dim('nothing yet');
  const number = (name: string) => Number(counters[name] ?? 0).toLocaleString('en');
  const [allowed, blocked, malformed] = ['allowed', 'blocked', 'malformed'].map(number);
  return `${allowed} packets allowed, ${blocked} blocked, ${malformed} malformed`;
}

function verdictRow(event: FirewallEvent): string {
  const isBlocked = event.event === 'blocked';
  const sign = isBlocked ? pc.red('blocked') : pc.green('allowed');
  const ends = `${event.source} → ${event.target}`;
  const why = isBlocked ? pc.red(`  ${event.reason}`) : '';
  const way = String(event.direction).padEnd(8);
  return `${sign} ${way}${event.protocol} ${ends}  ${event.about}${why}`;
}

const units = ['', 'k', 'M', 'G', 'T'];

function scale(value: number, unit: string): string {
  let power = 0;
  while (value >= 1000 && power < units.length - 1) {
    value /= 1000;
    power++;
  }
  const digits = power === 0 ? 0 : value < 10 ? 2 : 1;
  return `${value.toFixed(digits)} ${units[power]}${unit}`;
}

/** Cut to a width in characters that are seen; colours do not count and are switched off. */
function cut(line: string, width: number): string {
  let seen = 0;
  let out = '';
  // biome-ignore lint/suspicious/noControlCharactersInRegex: colours begin with one
  for (const part of line.split(/(\x1b\[[\d;]*m)/)) {
    if (part.startsWith('\x1b')) {
      out += part;
      continue;
    }
    out += part.slice(0, Math.max(0, width - seen));
    seen += part.length;
  }
  return out;
}
