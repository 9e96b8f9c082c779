import t from 'tap';
import {
  checkIcmp,
  IcmpType,
  icmpCode,
  icmpIdentifier,
  icmpIsError,
  icmpType,
  mayAnswerWithIcmp,
  writeFragmentationNeeded,
} from '../../parsers/icmp.ts';
import * as ipv4 from '../../parsers/ipv4.ts';
import { Reason, reasonNames } from '../../parsers/reason.ts';
import * as tcp from '../../parsers/tcp.ts';
import { formatAddress, parseAddress, parsePrefix, prefixMask } from '../../parsers/text.ts';
import * as udp from '../../parsers/udp.ts';
import {
  buildIcmp,
  buildIpv4,
  buildTcp,
  buildUdp,
  client,
  faultOf,
  hex,
  packet,
  server,
  staleMemory,
} from '../model/packet.ts';

/** Where packets lie: odd, and between stale bytes. */
const at = 37;

function place(bytes: Uint8Array) {
  const memory = staleMemory(at + bytes.length + 64);
  memory.bytes.set(bytes, at);
  return { ...memory, end: at + bytes.length };
}

const syn = packet(`
  45 b8 00 30  // version 4, header 20, tos b8, total 48
  12 34 40 00  // id, DF
  40 06 9b de  // ttl 64, TCP, checksum
  0a 00 00 01  // source
  c0 a8 01 02  // destination
  9c 40 01 bb  // ports 40000, 443
  ff ff ff fe  // sequence
  80 00 00 01  // acknowledgment
  70 c2 fa f0  // header 28, CWR ECE SYN, window 64240
  ab cd 00 00  // checksum, urgent
  02 04 05 b4  // MSS 1460
  01 01 04 02  // NOP NOP SACK permitted
`);

t.test('a row per relation that checkIpv4 tests, in its order', async (t) => {
  const rows: [name: string, bytes: Uint8Array, cut: number, expected: keyof typeof Reason][] = [
    ['a whole packet', syn, 0, 'Ok'],
    ['one byte short of a minimum header', syn.slice(0, 19), 0, 'Ipv4TooShort'],
    ['nothing at all', syn.slice(0, 0), 0, 'Ipv4TooShort'],
    ['version 6', edit(syn, 0, 0x65), 0, 'Ipv4BadVersion'],
    ['version 0', edit(syn, 0, 0x05), 0, 'Ipv4BadVersion'],
    ['header of 16 bytes', edit(syn, 0, 0x44), 0, 'Ipv4BadHeaderLength'],
    ['total one byte below the header', edit(syn, 2, 0, 19), 0, 'Ipv4BadTotalLength'],
    ['total just the header', edit(syn, 2, 0, 20), 0, 'Ok'],
    ['header of 60 in a total of 48', edit(syn, 0, 0x4f), 0, 'Ipv4BadTotalLength'],
    ['header of 48 in a total of 48', edit(syn, 0, 0x4c), 0, 'Ok'],
    ['one byte short of the total', syn, 1, 'Ipv4BadTotalLength'],
    ['bytes after the total', Uint8Array.from([...syn, 0, 0, 0]), 0, 'Ok'],
  ];
  for (const [name, bytes, cut, expected] of rows) {
    const { view, end } = place(bytes);
    t.equal(reasonNames[ipv4.checkIpv4(view, at, end - cut)], reasonNames[Reason[expected]], name);
  }
});

function edit(bytes: Uint8Array, offset: number, ...values: number[]): Uint8Array {
  const copy = bytes.slice();
  copy.set(values, offset);
  return copy;
}

t.test('IPv4 getters read what the rows say', async (t) => {
  const { view } = place(syn);
  t.equal(ipv4.ipv4HeaderLength(view, at), 20);
  t.equal(ipv4.ipv4Version(view, at), 4);
  t.equal(ipv4.ipv4Tos(view, at), 0xb8);
  t.equal(ipv4.ipv4TotalLength(view, at), 48);
  t.equal(ipv4.ipv4Id(view, at), 0x1234);
  t.equal(ipv4.ipv4DontFragment(view, at), true);
  t.equal(ipv4.ipv4MoreFragments(view, at), false);
  t.equal(ipv4.ipv4FragmentOffset(view, at), 0);
  t.equal(ipv4.ipv4IsFragment(view, at), false);
  t.equal(ipv4.ipv4TimeToLive(view, at), 64);
  t.equal(ipv4.ipv4Protocol(view, at), 6);
  t.equal(ipv4.ipv4Source(view, at), client);
  t.equal(ipv4.ipv4Destination(view, at), server, 'int32: negative above 127.255.255.255');
});

t.test('IPv4 is written over stale bytes, every one of them', async (t) => {
  const { bytes, view } = staleMemory(128);
  ipv4.writeIpv4(view, at, 0xb8, 48, 0x1234, true, 64, 6, client, server);
  t.equal(hex(bytes.slice(at, at + 20)), hex(buildIpv4Header()));
  t.equal(bytes[at - 1], 0xa5);
  t.equal(bytes[at + 20], 0xa5);
  t.equal(ipv4.ipv4ChecksumOk(view, at), true);
  for (const offset of [0, 1, 2, 8, 10, 12, 19]) {
    bytes[at + offset]! ^= 0x10;
    t.equal(ipv4.ipv4ChecksumOk(view, at), false, `byte ${offset}`);
    bytes[at + offset]! ^= 0x10;
  }
  ipv4.setIpv4Tos(view, at, 1);
  ipv4.setIpv4Id(view, at, 2);
  ipv4.setIpv4TotalLength(view, at, 3000);
  ipv4.setIpv4Fragment(view, at, 1480, true);
  ipv4.finishIpv4Checksum(view, at);
  t.equal(ipv4.ipv4Tos(view, at), 1);
  t.equal(ipv4.ipv4Id(view, at), 2);
  t.equal(ipv4.ipv4TotalLength(view, at), 3000);
  t.equal(ipv4.ipv4FragmentOffset(view, at), 1480);
  t.equal(ipv4.ipv4MoreFragments(view, at), true);
  t.equal(ipv4.ipv4DontFragment(view, at), true, 'kept');
  t.equal(ipv4.ipv4ChecksumOk(view, at), true);
  ipv4.setIpv4Fragment(view, at, 65528, false);
  t.equal(ipv4.ipv4FragmentOffset(view, at), 65528);
  t.equal(ipv4.ipv4IsFragment(view, at), true);
});

function buildIpv4Header(): Uint8Array {
  const fields = { tos: 0xb8, id: 0x1234, dontFragment: true, ttl: 64, protocol: 6 };
  return buildIpv4(fields, new Uint8Array(28)).slice(0, 20);
}

t.test('TCP: check, getters and setters', async (t) => {
  const { view, end } = place(syn);
  const tcpAt = at + 20;
  const rows: [name: string, bytes: Uint8Array, cut: number, expected: Reason][] = [
    ['whole', syn, 0, Reason.Ok],
    ['one byte short of its options', syn, 1, Reason.TcpBadHeaderLength],
    ['one byte short of a minimum header', syn, 9, Reason.TcpTooShort],
    ['header of 16 bytes', edit(syn, 32, 0x40), 0, Reason.TcpBadHeaderLength],
    ['header of 20 bytes', edit(syn, 32, 0x50), 8, Reason.Ok],
    ['header of 60 bytes', edit(syn, 32, 0xf0), 0, Reason.TcpBadHeaderLength],
  ];
  for (const [name, bytes, cut, expected] of rows) {
    const placed = place(bytes);
    t.equal(tcp.checkTcp(placed.view, tcpAt, placed.end - cut), expected, name);
  }
  t.equal(tcp.checkTcp(view, tcpAt, end), Reason.Ok);
  t.equal(tcp.tcpSourcePort(view, tcpAt), 40000);
  t.equal(tcp.tcpDestinationPort(view, tcpAt), 443);
  t.equal(tcp.tcpSequence(view, tcpAt), 0xfffffffe);
  t.equal(tcp.tcpAcknowledgment(view, tcpAt), 0x80000001);
  t.equal(tcp.tcpHeaderLength(view, tcpAt), 28);
  t.equal(tcp.tcpFlags(view, tcpAt), tcp.TcpFlag.Cwr | tcp.TcpFlag.Ece | tcp.TcpFlag.Syn);
  t.equal(tcp.tcpOffsetAndFlags(view, tcpAt), 0x70c2);
  t.equal(tcp.tcpWindow(view, tcpAt), 64240);
  t.equal(tcp.tcpChecksum(view, tcpAt), 0xabcd);
  tcp.setTcpSequence(view, tcpAt, 0xfffffffe + 3);
  tcp.setTcpFlags(view, tcpAt, tcp.TcpFlag.Fin);
  tcp.setTcpChecksum(view, tcpAt, 0x0102);
  t.equal(tcp.tcpSequence(view, tcpAt), 1, 'sequence numbers wrap');
  t.equal(tcp.tcpFlags(view, tcpAt), tcp.TcpFlag.Fin);
  t.equal(tcp.tcpChecksum(view, tcpAt), 0x0102);
});

t.test('UDP: check, getters, setters, writing', async (t) => {
  const datagram = packet('9c40 0035 000a ffff 0102'); // ports 40000 and 53, 10 bytes
  const rows: [name: string, bytes: Uint8Array, cut: number, expected: Reason][] = [
    ['whole', datagram, 0, Reason.Ok],
    ['one byte short of the header', datagram, 3, Reason.UdpTooShort],
    ['one byte short of its length', datagram, 1, Reason.UdpBadLength],
    ['length 7', edit(datagram, 4, 0, 7), 0, Reason.UdpBadLength],
    ['length 8', edit(datagram, 4, 0, 8), 0, Reason.Ok],
    ['bytes after its length', edit(datagram, 4, 0, 9), 0, Reason.Ok],
  ];
  for (const [name, bytes, cut, expected] of rows) {
    const { view, end } = place(bytes);
    t.equal(udp.checkUdp(view, at, end - cut), expected, name);
  }
  const { bytes, view } = staleMemory(64);
  udp.writeUdp(view, at, 40000, 53, 10, 0xfffe);
  t.equal(hex(bytes.slice(at - 1, at + 9)), 'a59c400035000afffea5');
  t.equal(udp.udpSourcePort(view, at), 40000);
  t.equal(udp.udpDestinationPort(view, at), 53);
  t.equal(udp.udpLength(view, at), 10);
  t.equal(udp.udpChecksum(view, at), 0xfffe);
  udp.setUdpLength(view, at, 11);
  udp.setUdpChecksum(view, at, 0);
  t.equal(hex(bytes.slice(at, at + 8)), '9c400035000b0000');
});

t.test('ICMP: check, getters and which types are errors', async (t) => {
  const { view, end } = place(packet('08 00 1234 abcd 0001'));
  t.equal(checkIcmp(view, at, end), Reason.Ok);
  t.equal(checkIcmp(view, at, end - 1), Reason.IcmpTooShort, 'one byte short');
  t.equal(icmpType(view, at), IcmpType.Echo);
  t.equal(icmpCode(view, at), 0);
  t.equal(icmpIdentifier(view, at), 0xabcd);
  const errors = Array.from({ length: 256 }, (_, type) => type).filter(icmpIsError);
  t.same(errors, [3, 4, 5, 11, 12]);
});

t.test('what may be answered with an ICMP error (RFC 1812 section 4.3.2.7)', async (t) => {
  const quote = buildUdp({}, [1, 2, 3]);
  const rows: [name: string, bytes: Uint8Array, expected: boolean][] = [
    ['UDP to a host', quote, true],
    ['TCP to a host', buildTcp({}, []), true],
    ['an echo', buildIcmp(8, 0, [0, 1, 0, 1]), true],
    ['an ICMP error', buildIcmp(3, 1, [0, 0, 0, 0, ...quote]), false],
    ['ICMP too short to tell', buildIpv4({ protocol: 1 }, []), false],
    ['a first fragment', buildUdp({}, [1], { more: true }), true],
    ['a later fragment', buildIpv4({ protocol: 17, offset: 8 }, [1]), false],
    ['to multicast', buildUdp({}, [1], { destination: 0xe0000001 | 0 }), false],
    ['to broadcast', buildUdp({}, [1], { destination: -1 }), false],
    ['from 0.0.0.0', buildUdp({}, [1], { source: 0 }), false],
    ['from loopback', buildUdp({}, [1], { source: 0x7f000001 }), false],
    ['from multicast', buildUdp({}, [1], { source: 0xe0000001 | 0 }), false],
    ['from broadcast', buildUdp({}, [1], { source: -1 }), false],
    ['from 223.255.255.255', buildUdp({}, [1], { source: 0xdfffffff | 0 }), true],
  ];
  for (const [name, bytes, expected] of rows) {
    t.equal(mayAnswerWithIcmp(place(bytes).view, at), expected, name);
  }
});

t.test('fragmentation needed is a complete packet that quotes up to 576 bytes', async (t) => {
  for (const payload of [0, 12, 519, 520, 521, 1400]) {
    const offending = buildUdp({}, new Uint8Array(payload).fill(7), { dontFragment: true });
    const { bytes, view } = staleMemory(4096);
    bytes.set(offending, 2001);
    const length = writeFragmentationNeeded(
      bytes,
      view,
      at,
      2001,
      offending.length,
      1452,
      server,
      client,
      0x77,
    );
    const answer = bytes.slice(at, at + length);
    const quoted = Math.min(offending.length, 548);
    t.equal(length, 28 + quoted);
    t.equal(faultOf(answer), '');
    t.equal(hex(answer.slice(0, 2)), '45c0');
    t.equal(hex(answer.slice(8, 10)), '4001');
    t.equal(hex(answer.slice(12, 20)), 'c0a801020a000001');
    t.equal(hex(answer.slice(20, 22)), '0304');
    t.equal(hex(answer.slice(24, 28)), '000005ac', 'next-hop MTU 1452');
    t.equal(hex(answer.slice(28)), hex(offending.slice(0, quoted)));
    t.equal(bytes[at + length], 0xa5);
  }
});

t.test('addresses and prefixes as text', async (t) => {
  const good: [string, number][] = [
    ['0.0.0.0', 0],
    ['10.0.0.1', client],
    ['192.168.1.2', server],
    ['255.255.255.255', -1],
  ];
  for (const [text, address] of good) {
    t.equal(parseAddress(text), address, text);
    t.equal(formatAddress(address), text);
  }
  const bad = ['', '1', '1.2.3', '1.2.3.4.5', '1.2.3.256', '01.2.3.4', '1.2.3.-4', ' 1.2.3.4'];
  for (const text of [...bad, '1.2.3.4 ', '0x1.2.3.4', '1..3.4', '1.2.3.4\n', '1e1.2.3.4']) {
    t.equal(parseAddress(text), undefined, JSON.stringify(text));
  }
  t.same(parsePrefix('10.0.0.0/8'), { address: 0x0a000000, length: 8 });
  t.same(parsePrefix('10.0.0.1'), { address: client, length: 32 });
  t.same(parsePrefix('0.0.0.0/0'), { address: 0, length: 0 });
  t.same(parsePrefix('10.0.0.1/8'), { address: client, length: 8 }, 'host bits are kept');
  for (const text of ['10.0.0.0/', '10.0.0.0/33', '10.0.0.0/08', '10.0.0.0/8/8', '/8', '1/-1']) {
    t.equal(parsePrefix(text), undefined, text);
  }
  t.equal(prefixMask(0), 0);
  t.equal(prefixMask(1), 0x80000000 | 0);
  t.equal(prefixMask(24), 0xffffff00 | 0);
  t.equal(prefixMask(32), -1);
});
