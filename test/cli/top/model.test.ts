/** What `top` makes of two readings, and its picture at two sizes of a terminal. */
import { EventEmitter } from 'node:events';
import { readFileSync } from 'node:fs';
import { stripVTControlCharacters } from 'node:util';
import { render } from 'ink';
import { createElement } from 'react';
import t, { type Test } from 'tap';
import { drawGraph } from '../../../cli/top/graph.ts';
import { type Reading, TopModel } from '../../../cli/top/model.ts';
import { TopView } from '../../../cli/top/view.ts';
import type { FlowRow } from '../../../control/flows.ts';
import type { AgentStatus } from '../../../control/status.ts';

const status = JSON.parse(readFileSync('test/golden/screen/status.json', 'utf8')) as AgentStatus;

function flow(localPort: number, bytes: number, more: Partial<FlowRow> = {}): FlowRow {
  return {
    by: 'agent',
    protocol: 'tcp',
    local: '10.1.0.10',
    localPort,
    remote: '10.2.0.20',
    remotePort: 443,
    opener: 'egress',
    interface: 'eth0',
    verdict: 'redirect',
    firewall: 'fw-a',
    rule: 'web-out',
    state: 'open',
    ageMs: 60_000,
    idleMs: 0,
    egress: { packets: 1, bytes },
    ingress: { packets: 1, bytes: 0 },
    ...more,
  };
}

function later(bytes: number): AgentStatus {
  const redirected = status.counters.redirected!;
  const next = {
    ...redirected,
    packets: redirected.packets + 100,
    bytes: redirected.bytes + bytes,
  };
  const rules = status.rules.map((rule) => ({ ...rule, hits: rule.hits + 4 }));
  return { ...status, rules, counters: { ...status.counters, redirected: next } };
}

function filled(alertOf?: Reading['alertOf']): TopModel {
  const model = new TopModel();
  const flows = [flow(1, 1000), flow(2, 500_000), flow(3, 7)];
  model.take({ nowMs: 0, status, flows, matching: 3 });
  const next = [flow(1, 251_000), flow(2, 500_000), flow(4, 1000, { ageMs: 500, rule: 'default' })];
  model.take({ nowMs: 2000, status: later(250_000), flows: next, matching: 3, alertOf });
  return model;
}

t.test("the tunnel's own packets are not what passed", async (t) => {
  const model = new TopModel();
  const more = (name: string) => {
    const { bytes, packets } = status.kernel[name]!;
    return { ...status.kernel, [name]: { packets: packets + 10, bytes: bytes + 1000 } };
  };
  const take = (nowMs: number, kernel: AgentStatus['kernel']) =>
    model.take({ nowMs, status: { ...status, kernel }, flows: [], matching: 0 });
  const passed = () => model.series().find(({ name }) => name === 'passed')!.packetsPerSecond;
  take(0, status.kernel);
  take(1000, more('excluded'));
  t.equal(passed(), 0);
  take(2000, status.kernel);
  take(3000, more('passedVerdict'));
  t.equal(passed(), 10);
});

t.test('rates are differences over time', async (t) => {
  const model = filled();
  const [redirected, returned] = model.series();
  t.match(redirected, { bitsPerSecond: 1_000_000, packetsPerSecond: 50, history: [1_000_000] });
  t.match(returned, { bitsPerSecond: 0 });
  const rows = model.flows('rate', '').map((row) => [row.localPort, row.bitsPerSecond]);
  t.same(rows, [
    [1, 1_000_000],
    [4, 4000],
    [2, 0],
  ]);
  t.equal(model.flows('bytes', '')[0]!.localPort, 2);
  t.same(
    model.flows('rate', 'DEFAULT').map((row) => row.localPort),
    [4],
  );
  t.match(model.rules()[0], { name: 'web-out', perSecond: 2 });
  t.match(model.drops(), [{ packets: 12 }, { packets: 3 }]);
});

t.test('an agent that was started again begins anew, without a rate below zero', async (t) => {
  const model = filled();
  const again = { ...status, startedAt: '2026-11-25T09:00:00.000Z', counters: {} };
  model.take({ nowMs: 3000, status: again, flows: [], matching: 0 });
  model.take({ nowMs: 4000, status: again, flows: [], matching: 0 });
  t.match(model.series()[0], { bitsPerSecond: 0 });
});

t.test('graphs', async (t) => {
  t.same(drawGraph([0, 4, 8], 5, 1, 8), ['   ▄█'.padStart(5)]);
  t.same(drawGraph([8, 16, 1], 3, 2, 16), [' █ ', '██▁']);
  t.same(drawGraph([], 3, 1, 0), ['   ']);
});

/** The last picture that ink made, as lines. */
function picture(t: Test, columns: number, rows: number, help = false, model = filled()): string[] {
  let text = '';
  const stdout = Object.assign(new EventEmitter(), {
    columns,
    rows,
    write: (frame: string) => {
      text = frame;
    },
  });
  const settings = {
    sort: 'rate',
    filter: '',
    typing: false,
    paused: false,
    help,
    host: 'host-a',
    problem: '',
  } as const;
  const view = createElement(TopView, { model, settings, size: { columns, rows } });
  const app = render(view, { stdout: stdout as unknown as NodeJS.WriteStream, debug: true });
  t.teardown(() => app.unmount());
  return stripVTControlCharacters(text).split('\n');
}

t.test('alerts stand beside the flows that they are about', async (t) => {
  const model = filled(({ localPort }) =>
    localPort === 2 ? { signature: 'HTTP path /secret', isBlocked: true } : undefined,
  );
  t.equal(model.flows('alerts', '')[0]!.localPort, 2);
  t.same(
    model.flows('rate', '/SECRET').map((row) => row.localPort),
    [2],
  );
  const wide = picture(t, 130, 30, false, model).join('\n');
  t.match(wide, / by .* alert/);
  t.match(wide, /:2 +-> .* agent .* HTTP path \/secret/);
  t.notMatch(picture(t, 130, 30).join('\n'), 'alert');
});

t.test('the picture fills the terminal and never more', async (t) => {
  for (const [columns, rows] of [
    [80, 24],
    [200, 50],
    [100, 30],
  ] as const) {
    const lines = picture(t, columns, rows);
    const size = `${columns}x${rows}`;
    t.equal(lines.length, rows - 1, size);
    for (const line of lines) t.ok(line.length <= columns, `${size}: ${line}`);
    const text = lines.join('\n');
    t.match(text, /^microperimeter {2}host-a {2}REDIRECTING for /);
    t.match(text, /\nredirected +1\.00 Mbit\/s +50 pkt\/s .*█/);
    t.match(text, /\ntcp +10\.1\.0\.10:1 +-> 10\.2\.0\.20:443 +redirect .* 1\.00 Mbit\/s/);
    t.match(text, /web-out +redirect +88,235 +2 \/s/);
    t.match(text, /12 larger than the tunnel/);
    t.match(lines.at(-1), /^sort {3}\/filter {3}pause {3}help {3}quit/);
  }
  t.match(picture(t, 80, 24, true).join('\n'), /keys[\s\S]*s +sort flows by/);
});
