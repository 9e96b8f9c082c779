/** The status of an agent on one screen of a terminal: 80 columns, the answers first. */
import type { AgentState, AgentStatus, FirewallStatus, RuleStatus } from '../../control/status.ts';
import { formatBytes } from '../table.ts';
import { type Colors, cut, formatAge, formatCount, kernelWords, wrap } from './format.ts';

const width = 80;
const labelWidth = 12;
/** On one screen; `--json` has all. */
const shownRules = 8;
const shownManagement = 4;

/** Ends with a line feed. No line is longer than 80 characters, colours apart. */
export function drawStatus(status: AgentStatus, colors: Colors, nowMs: number): string {
  const lines = [
    headline(status, colors, nowMs),
    ...pending(status, colors),
    ...interfaces(status, colors),
    ...firewalls(status, colors),
    ...labelled('gate', gateWords(status), paintIf(!status.gate.open, colors.yellow)),
    ...failures(status, colors),
    ...ipv6(status, colors),
    ...management(status),
    ...drift(status, colors),
    ...labelled('flows', flowWords(status)),
    '',
    ...rules(status, colors),
    '',
    ...packets(status, colors),
  ];
  return `${lines.join('\n')}\n`;
}

type Paint = (text: string) => string;
const plain: Paint = (text) => text;

function paintIf(condition: boolean, paint: Paint): Paint {
  return condition ? paint : plain;
}

/** A label, and words beside it that are wrapped to the right of it. */
function labelled(label: string, words: string, paint: Paint = plain): string[] {
  return wrap(words, width - labelWidth).map(
    (line, index) => `${(index === 0 ? label : '').padEnd(labelWidth)}${paint(line)}`,
  );
}

const statePaints: Readonly<Record<AgentState, 'green' | 'yellow' | 'red'>> = {
  redirecting: 'green',
  opening: 'yellow',
  starting: 'yellow',
  stopping: 'yellow',
  closed: 'red',
};

function headline(status: AgentStatus, colors: Colors, nowMs: number): string {
  const { policy, since, state, upMs, version } = status;
  const observed = state === 'redirecting' && policy.mode === 'observe';
  const word = observed ? 'OBSERVING' : state.toUpperCase();
  const paint = observed ? colors.yellow : colors[statePaints[state]];
  const lasting = formatAge(nowMs - Date.parse(since));
  const times = `for ${lasting}  (up ${formatAge(upMs)})`;
  return `${colors.bold(`microperimeter ${version}`)}  ${paint(colors.bold(word))} ${times}`;
}

function pending({ configuration }: AgentStatus, colors: Colors): string[] {
  if (configuration?.pending === undefined) return [];
  const { secondsLeft } = configuration.pending;
  const words =
    `a configuration waits to be confirmed: rolled back in ${secondsLeft} s ` +
    'unless you say microperimeter confirm';
  return labelled('apply', words, (line) => colors.yellow(colors.bold(line)));
}

function interfaces(status: AgentStatus, colors: Colors): string[] {
  const { attachedBy, policy } = status;
  const count = status.rules.length - 1;
  const by = `${count === 1 ? '1 rule' : `${count} rules`}, else ${status.rules.at(-1)?.action}`;
  const share = policy.rolloutPercent < 100 ? `, ${policy.rolloutPercent}% of new flows` : '';
  const how = policy.mode === 'observe' ? 'observed only' : 'redirected';
  return status.interfaces.flatMap(({ drift: found, name, redirected }, index) => {
    const words = redirected
      ? `${how} by ${by}${share}  (${attachedBy})`
      : found.length > 0
        ? `NOT redirected: ${found.join('; ')}`
        : `not redirected: ${status.cause}`;
    const label = index === 0 ? 'interface' : '';
    return labelled(label, `${name}  ${words}`, paintIf(!redirected, colors.yellow));
  });
}

function firewalls(status: AgentStatus, colors: Colors): string[] {
  return status.firewalls.flatMap((firewall, index) => {
    const words = `${firewall.name}  ${firewall.address}  ${firewallWords(status, firewall)}`;
    const paint = firewall.usable ? (firewall.active ? plain : colors.dim) : colors.yellow;
    return labelled(index === 0 ? 'firewall' : '', words, paint);
  });
}

function firewallWords({ tunnel }: AgentStatus, firewall: FirewallStatus): string {
  const { active, heldDown, innerMtu, probe, sinceMs, usable, why } = firewall;
  const lasting = sinceMs < 0 ? '' : ` for ${formatAge(sinceMs)}`;
  if (!usable) return `NOT usable${lasting}: ${why}`;
  const answers =
    probe.state === 'answered' ? `, answers in ${probe.roundTripMs.toFixed(2)} ms` : '';
  if (!active) return `standby${heldDown ? ', held down' : ''}${lasting}${answers}`;
  const through = `${tunnel.encapsulation} to ${describePorts(tunnel.ports)}, inner MTU ${innerMtu}`;
  return `active${lasting}${answers}, ${through}`;
}

function describePorts(ports: readonly number[]): string {
  return ports.length === 1 ? `port ${ports[0]}` : `ports ${ports.join(' and ')}`;
}

function gateWords({ gate }: AgentStatus): string {
  if (!gate.open) return `closed: ${gate.sentence}`;
  return `open, lease of ${(gate.leaseMs / 1000).toFixed(1)} s left: ${gate.sentence}`;
}

function failures({ failurePolicies }: AgentStatus, colors: Colors): string[] {
  return failurePolicies.flatMap(({ inForce, key, value, words }, index) => {
    const isFailure = inForce && key.startsWith('on');
    const text = `${`${key}: ${value}`.padEnd(23)} ${isFailure ? 'IN FORCE: ' : ''}${words}`;
    const indented = wrap(
      text.replace(/ {2,}/, (gap) => '\u00a0'.repeat(gap.length)),
      68,
    );
    return indented.map((line, at) => {
      const label = index === 0 && at === 0 ? 'failures' : '';
      const shown = line.replaceAll('\u00a0', ' ');
      return `${label.padEnd(labelWidth)}${paintIf(isFailure, colors.yellow)(shown)}`;
    });
  });
}

function ipv6({ ipv6: { leaks, policy } }: AgentStatus, colors: Colors): string[] {
  const words = leaks
    ? 'pass: this host has IPv6, and it goes past inspection (workload.ipv6: drop)'
    : policy === 'drop'
      ? 'drop: only neighbour discovery and link-local go through'
      : 'pass: this host has no global IPv6 address on these interfaces';
  return labelled('IPv6', words, paintIf(leaks, colors.yellow));
}

function management({ management: all }: AgentStatus): string[] {
  if (all.length === 0) return labelled('management', 'no exceptions');
  const shown = all
    .slice(0, shownManagement)
    .map(({ exception, source }) => `${exception}${source === 'ssh' ? ' (this SSH session)' : ''}`);
  const more = all.length - shown.length;
  return labelled('management', `${shown.join(', ')}${more > 0 ? ` and ${more} more` : ''}`);
}

function drift(status: AgentStatus, colors: Colors): string[] {
  const { configuration, interfaces: links, repairs } = status;
  const found = links.flatMap((link) => link.drift.map((words) => `${link.name}: ${words}`));
  found.push(...status.drift);
  if (configuration?.differs) {
    found.push(`${configuration.file} is not what is in force: microperimeter reload`);
  }
  const last = repairs.latest.at(-1);
  const repaired =
    last === undefined ? [] : labelled('repaired', `${repairs.count} times, last: ${last.words}`);
  if (found.length === 0) {
    return [...labelled('drift', 'none: the kernel is as the agent left it'), ...repaired];
  }
  const lines = found.flatMap((words, index) =>
    labelled(index === 0 ? 'drift' : '', words, (line) => colors.yellow(line)),
  );
  return [...lines, ...repaired];
}

function flowWords({ acceleration, flows: { capacity, count, evicted } }: AgentStatus): string {
  const lost = evicted === 0 ? '' : `, ${formatCount(evicted)} evicted for want of room`;
  const { by, reason } = acceleration;
  const who = by === 'kernel' ? ', established ones carried by the kernel' : '';
  const why = reason === '' ? '' : `, none carried by the kernel: ${reason}`;
  return `${formatCount(count)} of ${formatCount(capacity)}${lost}${who}${why}`;
}

/** Those that can never match are shown first of those that would be left out. */
function rules({ rules: all }: AgentStatus, colors: Colors): string[] {
  const shown = chooseRules(all);
  const rows = shown.flatMap(({ action, hits, name, never }) => {
    const row = `  ${cut(name, 32).padEnd(33)}${action.padEnd(9)}${formatCount(hits).padStart(16)}`;
    if (never === '') return [row];
    const why = wrap(never, width - 4).map((line) => `    ${line}`);
    return [row, ...why].map((line) => colors.yellow(line));
  });
  const left = all.length - shown.length;
  const more = left > 0 ? [colors.dim(`  and ${formatCount(left)} more (--json has all)`)] : [];
  return [
    colors.bold(`${'rules'.padEnd(44)}connections`.padEnd(width).trimEnd()),
    ...rows,
    ...more,
  ];
}

function chooseRules(all: readonly RuleStatus[]): RuleStatus[] {
  if (all.length <= shownRules) return [...all];
  const weight = ({ hits, name, never }: RuleStatus) =>
    name === 'default' ? Number.POSITIVE_INFINITY : never !== '' ? Number.MAX_VALUE : hits;
  const chosen = new Set([...all].sort((a, b) => weight(b) - weight(a)).slice(0, shownRules));
  return all.filter((rule) => chosen.has(rule));
}

function packets({ counters, kernel, tunDropped }: AgentStatus, colors: Colors): string[] {
  const byKind = (kind: string) => Object.values(counters).filter((row) => row.kind === kind);
  const kernelRows = Object.entries(kernel)
    .filter(([, row]) => row.packets > 0)
    .map(([name, row]) => ({ ...row, words: kernelWords[name] ?? name }));
  const waited = { packets: tunDropped, words: 'waited for the agent in vain: its queue was full' };
  const dropped = [...byKind('dropped'), ...(tunDropped > 0 ? [waited] : [])];
  return [
    ...section('forwarded by the agent', byKind('forwarded'), colors),
    ...section('dropped by the agent', dropped, colors),
    ...section('by the kernel alone', kernelRows, colors),
  ];
}

type PacketRow = { readonly packets: number; readonly bytes?: number; readonly words: string };

function section(title: string, rows: readonly PacketRow[], colors: Colors): string[] {
  if (rows.length === 0) return [`${colors.bold(title)}: nothing`];
  const lines = [...rows]
    .sort((a, b) => b.packets - a.packets)
    .flatMap(({ bytes, packets: count, words }) => {
      const size = bytes === undefined ? '' : formatBytes(bytes);
      const amount = `  ${formatCount(count).padStart(13)} ${size.padStart(11)}  `;
      return wrap(words, width - amount.length).map(
        (line, index) => `${index === 0 ? amount : ' '.repeat(amount.length)}${line}`,
      );
    });
  return [colors.bold(title), ...lines];
}
