/** Findings on a terminal: the level in front, what to do about it underneath. */
import { type Colors, wrap } from '../screen/format.ts';
import type { Finding, Level } from './finding.ts';

const width = 80;
const checkWidth = 22;
const levelWidth = 8;

const paints: Readonly<Record<Level, 'green' | 'yellow' | 'red'>> = {
  fine: 'green',
  risk: 'yellow',
  broken: 'red',
};

/** Ends with a line feed. No line is longer than 80 characters, colours apart. */
export function drawFindings(findings: readonly Finding[], colors: Colors): string {
  const lines = findings.flatMap((finding) => drawFinding(finding, colors));
  return `${[...lines, '', summary(findings)].join('\n')}\n`;
}

function drawFinding({ advice, check, level, words }: Finding, colors: Colors): string[] {
  const room = width - levelWidth - checkWidth;
  const [first = '', ...rest] = wrap(words, room);
  const indent = ' '.repeat(levelWidth + checkWidth);
  const head = colors[paints[level]](level.padEnd(levelWidth));
  const more = advice === '' ? [] : wrap(`-> ${advice}`, room);
  return [
    `${head}${check.padEnd(checkWidth)}${first}`,
    ...[...rest, ...more].map((line) => `${indent}${line}`),
  ];
}

function summary(findings: readonly Finding[]): string {
  const count = (level: Level) => findings.filter((finding) => finding.level === level).length;
  return `${count('fine')} fine, ${count('risk')} risks, ${count('broken')} broken`;
}
