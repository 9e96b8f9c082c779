import fc from 'fast-check';
import t from 'tap';
import { createFlowKey, type FlowKey, KeyKind, readFlowKey } from '../../parsers/flow-key.ts';
import { checkIpv4 } from '../../parsers/ipv4.ts';
import { Reason, reasonNames } from '../../parsers/reason.ts';
import {
  buildIcmp,
  buildIpv4,
  buildTcp,
  buildUdp,
  client,
  server,
  staleMemory,
} from '../model/packet.ts';

const at = 21;

/** A key whose every field is wrong, so that one that was not assigned shows. */
function staleKey(): FlowKey {
  const stale = -7;
  return {
    source: stale,
    destination: stale,
    sourcePort: stale,
    destinationPort: stale,
    protocol: stale,
    kind: KeyKind.IcmpError,
    transportAt: stale,
    end: stale,
  };
}

function read(bytes: Uint8Array): { key: FlowKey; reason: Reason } {
  const memory = staleMemory(at + bytes.length + 100);
  memory.bytes.set(bytes, at);
  const checked = checkIpv4(memory.view, at, at + bytes.length);
  if (checked !== Reason.Ok) throw new Error(`bad row: ${reasonNames[checked]}`);
  const key = staleKey();
  return { key, reason: readFlowKey(memory.view, at, key) };
}

const word = (value: number) => [value >>> 8, value & 255];
const udpQuote = buildUdp({ sourcePort: 111, destinationPort: 222 }, [1, 2, 3]);
const tcpQuote = buildTcp({ sourcePort: 111, destinationPort: 222 }, [1, 2, 3]);
const echoQuote = buildIcmp(8, 0, [...word(0x4242), 0, 1]);
const back = { source: 0x08080808, destination: client };
/** An ICMP error from a router back to the client about `quote`. */
const error = (quote: Uint8Array | number[], type = 3) =>
  buildIcmp(type, 1, [0, 0, 0, 0, ...quote], back);
/** Key of what travels from the server back to the client, as the errors do. */
const reversed = { source: server, destination: client };

type Row = [name: string, bytes: Uint8Array, expected: keyof typeof Reason, key: Partial<FlowKey>];
const rows: Row[] = [
  [
    'TCP',
    buildTcp({}, [1]),
    'Ok',
    { kind: 0, protocol: 6, sourcePort: 40000, destinationPort: 443, transportAt: at + 20 },
  ],
  [
    'TCP behind 4 bytes of IP options',
    buildTcp({}, [1], { options: [1, 1, 1, 0] }),
    'Ok',
    { sourcePort: 40000, destinationPort: 443, transportAt: at + 24, end: at + 45 },
  ],
  ['UDP', buildUdp({}, []), 'Ok', { protocol: 17, sourcePort: 40000, destinationPort: 53 }],
  ['an echo', echoQuote, 'Ok', { protocol: 1, sourcePort: 0x4242, destinationPort: 0x4242 }],
  [
    'an echo reply',
    buildIcmp(0, 0, [...word(0x4242), 0, 1]),
    'Ok',
    { sourcePort: 0x4242, destinationPort: 0x4242 },
  ],
  [
    'a timestamp',
    buildIcmp(13, 0, [0, 9, 0, 0]),
    'Ok',
    { sourcePort: 9, destinationPort: 9, kind: 0 },
  ],
  [
    'a router advertisement has no identifier',
    buildIcmp(9, 0, [1, 2, 3, 4]),
    'Ok',
    { sourcePort: 0, destinationPort: 0, kind: 0 },
  ],
  [
    'another protocol',
    buildIpv4({ protocol: 47 }, [1, 2]),
    'Ok',
    { protocol: 47, sourcePort: 0, destinationPort: 0, kind: 0 },
  ],
  ['another protocol, empty', buildIpv4({ protocol: 47 }, []), 'Ok', { end: at + 20 }],

  ['TCP one byte short', buildIpv4({ protocol: 6 }, new Uint8Array(19)), 'TcpTooShort', {}],
  ['TCP header of 0', buildIpv4({ protocol: 6 }, new Uint8Array(20)), 'TcpBadHeaderLength', {}],
  ['UDP one byte short', buildIpv4({ protocol: 17 }, new Uint8Array(7)), 'UdpTooShort', {}],
  ['UDP length 0', buildIpv4({ protocol: 17 }, new Uint8Array(8)), 'UdpBadLength', {}],
  [
    'UDP length past the end',
    buildIpv4({ protocol: 17 }, [0, 1, 0, 2, 0, 9, 0, 0]),
    'UdpBadLength',
    {},
  ],
  ['ICMP one byte short', buildIpv4({ protocol: 1 }, new Uint8Array(7)), 'IcmpTooShort', {}],

  [
    'a first fragment of TCP',
    buildTcp({}, [1, 2, 3, 4], { more: true }),
    'Ok',
    { kind: 1, sourcePort: 40000 },
  ],
  [
    'a first fragment of UDP whose length is past it',
    buildIpv4({ protocol: 17, more: true }, [0, 1, 0, 2, 9, 9, 0, 0]),
    'Ok',
    { kind: 1, sourcePort: 1, destinationPort: 2 },
  ],
  [
    'a first fragment of UDP whose length is 7',
    buildIpv4({ protocol: 17, more: true }, [0, 1, 0, 2, 0, 7, 0, 0]),
    'UdpBadLength',
    { kind: 1 },
  ],
  [
    'a first fragment of an echo',
    buildIcmp(8, 0, [0, 5, 0, 0], { more: true }),
    'Ok',
    { kind: 1, sourcePort: 5 },
  ],
  [
    'a first fragment with 16 bytes of TCP',
    buildIpv4({ protocol: 6, more: true }, new Uint8Array(16).fill(0x50)),
    'FragmentTiny',
    { kind: 1, sourcePort: 0 },
  ],
  [
    'a first fragment that cuts the TCP options',
    buildIpv4({ protocol: 6, more: true }, new Uint8Array(24).fill(0x70)),
    'FragmentTiny',
    {},
  ],
  [
    'a first fragment of UDP without any',
    buildIpv4({ protocol: 17, more: true }, []),
    'FragmentTiny',
    {},
  ],
  [
    'a first fragment of ICMP without any',
    buildIpv4({ protocol: 1, more: true }, []),
    'FragmentTiny',
    {},
  ],
  [
    'a first fragment of an ICMP error',
    buildIcmp(3, 1, [0, 0, 0, 0, ...udpQuote, 0], { more: true }),
    'IcmpTooShort',
    { kind: 1 },
  ],
  [
    'a later fragment',
    buildTcp({}, [], { offset: 24, more: true }),
    'Ok',
    { kind: 2, protocol: 6, sourcePort: 0, destinationPort: 0, source: client },
  ],
  ['a last fragment', buildIpv4({ protocol: 17, offset: 8 }, [1]), 'Ok', { kind: 2 }],
  [
    'TCP at offset 8',
    buildIpv4({ protocol: 6, offset: 8 }, new Uint8Array(16)),
    'FragmentOverlap',
    { kind: 2 },
  ],
  ['TCP at offset 16', buildIpv4({ protocol: 6, offset: 16 }, [1]), 'FragmentOverlap', {}],

  [
    'an error about UDP',
    error(udpQuote),
    'Ok',
    { ...reversed, kind: 3, protocol: 17, sourcePort: 222, destinationPort: 111 },
  ],
  [
    'an error about TCP, 8 bytes of it quoted',
    error(tcpQuote.slice(0, 28), 11),
    'Ok',
    { ...reversed, kind: 3, protocol: 6, sourcePort: 222, destinationPort: 111 },
  ],
  [
    'an error about TCP behind IP options',
    error(buildTcp({ sourcePort: 111, destinationPort: 222 }, [], { options: [1, 1, 1, 0] }), 12),
    'Ok',
    { ...reversed, sourcePort: 222, destinationPort: 111, transportAt: at + 20 },
  ],
  [
    'an error about an echo',
    error(echoQuote),
    'Ok',
    { ...reversed, kind: 3, protocol: 1, sourcePort: 0x4242, destinationPort: 0x4242 },
  ],
  [
    'an error about a later fragment',
    error(buildIpv4({ protocol: 17, offset: 8 }, [1])),
    'Ok',
    { ...reversed, kind: 3, protocol: 17, sourcePort: 0, destinationPort: 0 },
  ],
  [
    'an error about another protocol, header alone',
    error(buildIpv4({ protocol: 47 }, [])),
    'Ok',
    { ...reversed, kind: 3, protocol: 47, sourcePort: 0 },
  ],
  ['an error with one byte too little of TCP', error(tcpQuote.slice(0, 27)), 'IcmpTooShort', {}],
  ['an error with one byte too little of UDP', error(udpQuote.slice(0, 27)), 'IcmpTooShort', {}],
  ['an error with one byte too little of ICMP', error(echoQuote.slice(0, 27)), 'IcmpTooShort', {}],
  ['an error with 19 bytes of IPv4', error(udpQuote.slice(0, 19)), 'IcmpTooShort', { kind: 3 }],
  ['an error that quotes IPv6', error([0x60, ...udpQuote.slice(1)]), 'IcmpTooShort', {}],
  ['an error whose quoted header is 16', error([0x44, ...udpQuote.slice(1)]), 'IcmpTooShort', {}],
  ['an error whose quoted header is 60', error([0x4f, ...udpQuote.slice(1)]), 'IcmpTooShort', {}],
];

t.test('keys of packets, fragments and errors', async (t) => {
  for (const [name, bytes, expected, fields] of rows) {
    const { key, reason } = read(bytes);
    t.equal(reasonNames[reason], reasonNames[Reason[expected]], name);
    t.match(key, fields, name);
    t.equal(Object.values(key).includes(-7), false, `${name}: every field assigned`);
    t.equal(key.end, fields.end ?? at + bytes.length, name);
  }
});

t.test('a fresh key has the fields of a filled one', async (t) => {
  t.same(Object.keys(createFlowKey()), Object.keys(read(udpQuote).key));
});

t.test('whatever the bytes, reading stays inside the packet and fills the key', async () => {
  const protocols = fc.constantFrom(1, 6, 17, 47);
  const offsets = fc.constantFrom(0, 0, 8, 16, 24, 800);
  const bytes = fc.uint8Array({ maxLength: 80 });
  fc.assert(
    fc.property(protocols, offsets, fc.boolean(), bytes, (protocol, offset, more, payload) => {
      if (protocol === 1 && payload.length > 8) payload.set([3, 1], 0);
      if (protocol === 1 && payload.length > 17) payload.set([0x45], 8);
      const whole = buildIpv4({ protocol, offset, more }, payload);
      // The packet ends with the memory: a read past its end throws.
      const view = new DataView(whole.buffer);
      const key = staleKey();
      readFlowKey(view, 0, key);
      return key.end === whole.length && !Object.values(key).includes(-7);
    }),
  );
});
