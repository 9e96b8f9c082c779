/**
 * The corpus: packets by name, with what the kernel says of each in its virtio header. Here those
 * that can be written down by their fields; test/golden/corpus holds captured ones and those that
 * once broke something. What the fuzzers try is made of these.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import {
  echo,
  fragments,
  type Ip,
  icmp,
  ipv4,
  mssOption,
  TCP,
  tcp,
  udp,
} from '../support/packets.ts';

/** gso_type of a virtio header (include/uapi/linux/virtio_net.h). */
export const VirtioGso = { None: 0, Tcp4: 1, UdpFragment: 3, Tcp6: 4, UdpL4: 5, Ecn: 0x80 };

export type Sample = {
  readonly name: string;
  readonly bytes: Buffer;
  /** VirtioGso. */
  readonly gso: number;
  readonly gsoSize: number;
  /** 0: VIRTIO_NET_HDR_F_NEEDS_CSUM is not set. */
  readonly checksumStart: number;
  readonly checksumOffset: number;
};

/** The ECN bit says nothing of the kind. */
export function gsoKind({ gso }: Sample): number {
  return gso & ~VirtioGso.Ecn;
}

export const corpusFolder = 'test/golden/corpus';
/** Who sends a packet that goes out, and one that comes in. */
const outward: Ip = { source: '10.1.0.10', target: '10.2.0.20' };
const inward: Ip = { source: '10.2.0.20', target: '10.1.0.10' };

const hex = (digits: string) => Buffer.from(digits, 'hex');
const zeros = (length: number) => Buffer.alloc(length);
const counted = (length: number) => Buffer.from(Array.from({ length }, (_, i) => i & 255));
const ports = { from: 40000, to: 80 };
const timestamps = hex('0101080a0000001200000034');
/** MSS 1460 at an odd place, SACK permitted, timestamps, window scale. */
const synOptions = Buffer.concat([
  hex('01'),
  mssOption(1460),
  hex('0402080a'),
  zeros(8),
  hex('030307'),
  zeros(2),
]);
const allOptions = Buffer.concat([
  hex('01010512'),
  counted(16),
  hex('080a'),
  zeros(8),
  hex('0101'),
  zeros(8),
]);
/** Record route with three places, router alert, timestamp: the first and the last not copied. */
const ipOptions = hex(
  '070f0400000000000000000000000000' + '94040000' + '440c050000000000000000000000',
);

function sample(name: string, bytes: Buffer, extra: Partial<Sample> = {}): Sample {
  return { name, bytes, gso: 0, gsoSize: 0, checksumStart: 0, checksumOffset: 0, ...extra };
}

function superTcp(name: string, length: number, gsoSize: number, flags = TCP.ACK): Sample {
  const payload = counted(length);
  const bytes = tcp(outward, { ...ports, flags, options: timestamps, payload, partial: true });
  return sample(name, bytes, { gso: 1, gsoSize, checksumStart: 20, checksumOffset: 16 });
}

/** Leaves only the sum of the pseudo-header in a UDP packet's checksum, as for offload. */
function partialUdp(packet: Buffer): Buffer {
  const total = packet.length - 20;
  let sum = 17 + total;
  for (let at = 12; at < 20; at += 2) sum += packet.readUInt16BE(at);
  packet.writeUInt16BE((sum & 0xffff) + (sum >>> 16), 26);
  return packet;
}

function superUdp(name: string, length: number, gsoSize: number): Sample {
  const bytes = partialUdp(udp({ ...outward, df: true }, 40000, 443, counted(length)));
  return sample(name, bytes, { gso: 5, gsoSize, checksumStart: 20, checksumOffset: 6 });
}

function quoting(name: string, type: number, code: number, packet: Buffer): Sample {
  const rest = Buffer.concat([hex('00000578'), packet.subarray(0, 48)]);
  return sample(name, icmp({ source: '10.1.0.1', target: '10.1.0.10' }, type, code, rest));
}

function tcpSamples(): Sample[] {
  const open = tcp(outward, { ...ports, flags: TCP.SYN, options: synOptions });
  const partial = { checksumStart: 20, checksumOffset: 16 };
  const answer = { from: 80, to: 40000, flags: TCP.SYN | TCP.ACK, options: mssOption(8960) };
  const data = { ...ports, options: timestamps };
  return [
    sample('tcp-syn', open),
    sample(
      'tcp-syn-partial',
      tcp(outward, { ...ports, flags: TCP.SYN, options: mssOption(1460), partial: true }),
      partial,
    ),
    sample('tcp-syn-ack', tcp(inward, answer)),
    sample('tcp-ack', tcp(outward, ports)),
    sample('tcp-data', tcp(outward, { ...data, payload: counted(700) })),
    sample('tcp-data-answer', tcp(inward, { from: 80, to: 40000, payload: counted(33) })),
    sample('tcp-data-too-big', tcp(inward, { from: 80, to: 40000, payload: counted(1460) })),
    sample('tcp-fin', tcp(outward, { ...data, flags: TCP.FIN | TCP.ACK | TCP.PSH })),
    sample('tcp-reset', tcp(inward, { from: 80, to: 40000, flags: TCP.RST })),
    sample('tcp-urgent', tcp(outward, { ...data, flags: TCP.URG | TCP.ACK, payload: counted(9) })),
    sample('tcp-options', tcp(outward, { ...ports, options: allOptions, payload: counted(5) })),
    sample('tcp-ip-options', tcp({ ...outward, options: ipOptions }, { ...ports, flags: TCP.SYN })),
    sample('tcp-management', tcp({ ...outward, target: '192.0.2.7' }, { from: 22, to: 5000 })),
  ];
}

function superSamples(): Sample[] {
  return [
    superTcp('super-tcp', 4000, 1000),
    superTcp('super-tcp-push-cwr', 3001, 1448, TCP.ACK | TCP.PSH | TCP.CWR),
    superTcp('super-tcp-one-byte', 90, 1),
    superTcp('super-tcp-largest', 65535 - 52, 1448),
    superUdp('super-udp', 3000, 1000),
    superUdp('super-udp-largest', 65507, 1400),
  ];
}

function otherSamples(): Sample[] {
  const query = udp(outward, 40000, 53, counted(40));
  const big = udp({ ...outward, id: 7 }, 40001, 53, counted(3000));
  const none = udp(outward, 40000, 53, counted(3));
  none.writeUInt16BE(0, 26);
  const inner = tcp(outward, { ...ports, payload: counted(64) });
  const geneve = Buffer.concat([hex('0300080000bead00fff120020000000089abcdef'), inner]);
  const vxlan = Buffer.concat([hex('08000000000064000200000000020200000000010800'), inner]);
  const nested = Buffer.concat([geneve.subarray(0, 20), udp(outward, 50000, 6081, geneve)]);
  const tunnel = { ...outward, target: '10.9.0.4' };
  return [
    sample('udp-query', query),
    sample('udp-answer', udp(inward, 53, 40000, counted(120))),
    sample('udp-empty', udp(outward, 40000, 53, zeros(0))),
    sample('udp-no-checksum', none),
    sample('udp-partial', partialUdp(udp(outward, 40000, 53, counted(77))), {
      checksumStart: 20,
      checksumOffset: 6,
    }),
    sample('udp-largest', udp(outward, 40000, 53, counted(65507))),
    sample('udp-too-big-df', udp({ ...outward, df: true }, 40000, 443, counted(2000))),
    sample(
      'udp-too-big-options',
      udp({ ...outward, options: ipOptions }, 40000, 443, counted(2000)),
    ),
    ...fragments(big, 1500, { ...outward, id: 7 }).map((part, i) =>
      sample(`udp-fragment-${i}`, part),
    ),
    ...fragments(inner, 68, { ...outward, id: 9 }).map((part, i) =>
      sample(`tcp-fragment-${i}`, part),
    ),
    sample('fragment-at-the-end', ipv4({ ...outward, id: 7, offset: 65528 - 8 }, 17, counted(7))),
    sample('icmp-echo', echo(outward, 8, 77)),
    sample('icmp-echo-reply', echo(inward, 0, 77)),
    quoting('icmp-too-big', 3, 4, inner),
    quoting('icmp-unreachable', 3, 3, query),
    quoting('icmp-time-exceeded', 11, 0, echo(outward, 8, 77)),
    quoting('icmp-about-tunnel', 3, 4, udp(tunnel, 33000, 6081, zeros(20))),
    sample('gre', ipv4(outward, 47, hex('0000080045000014'))),
    sample('esp', ipv4(outward, 50, counted(64))),
    sample('sctp', ipv4(outward, 132, counted(28))),
    sample('igmp', ipv4({ ...outward, target: '224.0.0.22' }, 2, counted(8))),
    sample('header-alone', ipv4(outward, 255, zeros(0))),
    sample('dhcp', udp({ source: '0.0.0.0', target: '255.255.255.255' }, 68, 67, counted(240))),
    sample('tunnel-itself', udp(tunnel, 33000, 6081, geneve)),
    sample('geneve-of-others', udp(outward, 33000, 6081, geneve)),
    sample('geneve-in-geneve', udp(outward, 33000, 6081, nested)),
    sample('vxlan-of-others', udp(outward, 33000, 4789, vxlan)),
  ];
}

/** What the tunnel's socket may receive, without outer headers. */
export function datagramSamples(): Sample[] {
  const inner = tcp(inward, { from: 80, to: 40000, payload: counted(64) });
  const cases: [name: string, header: string][] = [
    ['geneve-ours', '0300080000bead00fff120020000010089abcdef'],
    ['geneve-no-options', '0000080000bead00'],
    ['geneve-other-vni', '0300080000000100fff120020000010089abcdef'],
    ['geneve-control', '0380080000bead00fff120020000010089abcdef'],
    ['geneve-other-option', '0500080000bead000102030100000000fff120020000010089abcdef'],
    ['geneve-critical-option', '0540080000bead000102830100000000fff120020000010089abcdef'],
    ['geneve-option-too-long', '0300080000bead00fff1201f0000010089abcdef'],
    ['geneve-version-1', '4300080000bead00fff120020000010089abcdef'],
    ['geneve-ethernet', '0300655800bead00fff120020000010089abcdef0200000000020200000000010800'],
    ['vxlan-egress', '08000000000064000200000000020200000000010800'],
    ['vxlan-ingress', '08000000000065000200000000020200000000010800'],
    ['vxlan-no-vni', '00000000000064000200000000020200000000010800'],
  ];
  return cases.map(([name, header]) => sample(name, Buffer.concat([hex(header), inner])));
}

/** A saved packet, as test/golden/corpus has them. */
export type SavedSample = Partial<Omit<Sample, 'bytes'>> & { readonly hex: string };
export type SavedCase = { readonly about: string; readonly packets: readonly SavedSample[] };

/** How the name of a failed case's file ends. It is not in the corpus until somebody renames it. */
export const failedSuffix = '.failed.json';

/** The packets of test/golden/corpus. */
function savedSamples(): Sample[] {
  return readdirSync(corpusFolder)
    .filter((file) => file.endsWith('.json') && !file.endsWith(failedSuffix))
    .sort()
    .flatMap((file) => {
      const saved = JSON.parse(readFileSync(join(corpusFolder, file), 'utf8')) as SavedCase;
      return saved.packets.map(({ hex: digits, name, ...rest }, index) =>
        sample(name ?? `${file} ${index}`, hex(digits), rest),
      );
    });
}

/** Of an Internet host; those of test/golden/corpus too. */
export function packetSamples(): Sample[] {
  return [...tcpSamples(), ...superSamples(), ...otherSamples(), ...savedSamples()];
}
