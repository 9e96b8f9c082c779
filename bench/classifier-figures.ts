/** The table of docs/classifier.md: what was recorded last of each set of rules. Pure. */
import { type RecordedResult, resultsOf } from './results.ts';
import { markdown } from './table.ts';

type Line = RecordedResult<{
  readonly set: string;
  readonly rules: number;
  readonly load: number;
}>;

/** M lookups/s on the same files, one core, of another machine of this kind. */
const others: Readonly<Record<string, readonly [tupleMerge: string, rteAcl: string]>> = {
  acl1_1k: ['', '32.7'],
  fw1_1k: ['', '32.1'],
  ipc1_1k: ['', '29.3'],
  acl2_10k: ['6.3', '10.1'],
  fw1_10k: ['7.8', '6.0'],
  ipc1_10k: ['2.9', '12.2'],
};

const head = [
  ...['set', 'rules', 'M lookups/s', 'fastest', 'MiB', 'compile ms'],
  ...['TupleMerge, C++', 'rte_acl scalar, C'],
];

/** The text between the markers; '' results: no run yet. */
export function renderClassifier(results: string): string {
  const lines: Line[] = resultsOf(results, 'classify');
  const last = lines.at(-1);
  if (last === undefined) return 'No run has been recorded yet.';
  const sets = new Map<string, Map<string, Line>>();
  for (const line of lines) {
    const { set } = line.parameters;
    const figures = sets.get(set) ?? new Map<string, Line>();
    sets.set(set, figures.set(line.name, line));
  }
  const rows = [...sets].sort(bySizeThenName).map(([set, figures]) => row(set, figures));
  const loads = [...sets.values()].map((figures) => figures.get('lookups')?.parameters.load ?? 0);
  const words =
    `${last.date.slice(0, 10)}, commit ${last.commit}, ${last.cpu}, Node ${last.node}; load of the ` +
    `machine, the bench included, up to ${Math.max(...loads).toFixed(1)}.`;
  return `${words}\n\n${markdown(head, rows)}`;
}

function bySizeThenName(
  [a, x]: readonly [string, ReadonlyMap<string, Line>],
  [b, y]: readonly [string, ReadonlyMap<string, Line>],
): number {
  const size = (figures: ReadonlyMap<string, Line>) =>
    Math.round(Math.log10(figures.get('lookups')?.parameters.rules ?? 1));
  return size(x) - size(y) || (a < b ? -1 : 1);
}

function row(set: string, figures: ReadonlyMap<string, Line>): string[] {
  const value = (name: string, unit: number, digits: number) =>
    ((figures.get(name)?.value ?? 0) / unit).toFixed(digits);
  return [
    set,
    String(figures.get('lookups')?.parameters.rules),
    value('lookups', 1e6, 1),
    value('lookups, fastest sample', 1e6, 1),
    value('memory', 1 << 20, 2),
    value('compile', 1, 0),
    ...(others[set] ?? ['', '']),
  ];
}
