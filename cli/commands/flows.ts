/** `microperimeter flows`: the flow table of the running agent, filtered and sorted. */

import { request } from '../../control/client.ts';
import type { FlowRow } from '../../control/flows.ts';
import { ExitCode } from '../exit-codes.ts';
import { formatBytes, formatTable } from '../table.ts';
import { UsageError } from '../usage-error.ts';

export type FlowsOptions = {
  readonly socket: string;
  readonly json: boolean;
  readonly watch: boolean;
  readonly sort: string;
  readonly limit: string;
  readonly protocol?: string;
  readonly address?: string;
  readonly port?: string;
  readonly verdict?: string;
};

const watchMs = 1000;
const clear = '\u001b[2J\u001b[H';

/** With `watch`, until it is interrupted. */
export async function flows(options: FlowsOptions): Promise<number> {
  const query = new URLSearchParams({ sort: options.sort, limit: options.limit });
  for (const name of ['protocol', 'address', 'port', 'verdict'] as const) {
    const value = options[name];
    if (value !== undefined) query.set(name, value);
  }
  for (;;) {
    const answer = await request(options.socket, 'GET', `/flows?${query}`);
    const body = answer.body as { error?: string; matching: number; flows: FlowRow[] };
    if (answer.status === 400) throw new UsageError(body.error ?? 'the agent refused the question');
    if (answer.status !== 200) throw new Error(`the agent answered with status ${answer.status}`);
    const text = options.json ? `${JSON.stringify(body, null, 2)}\n` : draw(body);
    process.stdout.write(options.watch ? `${clear}${text}` : text);
    if (!options.watch) return ExitCode.Ok;
    await new Promise((resolve) => setTimeout(resolve, watchMs));
  }
}

function draw({ flows: rows, matching }: { matching: number; flows: FlowRow[] }): string {
  const head = [
    'proto',
    'local',
    '',
    'remote',
    'verdict',
    'rule',
    'firewall',
    'state',
    'by',
    'out',
    'in',
    'idle',
  ];
  const table = rows.map((flow) => [
    flow.protocol,
    `${flow.local}:${flow.localPort}`,
    flow.opener === 'egress' ? '->' : '<-',
    `${flow.remote}:${flow.remotePort}`,
    flow.verdict,
    flow.rule,
    flow.firewall,
    flow.state,
    flow.by,
    formatBytes(flow.egress.bytes),
    formatBytes(flow.ingress.bytes),
    `${(flow.idleMs / 1000).toFixed(1)} s`,
  ]);
  const more = matching > rows.length ? `, ${rows.length} shown` : '';
  return `${formatTable(head, table)}${matching} flows${more}\n`;
}
