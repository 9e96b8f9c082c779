/** The flow log: from the flow table through the ring to lines in a file. */
import { readFileSync, truncateSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { parseConfig } from '../../cli/config/parse.ts';
import { FlowLog } from '../../cli/flow-log.ts';
import { builtInsOf } from '../../cli/host-policy.ts';
import { noLinks } from '../../cli/links.ts';
import { buildPolicy } from '../../cli/policy.ts';
import { builtInRule, isLogged } from '../../engine/classifier/lookup.ts';
import { noRule } from '../../engine/classifier/rules.ts';
import { flowColumnsByteLength } from '../../engine/flow-columns.ts';
import { FlowEnd, flowLogByteLength } from '../../engine/flow-log.ts';
import { Flows, OnFailure, Verdict } from '../../engine/flows.ts';
import { address, TCP } from '../support/packets.ts';
import { file } from './config-file.ts';

const local = address('10.1.0.10');
const remote = address('10.2.0.20');

type Line = Record<string, unknown>;

function open(t: Test, records: number) {
  const file = join(t.testdir({}), 'flows.ndjson');
  const ring = new SharedArrayBuffer(flowLogByteLength(records));
  const failures: string[] = [];
  const log = new FlowLog({
    file,
    rings: [ring],
    names: {
      interfaces: ['eth0'],
      firewall: (firewall) => `fw-${firewall + 1}`,
      rule: (rule, generation) => `${rule} of ${generation}`,
    },
    failed: (message) => failures.push(message),
  });
  const flows = new Flows(64, new SharedArrayBuffer(flowColumnsByteLength(64)), ring);
  return {
    log,
    flows,
    file,
    failures,
    begin(port: number, verdict: Verdict = Verdict.Redirect, nowTick = 100): number {
      flows.find(local, remote, port, 443, 6);
      const flow = flows.insert(0, 0, verdict, nowTick);
      flows.describe(flow, 3, 1, OnFailure.Inherit, 1, 0);
      flows.writeStart(flow);
      return flow;
    },
    lines(): Line[] {
      const text = readFileSync(file, 'utf8');
      return text
        .split('\n')
        .filter((line) => line !== '')
        .map((line) => JSON.parse(line) as Line);
    },
  };
}

t.test('a beginning and an end, with what lies between', async (t) => {
  const { begin, flows, lines, log } = open(t, 64);
  const flow = begin(40000);
  flows.account(flow, 0, 12, 1840);
  flows.account(flow, 1, 10, 9210);
  flows.touch(flow, TCP.FIN, 110);
  flows.find(remote, local, 443, 40000, 6);
  flows.touch(flow, TCP.FIN, 112);
  flows.sweep(1000, 64);
  begin(40001, Verdict.Pass);
  log.close();
  const [start, end, pass] = lines();
  const names = {
    protocol: 'tcp',
    local: '10.1.0.10',
    localPort: 40000,
    remote: '10.2.0.20',
    remotePort: 443,
    opener: 'egress',
    interface: 'eth0',
    verdict: 'redirect',
    rule: '3 of 1',
    firewall: 'fw-1',
  };
  t.same({ ...start, time: '' }, { time: '', event: 'start', ...names });
  t.same(
    { ...end, time: '' },
    {
      time: '',
      event: 'end',
      ...names,
      ended: 'fin',
      durationMs: 1200,
      egress: { packets: 12, bytes: 1840 },
      ingress: { packets: 10, bytes: 9210 },
    },
  );
  t.equal(Date.parse(String(end!.time)) - Date.parse(String(start!.time)), 1200);
  t.match(pass, { verdict: 'pass', event: 'start' });
  t.notOk('firewall' in pass!);
});

t.test('how flows end', async (t) => {
  const { begin, flows, lines, log } = open(t, 256);
  flows.touch(begin(1), TCP.RST, 100);
  flows.restart(0, 0, Verdict.Redirect, 101);
  flows.restart(0, 0, Verdict.Redirect, 102);
  flows.sweep(1000, 64);
  for (let port = 10; port < 75; port++) begin(port, Verdict.Redirect, 1000);
  flows.remove(flows.find(local, remote, 74, 443, 6), FlowEnd.Idle);
  flows.writeStop();
  log.close();
  const ends = lines().filter(({ event }) => event === 'end');
  t.same(
    ends.map(({ ended }) => ended),
    ['rst', 'replaced', 'idle', 'evicted', 'idle', ...Array(63).fill('stop')],
  );
});

t.test('what finds no room is lost and told', async (t) => {
  const { begin, lines, log } = open(t, 8);
  for (let port = 0; port < 11; port++) begin(port);
  log.close();
  t.match(lines().at(-1), { event: 'lost', lines: 3 });
  t.equal(lines().length, 9);
  t.match(log.status(), { lines: 8, lost: 3 });
});

t.test('lines per second are bounded, and the file may be truncated', async (t) => {
  const { begin, file, flows, lines, log } = open(t, 1 << 15);
  const settle = () => new Promise((resolve) => setTimeout(resolve, 50));
  for (let port = 0; port < 20_000; port++) {
    flows.remove(begin(port), FlowEnd.Idle);
    if (port % 5000 === 0) {
      log.drain();
      await settle();
    }
  }
  log.drain();
  await settle();
  const { lost, lines: written } = log.status();
  t.ok(written <= 10_000, `${written} lines`);
  t.equal(written + lost, 40_000);
  t.match(lines().at(-1), { event: 'lost' });
  truncateSync(file);
  begin(7);
  log.close();
  t.match(lines()[0], { localPort: 7 });
});

t.test('a full disk costs lines and is told once', async (t) => {
  const ring = new SharedArrayBuffer(flowLogByteLength(64));
  const failures: string[] = [];
  const names = { interfaces: [], firewall: () => '', rule: () => '' };
  const log = new FlowLog({
    file: '/dev/full',
    rings: [ring],
    names,
    failed: (message) => failures.push(message),
  });
  const flows = new Flows(64, new SharedArrayBuffer(flowColumnsByteLength(64)), ring);
  for (let round = 0; round < 3; round++) {
    flows.find(local, remote, round, 443, 6);
    const flow = flows.insert(0, 0, Verdict.Redirect, 1);
    flows.describe(flow, 0, 1, OnFailure.Inherit, 1, 0);
    flows.writeStart(flow);
    log.drain();
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  log.close();
  t.equal(failures.length, 1);
  t.match(failures[0], /ENOSPC/);
  t.match(log.status(), { lines: 0, lost: 3 });
});

t.test('which flows: all, or those of rules that say so', async (t) => {
  const rules = 'rules: [{ action: pass }, { action: drop, log: true }]';
  const which = (words: string) => {
    const config = parseConfig(file({ x: `log: { flows: /f${words} }\n${rules}` }), 'f');
    const policy = buildPolicy(config, builtInsOf(config, noLinks), 1);
    return [0, 1, noRule, builtInRule].map((rule) => isLogged(policy, rule));
  };
  t.same(which(''), [1, 1, 1, 1]);
  t.same(which(', which: rules'), [0, 1, 0, 0]);

  const { begin, flows, lines, log } = open(t, 64);
  const silent = begin(1);
  flows.restart(silent, 0, Verdict.Redirect, 100);
  flows.describe(silent, 3, 1, OnFailure.Inherit, 1, 0, 0);
  flows.writeStart(silent);
  flows.remove(silent, FlowEnd.Idle);
  flows.remove(begin(2), FlowEnd.Idle);
  log.close();
  t.same(
    lines().map(({ event, localPort }) => `${event} ${localPort}`),
    ['start 1', 'end 1', 'start 2', 'end 2'],
    'what begins again without the log ended in it, and is not heard of any more',
  );
});
