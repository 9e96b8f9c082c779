// Untimed: another test may run beside this one.
/**
 * `microperimeter capture` on real traffic (needs root): what it writes is read by capinfos, tshark
 * and tcpdump, and says of each packet what became of it and why.
 */
import { existsSync, statSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { type Agent, agentCommand } from '../../lab/agent.ts';
import { pause, start, until } from '../../lab/program.ts';
import { addresses } from '../../lab/topology.ts';
import { type Hairpin, shell, startHairpin } from '../support/hairpin.ts';

const { firewall, server, workload } = addresses;

type Row = Record<'comment' | 'protocols' | 'interface' | 'direction' | 'length', string>;

/** As tshark sees the file. */
async function rowsOf({ topology }: Hairpin, file: string, filter = ''): Promise<Row[]> {
  const fields = ['comment', 'protocols', 'interface_name', 'packet_flags_direction', 'len'];
  const asked = fields.map((name) => `-e frame.${name}`).join(' ');
  const display = filter === '' ? '' : `-Y '${filter}'`;
  const text = await shell(
    topology.workload,
    `tshark -n -r ${file} ${display} -T fields -E separator='|' ${asked} 2>/dev/null`,
  );
  return text
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => {
      const [comment = '', protocols = '', name = '', direction = '', length = ''] =
        line.split('|');
      return { comment, protocols, interface: name, direction, length };
    });
}

function startCapturing(hairpin: Hairpin, agent: Agent, words: string) {
  const line = `exec ${agentCommand} capture --socket ${agent.socketPath} ${words}`;
  return start(hairpin.topology.workload, 'bash', ['-c', line]);
}

t.test('packets before, in and after the tunnel, with verdict, rule and reason', async (t) => {
  const hairpin = await startHairpin(t, {
    top: {
      rules: [
        { name: 'no-telnet', protocol: 'tcp', remotePort: 23, action: 'drop' },
        { name: 'direct', protocol: 'udp', remotePort: 5000, action: 'pass' },
        { name: 'web', protocol: 'tcp', remotePort: 8000, action: 'redirect' },
      ],
      default: 'pass',
    },
  });
  const { directory, topology } = hairpin;
  const agent = await hairpin.startAgent();
  const sink = start(topology.server, 'socat', ['-u', 'TCP-LISTEN:8000,fork,reuseaddr', '-']);
  t.teardown(() => sink.stop());
  await pause(300);
  const file = join(directory, 'all.pcapng');
  const capture = startCapturing(hairpin, agent, `-w ${file}`);
  await until('it captures', 5_000, async () => existsSync(file));
  const second = await shell(
    topology.workload,
    `${agentCommand} capture --socket ${agent.socketPath} 2>&1 || true`,
  );
  t.match(second, 'somebody captures already');
  await shell(topology.workload, `seq 3000 | socat -u - TCP:${server}:8000`);
  await shell(topology.workload, `timeout 0.5 socat -u - TCP:${server}:23 </dev/null || true`);
  await shell(topology.workload, `echo x | socat -u - UDP:${server}:5000`);
  await pause(300);
  capture.signal('SIGINT');
  t.equal(await capture.ended, 0);
  t.match(capture.output + capture.errors, /\d packets to .*all.pcapng$/m);

  t.match(await shell(topology.workload, `capinfos -t -E ${file}`), /pcapng[\s\S]*Raw IP/);
  const rows = await rowsOf(hairpin, file);
  const before = rows.filter((row) => row.comment.endsWith('egress, before the tunnel'));
  t.match(
    before.find((row) => row.comment.includes('web')),
    {
      comment: /^redirected \(sent through the tunnel.*\); rule web; firewall \S+; egress, before/,
      protocols: 'raw:ip:tcp',
      interface: 'eth0',
    },
  );
  t.match(
    before.find((row) => row.comment.includes('no-telnet'))?.comment,
    /^dropped-by-rule \(.*\); rule no-telnet; egress, before the tunnel$/,
  );
  t.match(
    before.find((row) => row.comment.includes('rule direct'))?.comment,
    /^passed-by-rule \(.*\); rule direct; /,
  );
  const tunnel = rows.filter((row) => row.interface === 'tunnel');
  const toFirewall = tunnel.filter((row) => row.comment.endsWith('egress, to the firewall'));
  const fromFirewall = tunnel.filter((row) => row.comment.endsWith('egress, from the firewall'));
  t.match(toFirewall[0], { protocols: /^raw:ip:udp:geneve:ip:tcp/ });
  t.match(fromFirewall[0], { comment: /rule web; firewall/, protocols: /udp:geneve:ip:tcp/ });
  t.ok(toFirewall.length > 3 && fromFirewall.length > 3);
  const after = rows.filter((row) => row.comment.endsWith('egress, after the tunnel'));
  t.equal(after.length, fromFirewall.length, 'what came back goes on');
  t.match(after[0], { comment: /^reinjected .*rule web/ });
  t.ok(
    rows.some((row) => row.comment.endsWith('ingress, to the firewall')),
    'answers, too',
  );
  const outer = `ip.src == ${workload} && ip.dst == ${firewall} && udp.dstport == 6081`;
  t.equal(
    (await rowsOf(hairpin, file, outer)).length,
    tunnel.filter((row) => row.comment.endsWith('to the firewall')).length,
  );
  t.equal((await rowsOf(hairpin, file, 'ip.checksum.status == "Bad"')).length, 0);
  t.same((await agent.status())?.state, 'redirecting');
});

t.test('filters, a length, a number of packets, a pipe and a ring', async (t) => {
  const hairpin = await startHairpin(t, { top: { default: 'redirect' } });
  const { directory, topology } = hairpin;
  const agent = await hairpin.startAgent();
  const ask = (words: string) =>
    shell(topology.workload, `${agentCommand} capture --socket ${agent.socketPath} ${words} 2>&1`);
  await t.rejects(ask('--filter "tcp prot 80"'), /the filter is not one \(man pcap-filter\): .*/);
  await t.rejects(ask('--point wire'), /--point is before, tunnel, after/);
  await t.rejects(ask('--ring-files 3'), /--ring-files needs -w FILE/);

  const pings = start(topology.workload, 'ping', ['-n', '-i', '0.02', server]);
  t.teardown(() => pings.stop());
  const lines = await ask('--count 40 --filter "icmp[icmptype] == icmp-echo"');
  t.match(
    lines,
    /^\d\d:\d\d:\d\d\.\d{6} {2}before {3}egress {3}icmp \S+ > \S+ .* redirected {2}rule default/,
  );
  t.match(lines, / {2}to-fw {4}egress/, 'the inner packet may match');
  t.match(lines, / {2}after {4}egress/);
  t.notMatch(lines, new RegExp(`icmp ${server} >`), 'no replies');
  t.match(lines, /\n40 packets$/);
  t.match(await ask('--count 5 --direction ingress --point before'), /before {3}ingress/);

  const piped = await shell(
    topology.workload,
    `${agentCommand} capture --socket ${agent.socketPath} -w - --count 20 --snaplen 48 ` +
      '2>/dev/null | tshark -n -r - -T fields -e frame.cap_len 2>/dev/null',
  );
  t.equal(piped.split('\n').length, 20);
  t.ok(piped.split('\n').every((length) => Number(length) <= 48 + 28));

  const ring = join(directory, 'ring.pcapng');
  const endless = start(topology.workload, 'ping', ['-q', '-f', '-s', '1400', server]);
  t.teardown(() => endless.stop());
  await ask(`-w ${ring} --ring-files 2 --file-size 1 --duration 4s`);
  await endless.stop();
  const kept = (await shell(topology.workload, `ls ${directory} | grep ring-`)).split('\n');
  t.equal(kept.length, 2, `${kept}`);
  t.notMatch(kept[0], 'ring-00001', 'the oldest went');
  t.ok(statSync(join(directory, kept[0]!)).size <= 1_000_000);
  t.match(await shell(topology.workload, `capinfos -c ${join(directory, kept[0]!)}`), /packets/);
});

t.test('a client that is killed leaves nothing switched on', async (t) => {
  const hairpin = await startHairpin(t, { top: { default: 'redirect' } });
  const { topology } = hairpin;
  const agent = await hairpin.startAgent();
  for (let round = 0; round < 3; round++) {
    const killed = startCapturing(hairpin, agent, `-w ${join(hairpin.directory, 'k.pcapng')}`);
    await shell(topology.workload, `ping -n -q -c 20 -i 0.02 ${server}`);
    // Nothing moves when it dies: the agent learns of it by the connection alone.
    await pause(300);
    killed.signal('SIGKILL');
    await killed.ended;
    await pause(200);
  }
  const left = await shell(
    topology.workload,
    `(${agentCommand} capture --socket ${agent.socketPath} --duration 2s 2>&1 & ` +
      `sleep 1; ping -n -q -c 1 ${server} >/dev/null; wait)`,
  );
  t.match(left, /before {3}egress/);
  await agent.program.stop();
});
