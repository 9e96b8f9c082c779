/**
 * Results as tables: a row for each figure, a column for each peer, a table for each wire. Pure.
 */

import { figureKinds } from './measure.ts';
import type { Wire } from './peer.ts';
import type { Figure } from './statistics.ts';

/** What every figure is compared with: the kernel doing the same, on the same wire. */
export const yardstick = 'kernel vxlan';

export const wireTitles: Readonly<Record<Wire, string>> = {
  whole: 'All offloads: packets of up to 64 KiB cross the links whole',
  firewall: "The firewall's link carries packets of at most the MTU, the others whole ones",
  mtu: 'Every packet on every link is at most the MTU',
};

export const footnote = `Median ±half the range (ratio to ${yardstick} on the same wire).`;

/** A peer on a wire and what was measured, by name. */
export type CellFigures = {
  readonly peer: string;
  readonly wire: Wire;
  readonly figures: Readonly<Record<string, Figure>>;
};

export type Table = {
  readonly wire: Wire;
  readonly head: readonly string[];
  readonly rows: readonly (readonly string[])[];
};

export function tables(results: readonly CellFigures[]): Table[] {
  const wires = (Object.keys(wireTitles) as Wire[]).filter((wire) =>
    results.some((result) => result.wire === wire),
  );
  return wires.map((wire) => {
    const cells = results.filter((result) => result.wire === wire);
    return { wire, head: ['', ...cells.map((cell) => cell.peer)], rows: rowsOf(cells) };
  });
}

function rowsOf(cells: readonly CellFigures[]): string[][] {
  const measure = cells.find((cell) => cell.peer === yardstick);
  const rows: string[][] = [];
  for (const [name, kind] of Object.entries(figureKinds)) {
    const figures = cells.map((cell) => cell.figures[name]);
    if (figures.every((figure) => figure === undefined)) continue;
    const against = measure?.figures[name];
    rows.push([
      `${kind.title}, ${kind.unit}`,
      ...figures.map((figure, index) =>
        words(figure, cells[index] === measure ? undefined : against, kind.digits),
      ),
    ]);
  }
  return rows;
}

/** `4.95 ±3 % (0.44)`: median, half the range, ratio to the yardstick. */
function words(figure: Figure | undefined, against: Figure | undefined, digits: number): string {
  if (figure === undefined) return '-';
  const value = figure.median.toLocaleString('en', {
    minimumFractionDigits: digits,
    maximumFractionDigits: digits,
  });
  const range = figure.repeats > 1 ? ` ±${Math.round(figure.spread * 100)} %` : '';
  const ratio =
    against === undefined || against.median === 0
      ? ''
      : ` (${(figure.median / against.median).toFixed(2)})`;
  return `${value}${range}${ratio}`;
}

export function markdown(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]) => `| ${cells.join(' | ')} |`;
  return [line(head), line(head.map(() => '---')), ...rows.map(line)].join('\n');
}
