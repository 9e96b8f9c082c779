/**
 * Reloading while traffic runs (needs root): no packet is lost, connections that are known go on as
 * they began, new ones meet the new rules, and a bad file changes nothing.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import t from 'tap';
import { parse, stringify } from 'yaml';
import { type Agent, agentCommand } from '../../lab/agent.ts';
import { pause, until } from '../../lab/program.ts';
import { addresses } from '../../lab/topology.ts';
import { type Hairpin, shell, startHairpin } from '../support/hairpin.ts';

const { server, workload } = addresses;

function change(agent: Agent, keys: Record<string, unknown>): void {
  const file = parse(readFileSync(agent.configPath, 'utf8'));
  writeFileSync(agent.configPath, stringify({ ...file, ...keys }));
}

function command({ topology }: Hairpin, agent: Agent, words: string): Promise<string> {
  const [verb, ...rest] = words.split(' ');
  const where =
    verb === 'explain' ? `--config ${agent.configPath}` : `--socket ${agent.socketPath}`;
  return shell(topology.workload, `${agentCommand} ${verb} ${where} ${rest.join(' ')}`);
}

async function packets(agent: Agent, name: string): Promise<number> {
  // The data path publishes its counters ten times a second.
  await pause(200);
  return (await agent.status())!.counters[name]?.packets ?? 0;
}

t.test('rules change under traffic', async (t) => {
  const hairpin = await startHairpin(t, { top: { default: 'redirect' } });
  const { topology } = hairpin;
  const agent = await hairpin.startAgent();

  // One number every 20 ms over a connection that lives through everything.
  const sink = shell(topology.server, 'socat -u TCP-LISTEN:9000,reuseaddr -');
  await pause(300);
  const lines = 'for i in $(seq 300); do echo $i; sleep 0.02; done';
  const source = shell(topology.workload, `${lines} | socat -u - TCP:${server}:9000`);
  const pings = shell(topology.workload, `ping -n -q -i 0.01 -c 500 ${server}`);
  await pause(500);

  const drop = { name: 'no-9001', direction: 'egress', protocol: 'tcp', remotePort: 9001 };
  for (let round = 0; round < 5; round++) {
    const web = { name: 'web', protocol: 'tcp', remotePort: 80 + round, action: 'redirect' };
    change(agent, { rules: [{ ...drop, action: 'drop' }, web], default: 'pass' });
    const answer = await command(hairpin, agent, 'reload');
    if (round === 0) t.match(answer, /added as number 1[\s\S]*default: redirect -> pass$/);
    else t.match(answer, /^reloaded:\n {2}rule web \(line \d+\): changed: remotePort$/);
  }
  t.match(await pings, / 500 received, 0% packet loss/);
  await source;
  t.equal((await sink).split('\n').length, 300, 'the connection went on');
  const redirected = await packets(agent, 'redirected');

  t.equal(
    await shell(topology.workload, `timeout 1 socat -u - TCP:${server}:9001 </dev/null; echo $?`),
    '124',
    'a new connection meets the new rule: it is dropped, not refused',
  );
  t.match(await shell(topology.server, `ping -n -q -c 2 ${workload}`), / 2 received/);
  t.equal(await packets(agent, 'redirected'), redirected, 'and the new default');
  const explained = await command(
    hairpin,
    agent,
    `explain tcp ${workload}:1 to ${server}:84 # the running agent, and the host's own addresses`,
  );
  t.match(
    explained,
    /\(egress\)\n {2}verdict +redirect\n[\s\S]*inner MTU +1\d{3} \(as the running/,
  );
});

t.test('reload --reclassify decides connections that are known again', async (t) => {
  const hairpin = await startHairpin(t, { top: { default: 'redirect' } });
  const { topology } = hairpin;
  const agent = await hairpin.startAgent();
  const sink = shell(topology.server, 'socat -u TCP-LISTEN:9000,reuseaddr -');
  await pause(300);
  const lines = 'for i in $(seq 150); do echo $i; sleep 0.02; done';
  const source = shell(topology.workload, `${lines} | socat -u - TCP:${server}:9000`);
  await pause(800);
  change(agent, { default: 'pass' });
  t.match(await command(hairpin, agent, 'reload'), 'default: redirect -> pass');
  const before = await packets(agent, 'redirected');
  await pause(300);
  const kept = await packets(agent, 'redirected');
  t.ok(kept > before, 'a reload alone lets it go on as it began');
  t.match(
    await command(hairpin, agent, 'reload --reclassify'),
    /are decided again, within seconds/,
  );
  const at = await packets(agent, 'redirected');
  await pause(300);
  t.equal(await packets(agent, 'redirected'), at, 'it goes directly now');
  await source;
  t.equal((await sink).split('\n').length, 150, 'and has lost nothing');
  t.match(await command(hairpin, agent, 'flows --json'), /"verdict": "pass"/);
});

t.test('what is wrong, or needs a restart, changes nothing', async (t) => {
  const hairpin = await startHairpin(t);
  const agent = await hairpin.startAgent();
  const before = (await agent.status())!;
  const refused = async (keys: Record<string, unknown>) => {
    const kept = readFileSync(agent.configPath);
    change(agent, keys);
    const answer = await command(hairpin, agent, 'reload || echo exit $?');
    writeFileSync(agent.configPath, kept);
    return answer;
  };
  t.match(
    await refused({ default: 'allow' }),
    /^nothing has changed:\n.*agent.yaml:\d+:\d+: default: must be .*\nexit 2$/,
  );
  t.match(
    await refused({ limits: { flows: 64 } }),
    /^nothing has changed:\n {2}limits.flows: 1048576 -> 64: needs a restart\nexit 2$/,
  );
  t.match(await agent.status(), { flows: { capacity: before.flows.capacity } });

  change(agent, { default: 'pass' });
  agent.program.signal('SIGHUP');
  await until('it says so', 5_000, async () =>
    /reload, asked by SIGHUP/.test(agent.program.output),
  );
  t.match(agent.program.output, /"changed":\["default: redirect -> pass"\]/);
  t.equal(await command(hairpin, agent, 'reload'), 'reloaded: the file says what is in force');
});
