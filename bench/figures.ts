/**
 * The figures of the documents, made from bench/results.ndjson, so that nobody types them:
 *
 *     node dist/bench/figures.js      writes what was recorded last between the markers, and plots
 *                                     of it to docs/images
 *
 * A test fails when a document and the results say different things.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { renderClassifier } from './classifier-figures.ts';
import type { Wire } from './peer.ts';
import { type RecordedResult, readResults, resultsOf } from './results.ts';
import type { Figure } from './statistics.ts';
import { type CellFigures, footnote, markdown, tables, wireTitles } from './table.ts';

const begin = '<!-- figures: node dist/bench/figures.js -->';
const end = '<!-- end of figures -->';

/** Documents with figures, and what writes them from the results. */
export const documents: Readonly<Record<string, (results: string) => string>> = {
  'docs/performance.md': renderFigures,
  'docs/classifier.md': renderClassifier,
};

type Line = RecordedResult<{
  readonly run: string;
  readonly peer: string;
  readonly wire: Wire;
  readonly repeats: number;
  readonly spread: number;
  readonly seconds: number;
  /** Cores that other programs used when the run began. */
  readonly others: number;
}>;

/** The text between the markers, of the latest run in the results; '' results: no run yet. */
export function renderFigures(results: string): string {
  const lines = latestRun(results);
  if (lines.length === 0) return 'No run has been recorded yet.';
  const [{ commit, node, kernel, cpu, parameters }] = lines as [Line];
  const { run } = parameters;
  const words =
    `Run of ${run.slice(0, 10)}, commit ${commit}, ${cpu}, Linux ${kernel}, Node ${node}; ` +
    `${parameters.repeats} repeats of ${parameters.seconds} s; ` +
    `other programs used ${parameters.others} cores at its start. ${footnote}`;
  const parts = tables(cellsOf(lines)).map(
    ({ wire, head, rows }) => `### ${wireTitles[wire]}\n\n${markdown(head, rows)}`,
  );
  return [words, ...parts].join('\n\n');
}

function latestRun(results: string): Line[] {
  const all: Line[] = resultsOf(results, 'paths');
  const run = all.at(-1)?.parameters.run;
  return all.filter((line) => line.parameters.run === run);
}

/** What the latest run has measured; empty: none was recorded. */
export function latestCells(results: string): CellFigures[] {
  return cellsOf(latestRun(results));
}

/** The document with other figures. Throws when its markers are gone. */
export function insertFigures(document: string, figures: string): string {
  const from = document.indexOf(begin);
  const to = document.indexOf(end);
  if (from < 0 || to < from) throw new Error(`the document has no place for figures: ${begin}`);
  return `${document.slice(0, from + begin.length)}\n${figures}\n${document.slice(to)}`;
}

/** In the order in which they were recorded. */
function cellsOf(lines: readonly Line[]): CellFigures[] {
  const cells = new Map<string, { peer: string; wire: Wire; figures: Record<string, Figure> }>();
  for (const { name, value, parameters } of lines) {
    const { peer, wire, repeats, spread } = parameters;
    const key = `${peer}, ${wire}`;
    const cell = cells.get(key) ?? { peer, wire, figures: {} };
    cells.set(key, cell);
    cell.figures[name] = { median: value, spread, repeats };
  }
  return [...cells.values()];
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  for (const [file, render] of Object.entries(documents)) {
    writeFileSync(file, insertFigures(readFileSync(file, 'utf8'), render(readResults())));
  }
  // Loaded for this alone: it is larger than all of the bench.
  const { plots } = await import('./plots.ts');
  for (const [name, svg] of Object.entries(plots(latestCells(readResults())))) {
    writeFileSync(`docs/images/${name}.svg`, svg);
  }
}
