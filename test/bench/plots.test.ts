/** The plots say what was recorded, and are the same for the same results. */
import { readFileSync } from 'node:fs';
import t from 'tap';
import { latestCells } from '../../bench/figures.ts';
import { barsOf, plots } from '../../bench/plots.ts';
import { readResults } from '../../bench/results.ts';
import type { CellFigures } from '../../bench/table.ts';

const figure = (median: number, spread = 0) => ({ median, spread, repeats: 3 });
const cells: CellFigures[] = [
  { peer: 'kernel vxlan', wire: 'mtu', figures: { 'tcp-1-out': figure(2), 'udp-64': figure(50) } },
  { peer: 'agent <geneve>', wire: 'mtu', figures: { 'tcp-1-out': figure(3, 0.1) } },
];

t.test('bars are ratios to the kernel, with their spread', async (t) => {
  const [first, ...others] = barsOf(cells).get('agent <geneve>')!;
  t.match(first, { ratio: 1.5 });
  t.ok(Math.abs(first!.low - 1.35) < 1e-9 && Math.abs(first!.high - 1.65) < 1e-9);
  t.ok(
    others.every((bar) => bar === undefined),
    'what was not measured has none',
  );
  t.notOk(barsOf(cells).has('kernel vxlan'));
});

t.test('a picture for each wire, without scripts, and always the same', async (t) => {
  const drawn = plots(cells);
  t.same(Object.keys(drawn), ['bench-mtu']);
  const svg = drawn['bench-mtu']!;
  t.equal(plots(cells)['bench-mtu'], svg);
  t.match(svg, /^<svg [^>]*xmlns="http:\/\/www\.w3\.org\/2000\/svg"/);
  t.notMatch(svg, /<script|onload|href=/);
  t.match(svg, 'agent &lt;geneve&gt;');
});

t.test('the documents have those of the latest run', async (t) => {
  for (const [name, svg] of Object.entries(plots(latestCells(readResults())))) {
    t.equal(readFileSync(`docs/images/${name}.svg`, 'utf8'), svg, name);
    t.match(readFileSync('docs/performance.md', 'utf8'), `images/${name}.svg`);
  }
});
