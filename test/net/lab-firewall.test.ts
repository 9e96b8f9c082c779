// Untimed: another test may run beside this one.
/**
 * The lab's firewalls on real links, spoken to by a plain UDP socket in the workload (needs root):
 *
 *     workload 10.1.0.10 - router - transit - firewall 10.9.0.4
 */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { createCertificates, createRunDirectory } from '../../lab/certificates.ts';
import {
  blockOnVxlanFirewall,
  countBlockedOnVxlanFirewall,
  type FirewallOptions,
  startBuiltinFirewall,
  startVxlanFirewall,
} from '../../lab/firewalls.ts';
import { compareHostStates, readHostState } from '../../lab/host-state.ts';
import type { Namespace } from '../../lab/namespace.ts';
import { run, until } from '../../lab/program.ts';
import { createTopology } from '../../lab/topology.ts';

const directory = createRunDirectory();
const certificates = createCertificates(directory, 'firewall', '10.9.0.4');

/**
 * Sends each datagram to the firewall and prints what comes back to `port` within 300 ms, in hex.
 */
const exchangeScript = `
  const [port, ...datagrams] = process.argv.slice(1);
  const socket = require('node:dgram').createSocket('udp4');
  const silence = setTimeout(() => socket.close(), 500);
  socket.on('message', (data, from) => {
    silence.refresh();
    console.log(from.port + ' ' + data.toString('hex'));
  });
  socket.bind(Number(port), () => {
    for (const hex of datagrams) socket.send(Buffer.from(hex, 'hex'), Number(port), '10.9.0.4');
    silence.refresh();
  });
`;

async function exchange(host: Namespace, port: number, datagrams: string[]): Promise<string[]> {
  const args = ['-e', exchangeScript, String(port), ...datagrams];
  const { output } = await run(host, process.execPath, args);
  return output.split('\n').filter((line) => line !== '');
}

/** From 10.1.0.10 to 10.2.0.20, TTL 64, header checksum right. */
function ipv4Packet(protocol: number, body: Buffer): string {
  const header = Buffer.from('4500000000010000400000000a01000a0a020014', 'hex');
  header.writeUInt16BE(20 + body.length, 2);
  header[9] = protocol;
  let sum = 0;
  for (let at = 0; at < 20; at += 2) sum += header.readUInt16BE(at);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  header.writeUInt16BE(~sum & 0xffff, 10);
  return Buffer.concat([header, body]).toString('hex');
}

/** To port 9, checksum 0 (none). */
function udpPacket(payload: string, sourcePort = 40000): string {
  const header = Buffer.alloc(8);
  header.writeUInt16BE(sourcePort, 0);
  header.writeUInt16BE(9, 2);
  header.writeUInt16BE(8 + payload.length, 4);
  return ipv4Packet(17, Buffer.concat([header, Buffer.from(payload)]));
}

const synToPort81 = ipv4Packet(6, Buffer.from('9c40005100000000000000005002ffff00000000', 'hex'));

const geneveHeader = '0300080000bead00' + 'fff12002' + '0000000001020304';
const vxlanHeader = '0800000000bead00020000000002' + '0200000000010800';

t.test('the built-in firewall hair-pins, blocks, impairs and takes telemetry', async (t) => {
  const topology = createTopology();
  t.teardown(() => topology.remove());
  const policy = join(directory, 'policy.yaml');
  writeFileSync(policy, 'deny:\n  - { content: forbidden }\n');
  const options: FirewallOptions = { encapsulation: 'geneve', certificates, policy };
  const firewall = await startBuiltinFirewall(topology.firewall, options);
  t.teardown(() => firewall.stop());

  const good = geneveHeader + udpPacket('hello');
  const bad = geneveHeader + udpPacket('something forbidden');
  const answers = await exchange(topology.workload, 6081, [good, bad, good, '0300']);
  t.same(answers, [`6081 ${good}`], 'the same bytes, from its port; nothing of the flow after');
  const verdicts = () => firewall.events.filter((event) => 'direction' in event);
  await until('the firewall has told both', 2000, () => verdicts().length >= 2);
  t.same(
    verdicts().map(({ event, direction, target, reason }) => [event, direction, target, reason]),
    [
      ['allowed', 'egress', '10.2.0.20:9', ''],
      ['blocked', 'egress', '10.2.0.20:9', 'content forbidden'],
    ],
  );

  await firewall.command('tunnel seed 7');
  await firewall.command('tunnel loss 30');
  await firewall.command('tunnel duplicate 20');
  await firewall.command('tunnel reorder 20');
  const numbers = Array.from({ length: 200 }, (_, index) => index);
  const numbered = numbers.map((index) => geneveHeader + udpPacket(`n${index}`, 40001));
  const back = (await exchange(topology.workload, 6081, numbered)).map((line) => line.slice(5));
  const distinct = new Set(back);
  t.ok(distinct.size > 110 && distinct.size < 170, `${distinct.size} of 200 came back`);
  t.ok(back.length > distinct.size, 'some twice');
  const order = [...distinct].map((datagram) => numbered.indexOf(datagram));
  t.ok(
    order.some((number, index) => index > 0 && number < order[index - 1]!),
    'some late',
  );
  t.ok(
    order.every((number) => number >= 0),
    'all unchanged',
  );
  await firewall.command('tunnel clear');
  await t.rejects(firewall.command('tunnel sideways 3'), { message: /unknown tunnel command/ });

  const post = () => postTelemetry(topology.workload);
  t.equal(await post(), '200 {}');
  await until('the firewall has told', 2000, () => firewall.telemetryCount > 0);
  t.match(firewall.telemetry, { path: '/v1/metrics', status: 200, bytes: 2 });
  await firewall.command('telemetry status 500');
  t.equal(await post(), '500 {}');
  await firewall.command('telemetry hang');
  t.equal(await post(), 'exit 28', 'curl: timed out');
  await firewall.command('telemetry refuse');
  t.equal(await post(), 'exit 7', 'curl: could not connect');
  await firewall.command('telemetry ok');
  t.equal(await post(), '200 {}');
  const other = createCertificates(directory, 'other', '10.9.0.4');
  await firewall.command(`telemetry certificate ${other.certificate} ${other.key}`);
  t.equal(await post(), 'exit 60', 'curl: cannot be authenticated');
});

t.test('joined datagrams are answered joined, without the blocked ones', async (t) => {
  const topology = createTopology();
  t.teardown(() => topology.remove());
  const policy = join(directory, 'policy.yaml');
  writeFileSync(policy, 'deny:\n  - { content: forbidden }\n');
  const firewall = await startBuiltinFirewall(topology.firewall, {
    ...{ encapsulation: 'geneve', certificates, policy },
  });
  t.teardown(() => firewall.stop());
  const datagram = (port: number, payload: string) => geneveHeader + udpPacket(payload, port);
  const rows = [datagram(1, 'one goes on.'), datagram(2, 'is forbidden'), datagram(3, 'three')];
  const size = String(rows[0]!.length / 2);
  const args = ['dist/test/net/segment-sender.js', '6081', '4', size, rows.join('')];
  const { output, errors } = await run(topology.workload, process.execPath, args);
  t.equal(errors, '');
  t.same(output.trim().split('\n'), [rows[0], rows[2]]);
});

t.test('the kernel VXLAN firewall hair-pins with no program of ours', async (t) => {
  const topology = createTopology({ offloads: 'firewall-off' });
  t.teardown(() => topology.remove());
  const workload = readHostState(topology.workload);
  const firewall = await startVxlanFirewall(topology.firewall, '10.1.0.10', {
    ...{ encapsulation: 'vxlan', certificates },
  });
  t.teardown(() => firewall.stop());
  const sent = vxlanHeader + udpPacket('hello');
  const answers = await exchange(topology.workload, 4789, [sent]);
  t.equal(answers.length, 1);
  const answer = answers[0]!.split(' ')[1]!;
  t.equal(answer.slice(0, 16), vxlanHeader.slice(0, 16), 'the same VNI');
  t.equal(answer.slice(16, 44), '0200000000010200000000020800', 'from its MAC to the workload');
  t.equal(answer.slice(60, 62), '3f', 'one hop less');
  t.equal(answer.slice(68), udpPacket('hello').slice(24), 'the rest unchanged');

  blockOnVxlanFirewall(topology.firewall, '10.2.0.20', 81);
  t.same(await exchange(topology.workload, 4789, [vxlanHeader + synToPort81]), []);
  t.equal(countBlockedOnVxlanFirewall(topology.firewall), 1);
  t.equal(await postTelemetry(topology.workload), '200 {}');
  t.same(compareHostStates(workload, readHostState(topology.workload)), []);
});

async function postTelemetry(host: Namespace): Promise<string> {
  const args = ['-s', '-m', '1', '--cacert', certificates.ca, '-w', '%{http_code} ', '-d', '{}'];
  const curl = await run(host, 'curl', [...args, 'https://10.9.0.4/v1/metrics']);
  const [body = '', status = ''] = [curl.output.trim().slice(0, 2), curl.output.trim().slice(2)];
  return curl.code === 0 ? `${status.trim()} ${body}` : `exit ${curl.code}`;
}
