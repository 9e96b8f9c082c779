/**
 * The latest run as pictures: for each wire, what each peer reaches of what the kernel's own
 * hair-pin does. The same results make the same bytes.
 */
import * as echarts from 'echarts';
import { figureKinds } from './measure.ts';
import type { Wire } from './peer.ts';
import { type CellFigures, wireTitles, yardstick } from './table.ts';

/** Of these more is better; what is better when less is in the table. */
const shown = [
  'tcp-1-out',
  'tcp-1-in',
  'tcp-4-out',
  'tcp-4-in',
  'udp-64',
  'udp-1400',
  'connections',
] as const;

/** Legible on white and on black. */
const ink = '#7a8594';
const colors = ['#4c8df6', '#e08a2e', '#3fa66b', '#b46bd6', '#d1564f', '#3aa6b9', '#9a8f2f'];
const size = { width: 900, height: 420 } as const;

export type Bar = { readonly ratio: number; readonly low: number; readonly high: number };

/** By peer, a bar for each figure that is `shown`; undefined where nothing was measured. */
export function barsOf(
  cells: readonly CellFigures[],
): ReadonlyMap<string, readonly (Bar | undefined)[]> {
  const against = cells.find(({ peer }) => peer === yardstick)?.figures ?? {};
  return new Map(
    cells
      .filter(({ peer }) => peer !== yardstick)
      .map(({ figures, peer }) => [
        peer,
        shown.map((name) => {
          const [figure, measure] = [figures[name], against[name]];
          if (figure === undefined || measure === undefined) return undefined;
          const ratio = figure.median / measure.median;
          const half = ratio * figure.spread;
          return { ratio, low: Math.max(0, ratio - half), high: ratio + half };
        }),
      ]),
  );
}

/** SVG by name of its file. */
export function plots(results: readonly CellFigures[]): Record<string, string> {
  const wires = (Object.keys(wireTitles) as Wire[]).filter((wire) =>
    results.some((result) => result.wire === wire),
  );
  return Object.fromEntries(
    wires.map((wire) => [
      `bench-${wire}`,
      draw(
        wireTitles[wire],
        results.filter((result) => result.wire === wire),
      ),
    ]),
  );
}

function draw(title: string, cells: readonly CellFigures[]): string {
  const all = barsOf(cells);
  const places = [...shown.keys()].filter((at) => [...all.values()].some((bars) => bars[at]));
  const bars = new Map([...all].map(([peer, row]) => [peer, places.map((at) => row[at])]));
  const chart = echarts.init(null, null, { renderer: 'svg', ssr: true, ...size });
  const text = { color: ink, fontFamily: 'sans-serif' };
  chart.setOption({
    animation: false,
    title: { text: title, subtext: `${yardstick} = 1`, textStyle: { ...text, fontSize: 15 } },
    // Widths of text are guessed without a browser.
    legend: { bottom: 0, itemGap: 40, textStyle: text },
    grid: { left: 44, right: 12, top: 62, bottom: 56 },
    xAxis: {
      type: 'category',
      data: places.map((at) => figureKinds[shown[at]!]?.title ?? ''),
      axisLabel: { ...text, interval: 0, fontSize: 11 },
    },
    yAxis: { type: 'value', axisLabel: text, splitLine: { lineStyle: { color: `${ink}44` } } },
    series: [...bars].flatMap(([name, values], index) => [
      {
        name,
        type: 'bar',
        itemStyle: { color: colors[index % colors.length] },
        data: values.map((bar) => bar?.ratio ?? null),
        ...(index === 0 ? { markLine: oneLine } : {}),
      },
      spreadOf(values, index, bars.size),
    ]),
  });
  const svg = chart.renderToSVGString();
  chart.dispose();
  return `${renumber(svg)}\n`;
}

/** Names are counted through the process's life, which would make the same plot other bytes. */
function renumber(svg: string): string {
  const names = new Map<string, string>();
  return svg.replace(/\bzr\d+-[a-z]+-?\d+/g, (name) => {
    if (!names.has(name)) names.set(name, `zr-${names.size}`);
    return names.get(name)!;
  });
}

/** A line over each bar of the peer at `index` of `count`: half the range, each way. */
function spreadOf(values: readonly (Bar | undefined)[], index: number, count: number) {
  return {
    type: 'custom',
    silent: true,
    z: 10,
    data: values.flatMap((bar, at) => (bar === undefined ? [] : [[at, bar.low, bar.high]])),
    encode: { x: 0, y: [1, 2] },
    renderItem: (
      _: unknown,
      api: {
        value(dimension: number): number;
        coord(point: readonly number[]): readonly number[];
        barLayout(options: { count: number }): readonly { offsetCenter: number }[];
      },
    ) => {
      const [at, low, high] = [api.value(0), api.value(1), api.value(2)];
      const offset = api.barLayout({ count })[index]?.offsetCenter ?? 0;
      const [x = 0, bottom = 0] = api.coord([at, low]);
      const [, top = 0] = api.coord([at, high]);
      const shape = { x1: x + offset, x2: x + offset, y1: bottom, y2: top };
      return { type: 'line', shape, style: { stroke: ink, lineWidth: 1.5 } };
    },
  };
}

const oneLine = {
  silent: true,
  symbol: 'none',
  label: { show: false },
  lineStyle: { color: ink, type: 'solid', width: 1.5 },
  data: [{ yAxis: 1 }],
};
