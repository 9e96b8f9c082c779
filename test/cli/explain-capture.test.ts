import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import t from 'tap';
import { readCapture } from '../../cli/explain/capture-file.ts';
import { groupFlows } from '../../cli/explain/capture-flows.ts';
import { UsageError } from '../../cli/usage-error.ts';
import { formatAddress } from '../../parsers/text.ts';
import { echo, fragments, type Ip, icmp, TCP, tcp, udp } from '../support/packets.ts';
import { file } from './config-file.ts';

const ethernet = (packet: Uint8Array) =>
  Buffer.concat([Buffer.alloc(12), Buffer.from([8, 0]), packet]);
const tagged = (packet: Uint8Array) =>
  Buffer.concat([Buffer.alloc(12), Buffer.from([0x88, 0xa8, 0, 1, 0x81, 0, 0, 2, 8, 0]), packet]);

/** A pcap file of frames, each cut to `snap` bytes. */
function pcap(linkType: number, frames: readonly Uint8Array[], snap = 65_535, little = true) {
  const put = (buffer: Buffer, value: number, at: number) =>
    little ? buffer.writeUInt32LE(value, at) : buffer.writeUInt32BE(value, at);
  const head = Buffer.alloc(24);
  put(head, 0xa1b2c3d4, 0);
  put(head, snap, 16);
  put(head, linkType, 20);
  const packets = frames.flatMap((frame) => {
    const header = Buffer.alloc(16);
    put(header, Math.min(snap, frame.length), 8);
    put(header, frame.length, 12);
    return [header, frame.subarray(0, snap)];
  });
  return Buffer.concat([head, ...packets]);
}

function flowsOf(bytes: Uint8Array) {
  const { flows, leftOut } = groupFlows(readCapture(bytes, 'f'));
  const rows = flows.map(({ bytes: size, packets, startSeen, tuple }) => {
    const from = `${formatAddress(tuple.source)}:${tuple.sourcePort}`;
    const to = `${formatAddress(tuple.destination)}:${tuple.destinationPort}`;
    return `${tuple.protocol} ${from} ${to} ${packets} ${size}${startSeen ? '' : ' started before'}`;
  });
  return { rows, leftOut: Object.fromEntries(leftOut) };
}

const out: Ip = { source: '10.1.0.9', target: '10.2.0.7' };
const back: Ip = { source: '10.2.0.7', target: '10.1.0.9' };
const syn = tcp(out, { from: 4000, to: 5432, flags: TCP.SYN });
const synAck = tcp(back, { from: 5432, to: 4000, flags: TCP.SYN | TCP.ACK });
const data = (bytes: number) => tcp(out, { from: 4000, to: 5432, payload: new Uint8Array(bytes) });

t.test('link types, byte orders and tags', async (t) => {
  const expected = { rows: ['6 10.1.0.9:4000 10.2.0.7:5432 3 220'], leftOut: {} };
  const packets = [syn, synAck, data(100)];
  const sll = (packet: Uint8Array) =>
    Buffer.concat([Buffer.alloc(14), Buffer.from([8, 0]), packet]);
  const sll2 = (packet: Uint8Array) =>
    Buffer.concat([Buffer.from([8, 0]), Buffer.alloc(18), packet]);
  t.same(flowsOf(pcap(1, packets.map(ethernet))), expected);
  t.same(flowsOf(pcap(1, packets.map(ethernet), 65_535, false)), expected);
  t.same(flowsOf(pcap(1, packets.map(tagged))), expected);
  t.same(flowsOf(pcap(101, packets)), expected);
  t.same(flowsOf(pcap(113, packets.map(sll))), expected);
  t.same(flowsOf(pcap(276, packets.map(sll2))), expected);
  t.same(flowsOf(pcap(101, packets, 54)), expected, 'what is cut short counts as it was');
});

t.test('who opened a connection, and what belongs to it', async (t) => {
  const rows: [what: string, packets: readonly Uint8Array[], flows: readonly string[]][] = [
    ['an answer comes first', [synAck, syn], ['6 10.1.0.9:4000 10.2.0.7:5432 2 80']],
    ['no SYN', [data(0)], ['6 10.1.0.9:4000 10.2.0.7:5432 1 40 started before']],
    ['ping, answer first', [echo(back, 0, 7), echo(out, 8, 7)], ['1 10.1.0.9:7 10.2.0.7:7 2 64']],
    [
      'fragments',
      fragments(udp(out, 53, 53, new Uint8Array(2000)), 1500, out),
      ['17 10.1.0.9:53 10.2.0.7:53 2 2048'],
    ],
    [
      'an error about it',
      [syn, icmp(back, 3, 1, Buffer.concat([Buffer.alloc(4), syn.subarray(0, 28)]))],
      ['6 10.1.0.9:4000 10.2.0.7:5432 2 96'],
    ],
  ];
  for (const [what, packets, flows] of rows) t.same(flowsOf(pcap(101, packets)).rows, flows, what);
  const [, second] = fragments(udp(out, 53, 53, new Uint8Array(2000)), 1500, out);
  const ipv6 = Buffer.alloc(40, 0x60);
  const broken = Buffer.from(syn);
  broken[0] = 0x41;
  t.same(flowsOf(pcap(101, [second!, ipv6, broken, syn.subarray(0, 22)])), {
    rows: [],
    leftOut: {
      'fragments whose first is not in the capture': 1,
      'ipv4-bad-header-length': 1,
      'cut too short by the capture': 1,
      'not IPv4': 1,
    },
  });
});

t.test('files that are none', async (t) => {
  const rows: [Uint8Array, RegExp][] = [
    [new Uint8Array(0), /^f is no capture file: neither pcap nor pcapng$/],
    [Buffer.alloc(100), /^f is no capture file: neither pcap nor pcapng$/],
    [Buffer.from([0x0a, 0x0d, 0x0d]), /^f is no capture file: neither pcap nor pcapng/],
    [pcap(105, []), /^f has link type 105/],
  ];
  for (const [bytes, message] of rows) t.throws(() => readCapture(bytes, 'f'), { message });
  t.same(flowsOf(pcap(1, [])), { rows: [], leftOut: {} });
  // Bytes after a good header, or a good file with bytes changed, end in flows or in a sentence.
  const good = pcap(1, [ethernet(syn), tagged(synAck), ethernet(echo(out, 8, 1))]);
  const change = fc.tuple(fc.nat(good.length - 1), fc.nat(255));
  fc.assert(
    fc.property(fc.array(change, { maxLength: 12 }), fc.nat(good.length), (changes, length) => {
      const bytes = Buffer.from(good.subarray(0, length));
      for (const [at, value] of changes) if (at < length) bytes[at] = value;
      try {
        flowsOf(bytes);
      } catch (error) {
        if (!(error instanceof UsageError)) throw error;
      }
    }),
    { numRuns: 2000 },
  );
});

t.test('the command', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'mp-pcap-'));
  t.teardown(() => rmSync(directory, { recursive: true, force: true }));
  const [config, capture] = [join(directory, 'c.yaml'), join(directory, 'c.pcap')];
  const rules = '  - { name: db, direction: egress, remotePort: 5432, action: drop }';
  writeFileSync(config, file({ x: `default: pass\nrules:\n${rules}` }));
  const meta = udp({ source: '10.1.0.9', target: '169.254.169.254' }, 53, 53, new Uint8Array(1));
  writeFileSync(capture, pcap(101, [syn, synAck, echo(back, 8, 1), meta]));
  const run = (...args: string[]) => {
    const command = ['dist/cli/main.js', 'explain', '--config', config, '--pcap', capture, ...args];
    return spawnSync(process.execPath, command, { encoding: 'utf8' }).stdout;
  };
  const lines = run('--local', '10.1.0.0/24')
    .split('\n')
    .map((line) => line.replace(/ {2,}/g, '  '));
  t.same(lines, [
    'connection  direction  packets  bytes  verdict  decided by',
    'tcp 10.1.0.9:4000 -> 10.2.0.7:5432  egress  2  80 B  drop  db (line 8)',
    'icmp 10.2.0.7 -> 10.1.0.9  ingress  1  32 B  pass  default (line 6)',
    'udp 10.1.0.9:53 -> 169.254.169.254:53  egress  1  29 B  pass-built-in  built-in: link-local, 169.254.0.0/16',
    '',
  ]);
  t.match(run(), /egress\? .*\n.*ingress\? /, 'both, when it is not known which end is this host');
  t.match(JSON.parse(run('--json', '--direction', 'egress')), {
    flows: [
      { connection: 'tcp 10.1.0.9:4000 -> 10.2.0.7:5432', packets: 2, verdict: 'drop' },
      {},
      {},
    ],
    leftOut: {},
  });
  writeFileSync(config, file({ x: 'policy: { rollout: 10%, established: reset }' }));
  writeFileSync(capture, pcap(101, [syn, tcp(out, { from: 1, to: 2 })]));
  const rollout = run('--direction', 'egress');
  t.match(
    rollout,
    / redirect +default\n.* reset +default\nof what says redirect, 10% of new flows/,
  );
});
