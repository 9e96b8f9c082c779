/**
 * Connections outlive everything that happens to the agent (needs root): its start, the gate closed
 * and opened, rules that change, its stop. Sessions like SSH: a line every 50 ms that the other end
 * repeats, so that what is lost, doubled or late shows itself.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { parse, stringify } from 'yaml';
import { gateBoundMs } from '../../lab/agent.ts';
import type { Namespace } from '../../lab/namespace.ts';
import { pause, start, until } from '../../lab/program.ts';
import { addresses } from '../../lab/topology.ts';
import { shell, startHairpin } from '../support/hairpin.ts';

const { server, workload } = addresses;
const everyMs = 50;
/** A takeover costs TCP one retransmission at most; a busy machine adds to it. */
const longestSilenceMs = 2000;

/** A line every 50 ms over one connection, repeated by the other end. */
class Session {
  /** When each line came back, by its number. */
  readonly echoes: { line: number; atMs: number }[] = [];
  private readonly name: string;
  private readonly client;
  private readonly timer: NodeJS.Timeout | undefined;
  private sent = 0;

  constructor(
    t: Test,
    name: string,
    from: Namespace,
    target: string,
    port: number,
    silent = false,
  ) {
    this.name = name;
    this.client = start(from, 'socat', ['-', `TCP:${target}:${port}`], {
      onLine: (line) => this.echoes.push({ line: Number(line), atMs: performance.now() }),
    });
    if (!silent) this.timer = setInterval(() => this.say(), everyMs);
    t.teardown(() => clearInterval(this.timer));
  }

  say(): void {
    this.client.write(String(++this.sent));
  }

  /** Says nothing any more, and tells what was heard. */
  async finish(t: Test): Promise<void> {
    clearInterval(this.timer);
    await until(`${this.name} has heard all`, 10_000, () => this.echoes.length >= this.sent);
    t.same(
      this.echoes.map(({ line }) => line),
      Array.from({ length: this.sent }, (_, index) => index + 1),
      `${this.name}: all ${this.sent} lines, in order`,
    );
    const gaps = this.echoes.slice(1).map(({ atMs }, index) => atMs - this.echoes[index]!.atMs);
    const longest = Math.round(Math.max(0, ...gaps));
    t.comment(`${this.name}: longest silence ${longest} ms`);
    if (this.timer !== undefined) t.ok(longest < longestSilenceMs, `silent for ${longest} ms`);
    this.client.child.stdin?.end();
    t.equal(await this.client.ended, 0, `${this.name} ends in order`);
  }
}

function listen(t: Test, host: Namespace): void {
  const program = start(host, 'socat', ['TCP-LISTEN:9000,reuseaddr,fork', 'EXEC:cat']);
  t.teardown(() => program.stop());
}

t.test('connections survive start, gate, reload and stop', async (t) => {
  const log = join(t.testdir({}), 'flows.ndjson');
  const hairpin = await startHairpin(t, { settings: { log: { format: 'json', flows: log } } });
  const { topology } = hairpin;
  listen(t, topology.server);
  listen(t, topology.workload);
  await pause(500);
  const before = [
    new Session(t, 'out, before', topology.workload, server, 9000),
    new Session(t, 'in, before', topology.server, workload, 9000),
    new Session(t, 'silent, before', topology.workload, server, 9000, true),
  ];
  await pause(500);
  const agent = await hairpin.startAgent();
  const sessions = [
    ...before,
    new Session(t, 'out, redirected', topology.workload, server, 9000),
    new Session(t, 'in, redirected', topology.server, workload, 9000),
    new Session(t, 'silent, redirected', topology.workload, server, 9000, true),
  ];
  const [, , silentBefore, , , silent] = sessions;
  silent!.say();
  await pause(1000);
  t.ok((await agent.status())!.counters.reinjected!.packets > 40, 'new ones are redirected');

  await hairpin.firewall.command('telemetry refuse');
  await agent.reach('closed', gateBoundMs + 1000);
  const born = new Session(t, 'born while closed', topology.workload, server, 9000);
  await pause(500);
  await hairpin.firewall.command('telemetry ok');
  await agent.reach('redirecting', 5000);
  await pause(500);

  const file = parse(readFileSync(agent.configPath, 'utf8'));
  const rules = [{ name: 'nobody', protocol: 'tcp', remotePort: 9000, action: 'drop' }];
  writeFileSync(agent.configPath, stringify({ ...file, rules }));
  agent.program.signal('SIGHUP');
  await until('it has reloaded', 5000, () => /reload, asked by/.test(agent.program.output));
  await pause(500);
  t.equal(
    await shell(topology.workload, `timeout 1 socat -u - TCP:${server}:9000 </dev/null; echo $?`),
    '124',
    'a new connection meets the new rule',
  );
  silentBefore!.say();
  silent!.say();
  await pause(500);

  t.equal(await agent.program.stop(), 0);
  await pause(500);
  for (const session of [...sessions, born]) await session.finish(t);

  const lines = readFileSync(log, 'utf8')
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));
  const ended = lines.filter(({ event, ended }) => event === 'end' && ended === 'stop');
  const verdicts = ended.filter(({ protocol }) => protocol === 'tcp').map(({ verdict }) => verdict);
  t.ok(verdicts.filter((verdict) => verdict === 'redirect').length >= 3, 'the flow log tells');
  t.ok(verdicts.filter((verdict) => verdict === 'pass-established').length >= 3);
  const own = ended.find(({ opener, verdict }) => opener === 'ingress' && verdict === 'redirect');
  t.match(own, { rule: 'default', firewall: 'lab-firewall', interface: 'eth0', localPort: 9000 });
  t.ok(own.ingress.packets > 40 && own.egress.packets > 40, 'both ways are counted');
  t.equal(
    lines.filter(({ event }) => event === 'end').length,
    lines.filter(({ event }) => event === 'start').length,
    'each beginning has an end',
  );
});
