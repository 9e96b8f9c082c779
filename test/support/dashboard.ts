/** What the alert rules and the dashboard in packaging/ ask for. */
import { readFileSync } from 'node:fs';

const folder = 'packaging/observability';

type Dashboard = { panels: { targets: { expr: string }[] }[] };

/** PromQL, with Grafana's variables filled in. */
export function dashboardQueries(): string[] {
  const { panels } = JSON.parse(readFileSync(`${folder}/dashboard.json`, 'utf8')) as Dashboard;
  return panels.flatMap(({ targets }) =>
    targets.map(({ expr }) =>
      expr.replaceAll('$__rate_interval', '1m').replaceAll('$instance', '.*'),
    ),
  );
}

/** Of all metrics of ours that either asks for. */
export function observedMetrics(): string[] {
  const text = `${readFileSync(`${folder}/alerts.yaml`, 'utf8')}${dashboardQueries().join('\n')}`;
  return [...new Set(text.match(/microperimeter_[a-z_]+/g))].sort();
}
