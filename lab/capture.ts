/**
 * What is seen on the wire, by eyes that are not ours: tcpdump records, tshark decodes. Nothing
 * here knows a header; questions are display filters, answers are tshark's fields.
 */
import { join } from 'node:path';
import type { Namespace } from './namespace.ts';
import { type Program, pause, start, until } from './program.ts';

export type CaptureOptions = {
  readonly interface?: string;
  /** pcap filter; everything by default. */
  readonly filter?: string;
};

/** How long tcpdump may take to open the interface, and to write down what it has seen. */
const openLimitMs = 3000;
const settleMs = 150;

/** Each segment is looked at by itself: a tunnel capture has every segment twice, on purpose. */
const tsharkSettings = ['-o', 'tcp.desegment_tcp_streams:FALSE', '-o', 'tcp.check_checksum:TRUE'];
const checksumSettings = ['-o', 'ip.check_checksum:TRUE'];
/** Azure's ports of VXLAN, which tshark does not know. */
const portSettings = ['-d', 'udp.port==10800,vxlan', '-d', 'udp.port==10801,vxlan'];

export class Capture {
  readonly path: string;
  private readonly host: Namespace;
  private readonly program: Program;

  constructor(host: Namespace, program: Program, path: string) {
    this.host = host;
    this.program = program;
    this.path = path;
  }

  /** Everything on the wire so far is in the file when this returns. */
  async stop(): Promise<void> {
    await pause(settleMs);
    await this.program.stop('SIGINT');
  }

  /**
   * For each packet that the display filter selects, the fields asked for; a field that occurs more
   * than once (outer and inner header) has its values joined by commas, outermost first.
   */
  async read(displayFilter: string, fields: readonly string[]): Promise<string[][]> {
    const columns = fields.flatMap((field) => ['-e', field]);
    const settings = [...tsharkSettings, ...checksumSettings, ...portSettings];
    const args = ['-n', '-r', this.path, ...settings, '-Y', displayFilter, '-T', 'fields'];
    const rows: string[][] = [];
    // Line by line: what is collected as a whole is only its end.
    const onLine = (line: string) => {
      if (line !== '') rows.push(line.split('\t'));
    };
    const tshark = start(this.host, 'tshark', [...args, ...columns], { onLine });
    tshark.child.stdin?.end();
    if ((await tshark.ended) !== 0) throw new Error(`tshark: ${tshark.errors.trim()}`);
    return rows;
  }

  async count(displayFilter: string): Promise<number> {
    return (await this.read(displayFilter, ['frame.number'])).length;
  }
}

/** Records from now on: packets on the interface are seen when this returns. */
export async function startCapture(
  host: Namespace,
  directory: string,
  name: string,
  options: CaptureOptions = {},
): Promise<Capture> {
  const path = join(directory, `${name}.pcap`);
  const args = ['-p', '-n', '-U', '--immediate-mode', '-Z', 'root', '-s', '0'];
  args.push('-i', options.interface ?? 'eth0', '-w', path);
  if (options.filter !== undefined) args.push(options.filter);
  const program = start(host, 'tcpdump', args);
  await until(`tcpdump in ${host.name}`, openLimitMs, () => {
    if (program.exitCode !== undefined) throw new Error(`tcpdump: ${program.errors.trim()}`);
    return program.errors.includes('listening on');
  });
  return new Capture(host, program, path);
}
