/** What the bench makes of numbers and of other programs' output. */
import { readFileSync } from 'node:fs';
import t from 'tap';
import { renderClassifier } from '../../bench/classifier-figures.ts';
import { documents, insertFigures, renderFigures } from '../../bench/figures.ts';
import {
  parseIdleTicks,
  parseIperf,
  parseLinkBytes,
  parseProcessTicks,
  parseResident,
  parseSockperf,
} from '../../bench/parse.ts';
import { selfTimes } from '../../bench/profile-report.ts';
import { readResults } from '../../bench/results.ts';
import { highestPassing, median, spread } from '../../bench/statistics.ts';
import { tables } from '../../bench/table.ts';

t.test('median and spread', async (t) => {
  const rows: [name: string, values: number[], median: number, spread: number][] = [
    ['one value', [7], 7, 0],
    ['an odd count, unsorted', [9, 1, 5], 5, 0.8],
    ['an even count: between the middle two', [4, 1, 3, 2], 2.5, 0.6],
    ['digits are compared as numbers', [100, 9, 20], 20, 91 / 40],
    ['zeros have no spread', [0, 0], 0, 0],
  ];
  for (const [name, values, middle, range] of rows) {
    t.equal(median(values), middle, name);
    t.equal(spread(values), range, `${name}: spread`);
  }
  t.throws(() => median([]), RangeError);
});

t.test('the search ends just below the limit, wherever it starts', async (t) => {
  const search = { lowest: 10, highest: 10_000, precision: 1.05 };
  for (const limit of [10, 11, 500, 6000, 9_999]) {
    for (const start of [1, 10, 499, 501, 1e6]) {
      let trials = 0;
      const found = await highestPassing({ ...search, start }, async (value) => {
        trials++;
        return value <= limit;
      });
      t.ok(found <= limit && found * 1.05 >= limit, `${limit} from ${start}: ${found}`);
      t.ok(trials <= 20, `${trials} trials`);
    }
  }
  t.equal(await highestPassing({ ...search, start: 100 }, async () => false), 0);
  t.equal(await highestPassing({ ...search, start: 100 }, async () => true), 10_000);
});

t.test('what measuring programs print', async (t) => {
  const iperf = {
    end: { sum_received: { bytes: 1_000_000, bits_per_second: 8e6 }, sum_sent: { bytes: 2 } },
  };
  t.same(parseIperf(JSON.stringify(iperf)), { bytes: 1_000_000, bitsPerSecond: 8e6 });
  t.throws(() => parseIperf('{"error":"unable to connect"}'), /iperf3: unable to connect/);
  t.throws(() => parseIperf('{"end":{}}'), /no received bytes/);
  const sockperf = [
    'sockperf: [Total Run] RunTime=1.005 sec; SentMessages=51901; ReceivedMessages=51900',
    'sockperf: [Valid Duration] RunTime=0.549 sec; SentMessages=28297; ReceivedMessages=28297',
    'sockperf: ---> percentile 99.999 = 5362.872',
    'sockperf: ---> percentile 99.000 =   19.088',
    'sockperf: ---> percentile 50.000 =    9.393',
  ].join('\n');
  t.same(parseSockperf(sockperf), { answered: 28_297, p50: 9.393, p99: 19.088 });
  t.throws(() => parseSockperf('sockperf: nothing'), /no received messages/);
});

t.test('what /proc prints', async (t) => {
  t.equal(parseIdleTicks('cpu  1 2 3 400 50 6 7 8 0 0\ncpu0 1 1 1 1 1 1 1 1\n'), 458);
  t.throws(() => parseIdleTicks('intr 1\n'), /no line "cpu"/);
  const before = 'S 1 1 1 0 -1 0 0 0 0 0';
  t.equal(parseProcessTicks(`42 (a (strange) name) ${before} 30 12 0 0`), 42);
  t.throws(() => parseProcessTicks('42 (short) S 1'), /too short/);
  t.equal(parseResident('Name:\tnode\nVmRSS:\t    1024 kB\n'), 1 << 20);
  t.throws(() => parseResident('Name:\tnode\n'), /no VmRSS/);
  const links = '    lo:  1 0 0 0 0 0 0 0  2 0\n  eth0: 100 1 0 0 0 0 0 0 200 2 0 0 0 0 0 0\n';
  t.same(parseLinkBytes(links, 'eth0'), { received: 100, sent: 200 });
  t.throws(() => parseLinkBytes(links, 'eth1'), /no interface eth1/);
});

t.test('a profile becomes shares of the time that was not idle', async (t) => {
  const frame = (functionName: string, url: string) => ({ functionName, url, lineNumber: 9 });
  const profile = {
    nodes: [
      { id: 1, callFrame: frame('(idle)', '') },
      { id: 2, callFrame: frame('breathe', 'file:///x/dist/engine/loop.js') },
      { id: 3, callFrame: frame('', 'file:///x/dist/engine/loop.js') },
    ],
    samples: [1, 2, 2, 3],
    timeDeltas: [500, 60, 20, 20],
  };
  t.same(selfTimes(profile), [
    { name: 'breathe engine/loop.js:10', share: 0.8 },
    { name: '(anonymous) engine/loop.js:10', share: 0.2 },
  ]);
});

const figure = (middle: number) => ({ median: middle, spread: 0.03, repeats: 5 });

t.test('tables compare with the kernel on the same wire', async (t) => {
  const cells = [
    { peer: 'kernel vxlan', wire: 'mtu', figures: { 'tcp-1-out': figure(2) } },
    { peer: 'agent vxlan', wire: 'mtu', figures: { 'tcp-1-out': figure(1.5) } },
    { peer: 'direct', wire: 'whole', figures: { connections: figure(12_345) } },
  ] as const;
  t.same(tables(cells), [
    { wire: 'whole', head: ['', 'direct'], rows: [['connections, 1/s', '12,345 ±3 %']] },
    {
      wire: 'mtu',
      head: ['', 'kernel vxlan', 'agent vxlan'],
      rows: [['TCP 1 flow out, Gbit/s', '2.00 ±3 %', '1.50 ±3 % (0.75)']],
    },
  ]);
});

t.test('the document shows the latest recorded run', async (t) => {
  const line = (run: string, value: number) =>
    JSON.stringify({
      ...{ bench: 'paths', name: 'tcp-1-out', value, unit: 'Gbit/s', commit: 'abc', node: 'v20' },
      ...{ kernel: '6.1', cpu: 'a CPU', date: run },
      parameters: {
        ...{ run, peer: 'direct', wire: 'mtu', repeats: 5, spread: 0.02, seconds: 2, others: 0 },
      },
    });
  const other = JSON.stringify({ bench: 'classify', name: 'lookups', value: 1, parameters: {} });
  const results = `${line('2026-01-01T00', 1)}\n${line('2026-02-02T00', 4)}\n${other}\n`;
  const figures = renderFigures(results);
  t.match(figures, 'Run of 2026-02-02, commit abc, a CPU, Linux 6.1, Node v20; 5 repeats of 2 s');
  t.match(figures, '| TCP 1 flow out, Gbit/s | 4.00 ±2 % |');
  t.notMatch(figures, '1.00');
  t.throws(() => insertFigures('no markers', figures), /has no place for figures/);
  for (const [file, render] of Object.entries(documents)) {
    const document = readFileSync(file, 'utf8');
    t.equal(
      insertFigures(document, render(readResults())),
      document,
      `${file} agrees with the results; else run node dist/bench/figures.js`,
    );
  }
});

t.test('of the classifier, what was recorded last of each set', async (t) => {
  const line = (set: string, name: string, value: number) =>
    JSON.stringify({
      ...{ bench: 'classify', name, value, commit: 'abc', node: 'v20', cpu: 'a CPU' },
      ...{ date: '2026-02-02T00', parameters: { set, rules: 950, load: 0.25 } },
    });
  const results = [
    line('fw1_1k', 'lookups', 10e6),
    line('fw1_1k', 'lookups', 20.04e6),
    line('acl9', 'lookups', 5e6),
    line('fw1_1k', 'memory', 1 << 19),
    line('fw1_1k', 'compile', 7.4),
  ].join('\n');
  const text = renderClassifier(`${results}\n`);
  t.match(text, '2026-02-02, commit abc, a CPU, Node v20; load of the machine');
  t.match(text, '| fw1_1k | 950 | 20.0 | 0.0 | 0.50 | 7 |  | 32.1 |');
  t.ok(text.indexOf('| acl9') < text.indexOf('| fw1_1k'), 'of one size, by name');
  t.notMatch(text, '10.0');
  t.equal(renderClassifier(''), 'No run has been recorded yet.');
});
