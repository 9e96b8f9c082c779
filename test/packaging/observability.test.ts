/** Alert rules and the dashboard, as Prometheus reads them; names: test/net/metrics.test.ts. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { parse, stringify } from 'yaml';
import { dashboardQueries } from '../support/dashboard.ts';

const folder = 'packaging/observability';
const directory = mkdtempSync(join(tmpdir(), 'mp-observability-'));
t.teardown(() => rmSync(directory, { recursive: true }));

/** Empty when it finds nothing, or is not installed where it need not be. */
function promtool(...args: string[]): string {
  const { error, status, stderr, stdout } = spawnSync('promtool', args, { encoding: 'utf8' });
  if (error !== undefined && process.env.CI === undefined) return '';
  return status === 0 ? '' : `${error?.message ?? ''}${stdout}${stderr}`;
}

type Rules = { groups: { rules: { alert: string; annotations: { action: string } }[] }[] };

t.test('each alert fires when it should, and not when all is well', async (t) => {
  t.equal(promtool('check', 'rules', `${folder}/alerts.yaml`), '');
  t.equal(promtool('test', 'rules', `${folder}/alerts.test.yaml`), '');
  const { groups } = parse(readFileSync(`${folder}/alerts.yaml`, 'utf8')) as Rules;
  const tested = readFileSync(`${folder}/alerts.test.yaml`, 'utf8');
  const page = readFileSync('docs/observability.md', 'utf8');
  for (const { alert, annotations } of groups.flatMap(({ rules }) => rules)) {
    t.match(tested, `name: ${alert}\n`, 'it has a case');
    t.match(page, `\`${alert}\``, 'and a line in the document');
    t.ok(annotations.action.length > 20, 'and says what to do');
  }
});

t.test('every query of the dashboard is one', async (t) => {
  const queries = dashboardQueries();
  t.ok(queries.length > 12);
  const file = join(directory, 'queries.yaml');
  const rules = queries.map((expr, index) => ({ record: `query:${index}`, expr }));
  writeFileSync(file, stringify({ groups: [{ name: 'dashboard', rules }] }));
  t.equal(promtool('check', 'rules', file), '');
});
