// Untimed: another test may run beside this one.
/**
 * A firewall that nobody here wrote: Suricata between two VXLAN devices of the kernel, with the
 * rules of lab/suricata (needs root). What it blocks, it blocks in both directions; the neighbour
 * of each blocked request passes; and its own count of every connection's packets is the agent's.
 *
 *     workload 10.1.0.10 - router - transit - firewall 10.9.0.4: internal ] Suricata [ external
 *                            |
 *                       server 10.2.0.20
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import t, { type Test } from 'tap';
import { AlertFile } from '../../cli/top/alerts.ts';
import { type Agent, agentCommand } from '../../lab/agent.ts';
import { createCertificates } from '../../lab/certificates.ts';
import { countsAgree, type JoinedFlow, joinFlows, sumFlows } from '../../lab/joined-flows.ts';
import type { Namespace } from '../../lab/namespace.ts';
import { run, start, until } from '../../lab/program.ts';
import { addresses } from '../../lab/topology.ts';
import { ping, startWebServer } from '../../lab/traffic.ts';
import { type Hairpin, shell, startHairpin } from '../support/hairpin.ts';

const { server, workload } = addresses;
const megabytes = 200;
/** A thousand short connections each way. */
const batches = 5;
const batchConnections = 200;
const eicar = 'EICAR-STANDARD-ANTIVIRUS-TEST-FILE';
/** How long a request that is not answered is waited for, in seconds. */
const patience = 1.5;

type Way = { readonly name: string; readonly from: Namespace; readonly address: string };

function ways({ topology }: Hairpin): Way[] {
  return [
    { name: 'egress', from: topology.workload, address: server },
    { name: 'ingress', from: topology.server, address: workload },
  ];
}

/** Web on 80 and 443, files on 8000, SSH's greeting on 22, names on 53; all are up on return. */
async function serve(t: Test, { directory, topology }: Hairpin): Promise<void> {
  const files = join(directory, 'files');
  mkdirSync(files);
  writeFileSync(join(files, 'eicar.txt'), `${'x'.repeat(100)}${eicar}\n`);
  writeFileSync(join(files, 'clean.txt'), `${'x'.repeat(100)}clean\n`);
  const random = `openssl enc -aes-128-ctr -nosalt -K ${'5'.repeat(32)} -iv ${'0'.repeat(32)}`;
  const large = join(files, 'large');
  await shell(topology.server, `head -c ${megabytes}M /dev/zero | ${random} > ${large}`);
  const { certificate, key } = createCertificates(directory, 'web', server);
  for (const [host, address] of [
    [topology.server, server],
    [topology.workload, workload],
  ] as const) {
    const programs = [
      await startWebServer(host, 'web', address, [80]),
      start(host, 'python3', ['-m', 'http.server', '8000', '--directory', files]),
      start(host, 'openssl', [
        ...['s_server', '-accept', '443', '-cert', certificate, '-key', key, '-www', '-quiet'],
      ]),
      start(host, 'socat', [
        'TCP-LISTEN:22,fork,reuseaddr',
        "SYSTEM:printf 'SSH-2.0-OpenSSH_9.2\\\\r\\\\n'; cat",
      ]),
      start(host, 'dnsmasq', [
        ...['--keep-in-foreground', '--no-resolv', '--no-hosts', '--conf-file=/dev/null'],
        ...['--user=root', '--pid-file=', `--listen-address=${address}`, '--bind-interfaces'],
        ...['--address=/evil.example/192.0.2.1', '--address=/good.example/192.0.2.2'],
      ]),
    ];
    t.teardown(() => Promise.all(programs.map((program) => program.stop())));
    const listening = async () => {
      const { output } = await run(host, 'ss', ['-Htuln']);
      return [80, 8000, 443, 22, 53].every((port) => output.includes(`:${port} `));
    };
    await until(`the servers on ${host.name}`, 10_000, listening, 100);
  }
}

/** What is asked, and what the answer has in it; nothing is answered where a rule blocks. */
type Exchange = { readonly rule: string; readonly blocked: string; readonly passes: string };

function exchanges(address: string): Exchange[] {
  const curl = (what: string) => `curl -sSfk -m ${patience} -o /dev/null ${what} && echo answered`;
  const named = (name: string) => curl(`--resolve ${name}:443:${address} https://${name}/`);
  const greet = (software: string) =>
    `printf 'SSH-2.0-${software}\\r\\n' | timeout ${patience} socat -t1 - TCP:${address}:22 | ` +
    `grep -q ${software} && echo answered`;
  const dig = (name: string, answer: string) =>
    `dig +short +tries=1 +time=1 @${address} ${name} | grep -q '^${answer}$' && echo answered`;
  return [
    {
      rule: 'HTTP host evil.example',
      blocked: curl(`-H 'Host: evil.example' http://${address}/`),
      passes: curl(`-H 'Host: good.example' http://${address}/`),
    },
    {
      rule: 'HTTP path /secret',
      blocked: curl(`http://${address}/secret/plans`),
      passes: curl(`http://${address}/public/secret`),
    },
    {
      rule: 'TLS name evil.example',
      blocked: named('evil.example'),
      passes: named('good.example'),
    },
    {
      rule: 'EICAR test file',
      blocked: curl(`http://${address}:8000/eicar.txt`),
      passes: curl(`http://${address}:8000/clean.txt`),
    },
    {
      rule: 'SSH software evilssh',
      blocked: greet('evilssh_1.0'),
      passes: greet('OpenSSH_9.9'),
    },
    {
      rule: 'DNS name evil.example',
      blocked: dig('evil.example', '192.0.2.1'),
      passes: dig('good.example', '192.0.2.2'),
    },
  ];
}

/** Azure's shape of the tunnel: what comes by one identifier and port goes back by the other. */
t.test('each direction has its own VNI and port', async (t) => {
  const hairpin = await startHairpin(t, { firewall: 'suricata' });
  const { topology } = hairpin;
  const agent = await hairpin.startAgent();
  const commands = [
    `${agentCommand} status --socket ${agent.socketPath}`,
    `${agentCommand} doctor --config ${agent.configPath}`,
  ];
  const [status = '', doctor = ''] = await Promise.all(
    commands.map((command) => shell(topology.workload, `${command} || true`)),
  );
  t.match(status, /vxlan\s+to\s+ports\s+10800\s+and\s+10801/);
  t.match(doctor, /UDP 10\.9\.0\.4:10800[\s\S]*UDP 10\.9\.0\.4:10801/);
  const capture = await hairpin.capture(topology.firewall, 'ports');
  t.equal(await ping(topology.workload, server, 3), 3);
  await capture.stop();
  const fields = ['ip.src', 'udp.dstport', 'vxlan.vni', 'icmp.type'];
  const rows = await capture.read('vxlan && icmp', fields);
  const request = '8';
  const reply = '0';
  const seen = rows.map(([ip = '', ...rest]) => [ip.split(',')[0], ...rest].join(' '));
  t.same(
    new Set(seen),
    new Set([
      `${workload} 10800 800 ${request}`,
      `${addresses.firewall} 10801 801 ${request}`,
      `${workload} 10801 801 ${reply}`,
      `${addresses.firewall} 10800 800 ${reply}`,
    ]),
  );
  t.equal(rows.length, 12, 'each packet once');
  t.equal(await capture.count('_ws.malformed'), 0);
});

/** What is on its way makes the counts differ for a moment: they are asked until they agree. */
async function compareCounts(
  t: Test,
  agent: Agent,
  { firewall }: Hairpin,
  least: number,
): Promise<JoinedFlow[]> {
  let flows: JoinedFlow[] = [];
  const agree = async () => {
    flows = joinFlows(await agent.flows(), await firewall.flows!());
    return flows.length >= least && flows.every(countsAgree);
  };
  await until('both counted the same', 10_000, agree, 200).catch((error: Error) => {
    t.fail(`${error.message}: ${flows.length} connections`);
  });
  const ours = sumFlows(flows.map((flow) => flow.agent));
  t.equal(ours, sumFlows(flows), `${flows.length} connections: ${ours}`);
  return flows;
}

t.test('each rule blocks what it should, in both directions', async (t) => {
  const hairpin = await startHairpin(t, { firewall: 'suricata' });
  await serve(t, hairpin);
  const { topology, firewall } = hairpin;
  const ask = async (from: Namespace, commands: string[]) =>
    (await Promise.all(commands.map((command) => run(from, 'bash', ['-c', command])))).map(
      ({ output }) => output.trim(),
    );
  const [direct] = await ask(topology.workload, [exchanges(server)[0]!.blocked]);
  t.equal(direct, 'answered', 'nothing is blocked before the agent runs');
  const agent = await hairpin.startAgent();
  t.equal(await ping(topology.workload, server, 3), 3);
  for (const { address, from, name } of ways(hairpin)) {
    const asked = exchanges(address);
    const rules = asked.map(({ rule }) => rule);
    // One after the other: some of the servers take one connection at a time.
    const passes = await ask(
      from,
      asked.map((exchange) => exchange.passes),
    );
    const blocked = await ask(
      from,
      asked.map((exchange) => exchange.blocked),
    );
    const all = (answer: string) => rules.map((rule) => [rule, answer]);
    const pairs = (answers: string[]) => rules.map((rule, index) => [rule, answers[index]]);
    t.same(pairs(passes), all('answered'), `${name}: the neighbours pass`);
    t.same(pairs(blocked), all(''), `${name}: each is blocked`);
    const told = () => firewall.events.filter(({ direction }) => direction === name);
    const reasons = () =>
      told().flatMap(({ event, reason }) => (event === 'blocked' ? [reason] : []));
    await until('Suricata has told', 5000, () => reasons().length >= rules.length).catch(() => {});
    t.same(reasons().sort(), rules.sort(), `${name}: eve.json names each rule once`);
  }
  const flows = await compareCounts(t, agent, hairpin, 4 * exchanges(server).length);
  const reasons = flows.map(({ reason }) => reason).filter((reason) => reason !== '');
  t.same(
    new Set(reasons),
    new Set(exchanges(server).map(({ rule }) => rule)),
    'every alert belongs to a connection of the agent',
  );
  const alerts = new AlertFile(join(hairpin.directory, 'suricata', 'eve.json'));
  t.teardown(() => alerts.close());
  alerts.look();
  const told = (await agent.flows()).flatMap((flow) => alerts.of(flow)?.signature ?? []);
  const twice = exchanges(server).flatMap(({ rule }) => [rule, rule]);
  t.same(told.sort(), twice.sort(), 'top shows each alert beside the flow that it is about');
  const {
    redirected,
    reinjected,
    'probe-answered': probes,
    ...lost
  } = (await agent.status())!.counters;
  t.same(lost, {}, 'every packet was redirected or reinjected');
  t.ok(probes!.packets > 0, 'Suricata returns the probe');
  t.ok(redirected!.packets > reinjected!.packets, 'what was blocked did not come back');
});

t.test('downloads arrive as they were sent, and every short connection works', async (t) => {
  const hairpin = await startHairpin(t, { firewall: 'suricata' });
  await serve(t, hairpin);
  const { directory, topology } = hairpin;
  const agent = await hairpin.startAgent();
  const sent = await shell(topology.server, `sha256sum < ${directory}/files/large`);
  for (const { address, from, name } of ways(hairpin)) {
    const large = `curl -sS -m 60 http://${address}:8000/large | sha256sum`;
    t.equal(await shell(from, large), sent, `${megabytes} MB, ${name}`);
    // The agent forgets a closed connection after 10 s: each batch is compared before that.
    for (let batch = 0; batch < batches; batch++) {
      const codes = await shell(
        from,
        `curl -sS -m 60 -Z --parallel-max 20 -w '%{http_code}\\n' -o /dev/null ` +
          `'http://${address}/[1-${batchConnections}]' | sort | uniq -c`,
      );
      t.equal(codes, `${batchConnections} 200`, `connections, ${name}`);
      await compareCounts(t, agent, hairpin, batchConnections);
    }
  }
});
