/**
 * The picture of `top`, as components of ink. It is made for the terminal's size, from 80 columns
 * by 24 lines; what there is no room for is left out, never wrapped.
 */
import { Box, Text } from 'ink';
import { createElement as h, type ReactElement } from 'react';
import type { AgentStatus } from '../../control/status.ts';
import { cut, formatAge, formatCount } from '../screen/format.ts';
import { formatBytes } from '../table.ts';
import { drawGraph } from './graph.ts';
import type { Series, SortKey, TopFlow, TopModel } from './model.ts';

export type TopSettings = {
  readonly sort: SortKey;
  readonly filter: string;
  /** The filter is being typed. */
  readonly typing: boolean;
  readonly paused: boolean;
  readonly help: boolean;
  readonly host: string;
  /** What went wrong with the last reading, or ''. */
  readonly problem: string;
};

export type Size = { readonly columns: number; readonly rows: number };

type Part = readonly [text: string, style?: { color?: string; dimColor?: boolean; bold?: boolean }];

/** One line of the terminal, cut at its end. */
function line(...parts: readonly Part[]): ReactElement {
  const spans = parts.map(([text, style], index) => h(Text, { key: index, ...style }, text));
  return h(Text, { wrap: 'truncate-end' }, ...spans);
}

const blank = line([' ']);

export function TopView(props: {
  readonly model: TopModel;
  readonly settings: TopSettings;
  readonly size: Size;
}): ReactElement {
  const { model, settings, size } = props;
  const { columns, rows } = size;
  const { status } = model;
  // A picture as high as the terminal would make it scroll.
  const height = rows - 1;
  if (status === undefined) {
    const words = settings.problem === '' ? 'asking the agent…' : settings.problem;
    return h(Box, { height, flexDirection: 'column' }, line([words]), blank, footer(settings));
  }
  const graphHeight = rows >= 40 ? 3 : rows >= 30 ? 2 : 1;
  const bottomHeight = Math.max(4, Math.min(12, Math.floor(rows / 4)));
  const tableHeight = height - 2 - 4 * graphHeight - 2 - 1 - bottomHeight - 1;
  const table = settings.help ? help(tableHeight) : flows(model, settings, columns, tableHeight);
  return h(
    Box,
    { height, width: columns, flexDirection: 'column', overflow: 'hidden' },
    header(status, settings),
    where(status, settings),
    ...model.series().flatMap((one) => graph(one, scaleOf(model.series()), columns, graphHeight)),
    ...table,
    bottom(model, columns, bottomHeight),
    footer(settings),
  );
}

const stateColors: Readonly<Record<string, string>> = { redirecting: 'green', closed: 'red' };

function header({ state, since, gate }: AgentStatus, settings: TopSettings): ReactElement {
  const age = formatAge(Date.now() - Date.parse(since));
  const lease = gate.open
    ? `gate open, lease ${(gate.leaseMs / 1000).toFixed(1)} s`
    : `gate closed: ${gate.sentence}`;
  return line(
    ['microperimeter', { bold: true }],
    [`  ${settings.host}  `],
    [state.toUpperCase(), { bold: true, color: stateColors[state] ?? 'yellow' }],
    [` for ${age}  `],
    [lease, gate.open ? {} : { color: 'yellow' }],
    [settings.paused ? '  PAUSED' : '', { bold: true, color: 'yellow' }],
  );
}

function where(status: AgentStatus, { problem }: TopSettings): ReactElement {
  if (problem !== '') return line([problem, { color: 'red' }]);
  const links = status.interfaces.map(({ name, redirected }) => (redirected ? name : `${name}!`));
  const firewalls = status.firewalls
    .map(({ active, address, name }) => `${active ? '*' : ''}${name} ${address}`)
    .join('  ');
  const { capacity, count } = status.flows;
  const table = `flows ${formatCount(count)}/${formatCount(capacity)}`;
  return line([`${links.join(' ')}  ${firewalls}  ${table}  inner MTU ${status.innerMtu}`]);
}

const seriesColors = {
  redirected: 'green',
  returned: 'cyan',
  passed: 'blue',
  dropped: 'red',
} as const;

/** One scale for what goes and what returns, so that a gap between them is seen. */
function scaleOf(all: readonly Series[]): (series: Series) => number {
  const most = (series: Series | undefined) => Math.max(0, ...(series?.history ?? []));
  const tunnel = Math.max(most(all[0]), most(all[1]));
  return (series) =>
    series.name === 'redirected' || series.name === 'returned' ? tunnel : most(series);
}

const graphLabelWidth = 40;

function graph(
  series: Series,
  scale: (series: Series) => number,
  columns: number,
  height: number,
): ReactElement[] {
  const bars = drawGraph(series.history, columns - graphLabelWidth - 1, height, scale(series));
  const rate = `${formatRate(series.bitsPerSecond)}bit/s`.padStart(13);
  const packets = `${formatRate(series.packetsPerSecond)}pkt/s`.padStart(13);
  const label = `${series.name.padEnd(10)} ${rate} ${packets} `;
  const color = seriesColors[series.name];
  return bars.map((bar, index) => {
    const words = index === height - 1 ? label : '';
    return line([words.padEnd(graphLabelWidth)], [bar, { color }]);
  });
}

/** `4.81 G`, for a unit to follow. */
function formatRate(value: number): string {
  const prefixes = ['', 'k', 'M', 'G', 'T'];
  let index = 0;
  while (value >= 999.5 && index < prefixes.length - 1) {
    value /= 1000;
    index++;
  }
  const digits = index === 0 || value >= 99.95 ? 0 : value >= 9.995 ? 1 : 2;
  return `${value.toFixed(digits)} ${prefixes[index]}`;
}

type Column = {
  readonly title: string;
  readonly width: number;
  /** 0: always shown; the others in this order, as far as there is room. */
  readonly rank: number;
  readonly right?: boolean;
  readonly text: (flow: TopFlow) => string;
};

const flowColumns: readonly Column[] = [
  { title: 'proto', width: 5, rank: 0, text: (flow) => flow.protocol },
  { title: 'local', width: 21, rank: 0, text: (flow) => `${flow.local}:${flow.localPort}` },
  { title: '', width: 2, rank: 0, text: (flow) => (flow.opener === 'egress' ? '->' : '<-') },
  { title: 'remote', width: 21, rank: 0, text: (flow) => `${flow.remote}:${flow.remotePort}` },
  { title: 'verdict', width: 8, rank: 0, text: (flow) => flow.verdict },
  { title: 'by', width: 6, rank: 1, text: (flow) => flow.by },
  { title: 'rule', width: 24, rank: 3, text: (flow) => flow.rule },
  { title: 'state', width: 11, rank: 5, text: (flow) => flow.state },
  { title: 'interface', width: 15, rank: 8, text: (flow) => flow.interface },
  { title: 'age', width: 12, rank: 4, right: true, text: (flow) => formatAge(flow.ageMs) },
  {
    title: 'out',
    width: 10,
    rank: 6,
    right: true,
    text: (flow) => formatBytes(flow.egress.bytes),
  },
  {
    title: 'in',
    width: 10,
    rank: 7,
    right: true,
    text: (flow) => formatBytes(flow.ingress.bytes),
  },
  {
    title: 'rate',
    width: 13,
    rank: 0,
    right: true,
    text: (flow) => `${formatRate(flow.bitsPerSecond)}bit/s`,
  },
];

/** Where alerts are followed. A narrow terminal has the colour alone. */
const alertColumn: Column = {
  title: 'alert',
  width: 30,
  rank: 2,
  text: ({ alert }) => (alert === undefined ? '' : alert.signature),
};

/** Those that fit into the terminal side by side, in their order. */
function fitting(known: readonly Column[], columns: number): Column[] {
  let room = columns + 1;
  const chosen = new Set<Column>();
  for (const column of known.toSorted((a, b) => a.rank - b.rank)) {
    room -= column.width + 1;
    if (room < 0 && column.rank > 0) break;
    chosen.add(column);
  }
  return known.filter((column) => chosen.has(column));
}

function flows(
  model: TopModel,
  settings: TopSettings,
  columns: number,
  height: number,
): ReactElement[] {
  const shown = fitting(model.hasAlerts ? [...flowColumns, alertColumn] : flowColumns, columns);
  const row = (text: (column: Column) => string) =>
    shown
      .map((column) => {
        const cell = cut(text(column), column.width);
        return column.right ? cell.padStart(column.width) : cell.padEnd(column.width);
      })
      .join(' ');
  const all = model.flows(settings.sort, settings.filter);
  const filter = settings.filter === '' ? '' : `, with "${settings.filter}"`;
  const title = ` flows by ${settings.sort}${filter}: ${formatCount(all.length)} `;
  const lines = [rule(title, columns), line([row(({ title }) => title), { dimColor: true }])];
  for (const flow of all.slice(0, height)) {
    const isBad = flow.verdict === 'drop' || flow.alert?.isBlocked === true;
    const style = isBad ? { color: 'red' } : flow.alert === undefined ? {} : { color: 'yellow' };
    lines.push(line([row((column) => column.text(flow)), style]));
  }
  while (lines.length < height + 2) lines.push(blank);
  return lines;
}

/** A title in a line across the terminal. */
function rule(title: string, width: number): ReactElement {
  return line([`──${title}`.padEnd(width, '─'), { dimColor: true }]);
}

function bottom(model: TopModel, columns: number, height: number): ReactElement {
  const left = Math.floor((columns - 1) / 2);
  const right = columns - 1 - left;
  const rules = model.rules().slice(0, height);
  const drops = model.drops().slice(0, height);
  const rows = Array.from({ length: height }, (_, index) =>
    h(
      Box,
      { key: index },
      h(Box, { width: left + 1 }, ruleLine(rules[index], left)),
      h(Box, { width: right }, dropLine(drops[index], index, right)),
    ),
  );
  const titles = h(
    Box,
    { key: 'titles' },
    h(Box, { width: left + 1 }, rule(' rules by connections ', left)),
    h(Box, { width: right }, rule(' dropped ', right)),
  );
  return h(Box, { flexDirection: 'column' }, titles, ...rows);
}

function ruleLine(row: ReturnType<TopModel['rules']>[number] | undefined, width: number) {
  if (row === undefined) return blank;
  const name = cut(row.name, Math.max(8, width - 32)).padEnd(Math.max(8, width - 32));
  const rate = `${formatRate(row.perSecond)}/s`.padStart(9);
  const text = `${name} ${row.action.padEnd(8)} ${formatCount(row.hits).padStart(11)} ${rate}`;
  return line([text, row.never === '' ? {} : { color: 'yellow' }]);
}

function dropLine(
  row: ReturnType<TopModel['drops']>[number] | undefined,
  index: number,
  width: number,
) {
  if (row === undefined) return index === 0 ? line(['nothing', { dimColor: true }]) : blank;
  const count = formatCount(row.packets).padStart(11);
  return line([`${count} ${cut(row.words, width - 12)}`]);
}

const helpLines = [
  's      sort flows by rate, bytes, packets, age or alerts',
  '/      filter flows: any part of an address, port, protocol, verdict or rule',
  'Esc    no filter',
  'p      pause and go on',
  'h      this help',
  'q      quit',
];

function help(height: number): ReactElement[] {
  const lines = [rule(' keys ', 40), ...helpLines.map((text) => line([`  ${text}`]))];
  while (lines.length < height + 2) lines.push(blank);
  return lines.slice(0, height + 2);
}

function footer({ filter, paused, typing }: TopSettings): ReactElement {
  if (typing) return line(['filter: ', { bold: true }], [`${filter}█`]);
  const keys = [
    ['s', 'ort'],
    ['/', 'filter'],
    ['p', paused ? ' go on' : 'ause'],
    ['h', 'elp'],
    ['q', 'uit'],
  ];
  return line(
    ...keys.flatMap(([key = '', rest = '']): Part[] => [
      [key, { bold: true, color: 'cyan' }],
      [`${rest}   `],
    ]),
  );
}
