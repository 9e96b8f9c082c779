// Untimed: another test may run beside this one.
/** The page for Prometheus, asked by curl (needs root). */
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import t from 'tap';
import { pause } from '../../lab/program.ts';
import { addresses } from '../../lab/topology.ts';
import { ping } from '../../lab/traffic.ts';
import { observedMetrics } from '../support/dashboard.ts';
import { shell, startHairpin } from '../support/hairpin.ts';

const listen = { metrics: { listen: '127.0.0.1:9469' } };

t.test('metrics say what status says', async (t) => {
  const hairpin = await startHairpin(t, {
    settings: listen,
    top: { rules: [{ name: 'pings', protocol: 'icmp', action: 'redirect' }] },
  });
  const { workload } = hairpin.topology;
  const agent = await hairpin.startAgent();
  t.equal(await ping(workload, addresses.server, 3), 3);
  await pause(300);
  const text = await shell(workload, 'curl -sf http://127.0.0.1:9469/metrics');
  const value = (series: string) =>
    Number(
      text
        .split('\n')
        .find((line) => line.startsWith(`${series} `))
        ?.split(' ')
        .at(-1),
    );
  const { counters, innerMtu } = (await agent.status())!;
  const redirected = 'microperimeter_packets_total{reason="redirected",fate="forwarded"}';
  t.equal(value(redirected), counters.redirected!.packets);
  t.equal(value('microperimeter_gate_open'), 1);
  t.equal(value('microperimeter_inner_mtu_bytes'), innerMtu);
  t.equal(value('microperimeter_rule_connections_total{rule="pings"}'), 1);
  t.ok(value('microperimeter_kernel_packets_total{what="redirected"}') >= 6);
  t.match(text, /^# TYPE microperimeter_packets_total counter$/m);
  t.match(text, /^microperimeter_build_info\{version="[\d.]+"\} 1$/m);
  for (const name of observedMetrics()) {
    t.match(text, `\n${name}`, 'what dashboard and alerts ask for is there');
  }
  const page = readFileSync('docs/observability.md', 'utf8');
  for (const [, name] of text.matchAll(/^# TYPE (\S+)/gm)) t.match(page, `\`${name}\``);
  const checked = spawnSync('promtool', ['check', 'metrics'], {
    input: `${text}\n`,
    encoding: 'utf8',
  });
  if (checked.error === undefined || process.env.CI !== undefined) {
    t.equal(`${checked.stdout}${checked.stderr}`, '', 'promtool finds nothing');
  }
  await hairpin.firewall.command('telemetry refuse');
  await agent.reach('closed', 5000);
  t.match(await shell(workload, 'curl -sf http://127.0.0.1:9469/metrics'), /gate_open 0/);
  t.match(await shell(workload, 'curl -s http://127.0.0.1:9469/'), /there is GET \/metrics/);
});

t.test('an address that is taken: a sentence, and nothing left', async (t) => {
  const hairpin = await startHairpin(t, { settings: listen });
  const { workload } = hairpin.topology;
  const other = workload.spawn('socat', ['-u', 'TCP-LISTEN:9469,bind=127.0.0.1', '-']);
  await pause(300);
  const agent = hairpin.launchAgent();
  t.equal(await agent.program.ended, 5);
  t.match(agent.program.errors, /metrics cannot listen on 127\.0\.0\.1:9469 \(EADDRINUSE\)/);
  t.notMatch(await shell(workload, 'ip -br link'), /microperimeter/);
  other.kill();
});
