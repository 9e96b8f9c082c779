/** An explanation for people. */
import type { DecidedBy, Explanation } from './decide.ts';

/** Of the rules that do not match, those nearest before the one that does. */
const shownMisses = 20;

export function drawExplanation(explanation: Explanation, all: boolean): string {
  const { misses } = explanation;
  const rows: [string, string][] = [
    ['verdict', explanation.verdict],
    ['decided by', drawDecidedBy(explanation.decidedBy, explanation.verdict)],
    ['but', explanation.effect],
    ['through', explanation.firewall],
    ['inner MTU', explanation.innerMtu],
    ['if telemetry is lost', explanation.onFailure],
    ['if none is healthy', explanation.onFirewallDown],
    ['if open before', explanation.established],
    ['later packets', explanation.laterPackets],
    ['looked up in', explanation.lookUp],
  ];
  const lines = [`${explanation.connection} (${explanation.direction})`];
  for (const [name, text] of rows) {
    if (text !== '') lines.push(`  ${name.padEnd(22)}${text}`);
  }
  if (misses.length === 0) return `${lines.join('\n')}\n`;
  lines.push('earlier rules that do not match:');
  const hidden = all ? 0 : Math.max(0, misses.length - shownMisses);
  if (hidden > 0) lines.push(`  ${hidden} more: --all shows them`);
  for (const { rule, line, sentence } of misses.slice(hidden)) {
    lines.push(`  ${rule} (line ${line}): ${sentence}`);
  }
  return `${lines.join('\n')}\n`;
}

function drawDecidedBy({ kind, name, line }: DecidedBy, verdict: string): string {
  const place = line === 0 ? '' : ` (line ${line})`;
  if (kind === 'rule') return `rule ${name}${place}`;
  if (kind === 'built-in') return `built-in, never redirected: ${name}${place}`;
  return line === 0 ? `the default, ${verdict} unless the file says otherwise` : `default${place}`;
}

/** One word or two for a table. */
export function shortDecidedBy({ kind, name, line }: DecidedBy): string {
  const place = line === 0 ? '' : ` (line ${line})`;
  return kind === 'built-in' ? `built-in: ${name}${place}` : `${name}${place}`;
}
