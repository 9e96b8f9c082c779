import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { parse } from 'yaml';

const directory = mkdtempSync(join(tmpdir(), 'microperimeter-learn-'));
t.teardown(() => rmSync(directory, { recursive: true }));

const host = '0a01000a';
const firewall = '0a090004';
const peer = '0a020014';

/** IPv4 and UDP around a payload, all in hexadecimal digits, without checksums. */
function udp(source: string, destination: string, ports: string, payload: string): string {
  const hex = (value: number) => value.toString(16).padStart(4, '0');
  const length = payload.length / 2;
  const ip = `4500${hex(28 + length)}00004000401100 00${source}${destination}`.replaceAll(' ', '');
  return `${ip}${ports}${hex(8 + length)}0000${payload}`;
}

/** A made-up agent: class 0x0104, type 0x20, 12 bytes: the direction in bit 9, a cookie at 8. */
function tunneled(direction: 'egress' | 'ingress', answer: boolean, flow: number): string {
  const [flags, way] = direction === 'ingress' ? ['40', 7] : ['00', 4];
  const data = `aa${flags}bbcc 00000000 5eed00${flow}${way}`;
  const option = `01042003 ${data}`.replaceAll(' ', '');
  const port = `c35${flow}`;
  const inner =
    direction === 'egress'
      ? udp(host, peer, `${port}0050`, '6869')
      : udp(peer, host, `${port}0016`, '6869');
  const [from, to] = answer ? [firewall, host] : [host, firewall];
  return udp(from, to, '303917c1', `0400080000bead00${option}${inner}`);
}

function capture(name: string, packets: readonly string[]): string {
  const file = join(directory, name);
  const head = Buffer.alloc(24);
  head.writeUInt32LE(0xa1b2c3d4, 0);
  head.writeUInt32LE(0x0004_0002, 4);
  head.writeUInt32LE(65_535, 16);
  head.writeUInt32LE(101, 20);
  const parts = packets.flatMap((hex) => {
    const bytes = Buffer.from(hex, 'hex');
    const record = Buffer.alloc(16);
    record.writeUInt32LE(bytes.length, 8);
    record.writeUInt32LE(bytes.length, 12);
    return [record, bytes];
  });
  writeFileSync(file, Buffer.concat([head, ...parts]));
  return file;
}

function learn(...words: string[]) {
  const { status, stderr, stdout } = spawnSync(
    'bin/microperimeter',
    ['capture', 'learn', ...words],
    { encoding: 'utf8' },
  );
  return { status, stderr, stdout };
}

const both = (flow: number) =>
  (['egress', 'ingress'] as const).flatMap((direction) =>
    [false, true].map((answer) => tunneled(direction, answer, flow)),
  );

t.test('an option that is not ours is read off a capture', async (t) => {
  const file = capture('foreign.pcap', [1, 2, 3].flatMap(both));
  const { status, stdout } = learn(file);
  t.equal(status, 0);
  const { tunnel } = parse(stdout);
  t.equal(tunnel.vni, 0xbead);
  t.same(tunnel.geneve, {
    inner: 'ipv4',
    optionClass: 0x0104,
    optionType: 0x20,
    optionData: 'aa00bbcc000000005eed0000',
    directionBit: 9,
    cookieAt: 8,
  });
  t.match(stdout, '6 packets of egress, 6 of ingress');

  const config = join(directory, 'config.yaml');
  const telemetry = '{ url: "https://10.9.0.4/v1/metrics", ca: /ca.pem }';
  const firewalls = `firewalls:\n  - { name: a, address: 10.9.0.4, telemetry: ${telemetry} }\n`;
  writeFileSync(config, `version: 1\n${firewalls}${stdout}`);
  const check = spawnSync('bin/microperimeter', ['check', config], { encoding: 'utf8' });
  t.equal(check.status, 0, check.stderr);
});

t.test('what cannot be told is said', async (t) => {
  const oneWay = capture('one-way.pcap', [
    tunneled('egress', false, 1),
    tunneled('egress', true, 1),
  ]);
  t.match(learn(oneWay).stdout, 'no bit of it tells the direction');
  t.equal(parse(learn(oneWay).stdout).tunnel.geneve.optionClass, undefined);

  const other = learn(oneWay, '--port', '4789');
  t.equal(other.status, 2);
  t.match(other.stderr, /no GENEVE to UDP port 4789/);
});
