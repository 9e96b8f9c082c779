/** What we write, read again; and what others write. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import t from 'tap';
import { openOutput } from '../../cli/capture/files.ts';
import {
  enhancedPacket,
  interfaceDescription,
  interfaceStatistics,
  PacketWay,
  sectionHeader,
} from '../../cli/capture/pcapng.ts';
import { readCapture } from '../../cli/explain/capture-file.ts';
import { UsageError } from '../../cli/usage-error.ts';
import { type Ip, tcp, udp } from '../support/packets.ts';

const directory = mkdtempSync(join(tmpdir(), 'mp-pcapng-'));
t.teardown(() => rmSync(directory, { recursive: true, force: true }));

const out: Ip = { source: '10.1.0.9', target: '10.2.0.7' };
const packets = [tcp(out, { from: 4000, to: 80 }), udp(out, 1, 53, new Uint8Array(7))];
const timeMs = 1_764_000_000_123.456;

const head = Buffer.concat([
  sectionHeader('a program', 'a comment: naïve'),
  interfaceDescription('eth0', 'before', 65_535),
]);
const whole = Buffer.concat([
  head,
  ...packets.map((bytes) => enhancedPacket(0, timeMs, bytes, 1000, PacketWay.Outbound, 'why')),
  interfaceStatistics(0, timeMs, 5, 3),
]);

/** What the packets of a capture begin with. */
function lengths(bytes: Uint8Array): number[] {
  return [...readCapture(bytes, 'f').packets].map(({ captured }) => captured);
}

t.test('what is written can be read, by us and by tshark', async (t) => {
  t.same(
    lengths(whole),
    packets.map(({ length }) => length),
  );
  const file = join(directory, 'whole.pcapng');
  writeFileSync(file, whole);
  if (spawnSync('sh', ['-c', 'command -v tshark']).status !== 0) return;
  const fields = ['time_epoch', 'comment', 'len', 'cap_len', 'packet_flags_direction', 'protocols'];
  const asked = fields.flatMap((name) => ['-e', `frame.${name}`]);
  const { stdout } = spawnSync('tshark', ['-n', '-r', file, '-T', 'fields', ...asked], {
    encoding: 'utf8',
  });
  t.match(stdout.split('\n')[0], /^1764000000\.123456\d*\twhy\t1000\t40\t\S+\traw:ip:tcp$/);
  const { stdout: about } = spawnSync('capinfos', [file], { encoding: 'utf8' });
  t.match(about, /Capture application: +a program\n[\s\S]*naïve/);
  t.match(about, /Number of packets = 2/);
});

t.test('both byte orders, several sections, other blocks', async (t) => {
  const swapped = swap(whole);
  t.same(lengths(swapped), lengths(whole));
  t.same(lengths(Buffer.concat([whole, swapped])), [...lengths(whole), ...lengths(whole)]);
  const simple = Buffer.alloc(12 + 40 + 4);
  simple.writeUInt32LE(3, 0);
  simple.writeUInt32LE(simple.length, 4);
  simple.writeUInt32LE(40, 8);
  simple.set(packets[0]!.subarray(0, 40), 12);
  simple.writeUInt32LE(simple.length, simple.length - 4);
  t.same(lengths(Buffer.concat([head, simple])), [40]);
  t.same(lengths(whole.subarray(0, whole.length - 70)), [40], 'cut short');
});

t.test('what is no capture, or not of packets that we know', async (t) => {
  const ofLink = Buffer.from(whole);
  ofLink.writeUInt16LE(147, sectionHeader('a program', 'a comment: naïve').length + 8);
  const rows: [Uint8Array, RegExp][] = [
    [head.subarray(0, 8), /.*/],
    [ofLink, /^f has link type 147/],
    [Buffer.concat([head, Buffer.alloc(64, 1)]), /^f is damaged: at byte \d+ is no block/],
    [Buffer.from('hello, this is a text, and longer than a header'), /neither pcap nor pcapng/],
  ];
  for (const [bytes, problem] of rows.slice(1)) {
    t.throws(() => lengths(bytes), { name: 'Error', message: problem });
  }
  t.same(lengths(rows[0]![0]), [], 'the beginning of one');
  t.doesNotThrow(() =>
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.nat(whole.length - 1), fc.nat(255))), (changes) => {
        const bytes = Buffer.from(whole);
        for (const [at, byte] of changes) bytes[at] = byte;
        try {
          lengths(bytes);
        } catch (error) {
          return error instanceof UsageError;
        }
        return true;
      }),
      { numRuns: 2000 },
    ),
  );
});

t.test('a ring keeps the newest files, each whole', async (t) => {
  const ring = { files: 3, bytes: 1000 };
  const trailer = Buffer.from(interfaceStatistics(0, timeMs, 0, 0));
  const output = openOutput(join(directory, 'r.pcapng'), head, ring, () => trailer);
  const block = enhancedPacket(0, timeMs, packets[0]!, 40, PacketWay.Inbound, '');
  for (let i = 0; i < 60; i++) output.write(block);
  output.close(trailer);
  const kept = readdirSync(directory).filter((name) => name.startsWith('r-'));
  t.equal(kept.length, 3);
  t.notOk(kept.includes('r-00001.pcapng'));
  for (const name of kept) {
    const bytes = readFileSync(join(directory, name));
    t.ok(lengths(bytes).every((length) => length === 40) && lengths(bytes).length > 0);
    t.equal(statSync(join(directory, name)).mode & 0o777, 0o600);
  }
});

/** The same file as a big-endian host writes it. */
function swap(file: Buffer): Buffer {
  const other = Buffer.from(file);
  const words = (at: number, ...offsets: number[]) => {
    for (const offset of offsets) other.writeUInt32BE(file.readUInt32LE(at + offset), at + offset);
  };
  for (let at = 0; at < file.length; ) {
    const type = file.readUInt32LE(at);
    const size = file.readUInt32LE(at + 4);
    words(at, 0, 4, size - 4);
    if (type === 0x0a0d0d0a) words(at, 8);
    if (type === 1) other.writeUInt16BE(file.readUInt16LE(at + 8), at + 8);
    if (type === 6) words(at, 8, 12, 16, 20, 24);
    at += size;
  }
  return other;
}
