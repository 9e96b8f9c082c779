/** tshark as the decoder that is not ours. */
import { execFileSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { buildUdp } from '../model/packet.ts';

/** Why a test must be skipped, or false. */
export function tsharkMissing(): string | false {
  try {
    execFileSync('tshark', ['--version'], { stdio: 'ignore' });
    return false;
  } catch {
    return 'tshark is not installed';
  }
}

/** A line for each UDP payload: its fields, separated by `|`; checksums are checked. */
export function decodeDatagrams(
  directory: string,
  payloads: readonly [payload: Uint8Array, port: number][],
  fields: readonly string[],
): string[] {
  const file = join(directory, 'datagrams.pcap');
  writeFileSync(file, capture(payloads));
  const checks = ['ip.check_checksum', 'tcp.check_checksum', 'udp.check_checksum'];
  const options = checks.flatMap((name) => ['-o', `${name}:TRUE`]);
  const columns = fields.flatMap((name) => ['-e', name]);
  const output = execFileSync(
    'tshark',
    ['-n', '-r', file, '-T', 'fields', '-E', 'separator=|', ...options, ...columns],
    { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] },
  );
  return output.trimEnd().split('\n');
}

/** A capture of link type 228 (raw IPv4): each payload in an outer UDP packet. */
function capture(payloads: readonly [payload: Uint8Array, port: number][]): Buffer {
  const header = Buffer.alloc(24);
  header.writeUInt32LE(0xa1b2c3d4, 0);
  header.writeUInt16LE(2, 4);
  header.writeUInt16LE(4, 6);
  header.writeUInt32LE(65535, 16);
  header.writeUInt32LE(228, 20);
  const records = payloads.flatMap(([payload, port]) => {
    const outer = buildUdp({ sourcePort: 50000, destinationPort: port }, payload);
    const record = Buffer.alloc(16);
    record.writeUInt32LE(outer.length, 8);
    record.writeUInt32LE(outer.length, 12);
    return [record, Buffer.from(outer)];
  });
  return Buffer.concat([header, ...records]);
}
