/** The profiles of gateway load balancers: byte-exact, and what comes back is checked. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import t from 'tap';
import { Reason, reasonNames } from '../../parsers/reason.ts';
import { createTunnelHeader, type Encapsulation, innerMtu } from '../../tunnel/encapsulation.ts';
import { createGcp } from '../../tunnel/gcp.ts';
import { createGwlb } from '../../tunnel/gwlb.ts';
import { Direction } from '../../tunnel/pieces.ts';
import { buildTcp, buildUdp, hex, packet, staleMemory } from '../model/packet.ts';
import { back, out, startEngine } from '../support/engine.ts';
import { udp } from '../support/packets.ts';
import { decodeDatagrams, tsharkMissing } from '../support/tshark.ts';

const at = 27;
const cookie = 0x89abcdef | 0;
const endpointId = '0123456789abcdef';
const attachmentId = 'fedcba9876543210';
const gwlb = createGwlb({ port: 6081, endpointId, attachmentId });
const gcp = createGcp({ port: 6081, endpointId: 'cafe0001', profileId: '00000000000000ff' });
const gcpLong = createGcp({ port: 6081, endpointId: 'ab'.repeat(124), profileId: endpointId });

const gwlbBase = '08 00 0800 000000 00';
const endpoint = `0108 01 02 ${endpointId}`;
const attachment = `0108 02 02 ${attachmentId}`;
const flow = '0108 03 01 89abcdef';
const gcpBase = '07 00 0800 000000 00';
const network = '0132 01 01 89abcde1';
const gcpEndpoint = '0132 02 01 cafe0001';
const profile = '0132 03 02 00000000000000ff';

t.test('sizes', async (t) => {
  t.same([gwlb.headerLength, gwlb.overhead, innerMtu(1500, gwlb)], [40, 68, 1432]);
  t.same([gcp.headerLength, gcp.overhead, innerMtu(1500, gcp)], [36, 64, 1436]);
  t.equal(gcpLong.headerLength, 8 + 8 + 128 + 12);
  t.same([gwlb.cookieMask, gcp.cookieMask], [-1, -16]);
});

t.test('what a header has no room for is refused at configuration', async (t) => {
  const port = 6081;
  for (const bad of ['', '0', `${endpointId}00`, '0123456789abcdeg']) {
    t.throws(() => createGwlb({ port, endpointId: bad, attachmentId }), RangeError);
    t.throws(() => createGwlb({ port, endpointId, attachmentId: bad }), RangeError);
    t.throws(() => createGcp({ port, endpointId: '00000000', profileId: bad }), RangeError);
  }
  for (const bad of ['', '00', '0000000g', '00'.repeat(128)]) {
    t.throws(() => createGcp({ port, endpointId: bad, profileId: endpointId }), RangeError);
  }
});

function written(tunnel: Encapsulation, direction: Direction, cookie: number): string {
  const { bytes, view } = staleMemory(at + 200);
  tunnel.write(view, at, direction, cookie);
  if (bytes[at - 1] !== 0xa5) throw new Error('wrote before the header');
  if (bytes[at + tunnel.headerLength] !== 0xa5) throw new Error('wrote behind the header');
  return hex(bytes.slice(at, at + tunnel.headerLength));
}

t.test('written over stale bytes, every one of them', async (t) => {
  const both = hex(packet(`${gwlbBase} ${endpoint} ${attachment} ${flow}`));
  t.equal(written(gwlb, Direction.Egress, cookie), both);
  t.equal(written(gwlb, Direction.Ingress, cookie), both, 'no direction');
  const egress = hex(packet(`${gcpBase} ${network} ${gcpEndpoint} ${profile}`));
  t.equal(written(gcp, Direction.Egress, cookie), egress);
  t.equal(written(gcp, Direction.Ingress, cookie), egress.replace('89abcde1', '89abcde0'));
});

function checked(tunnel: Encapsulation, bytes: Uint8Array) {
  const memory = staleMemory(at + 300);
  memory.bytes.set(bytes, at);
  const header = createTunnelHeader();
  Object.assign(header, { innerAt: -7, cookie: -7, hasCookie: 1, direction: 1, control: 1 });
  header.seen = -7;
  const reason = tunnel.check(memory.view, at, at + bytes.length, header);
  return { ...header, innerAt: header.innerAt - at, reason: reasonNames[reason] };
}

const unknown = '0108 04 01 11223344';
const critical = '0108 81 00';
type Row = [text: string, expected: keyof typeof Reason, header?: object];

const gwlbRows: Record<string, Row> = {
  'its own': [`${gwlbBase} ${endpoint} ${attachment} ${flow}`, 'Ok', { innerAt: 40 }],
  'unknown options between': [
    `0d 00 0800 000000 00 ${unknown} ${endpoint} 01320100 ${attachment} ${flow} ${unknown}`,
    'Ok',
    { innerAt: 60, cookie, hasCookie: 1 },
  ],
  'reserved bits set': [
    `08 3f 0800 000000 ff ${endpoint.replace('01 02', '01 e2')} ${attachment} ${flow}`,
    'Ok',
    { cookie },
  ],
  'a critical option': [`01 40 0800 000000 00 ${critical}`, 'TunnelCriticalOption'],
  'another VNI': [`08 00 0800 000001 00 ${endpoint} ${attachment} ${flow}`, 'TunnelVni'],
  'another order': [`${gwlbBase} ${attachment} ${endpoint} ${flow}`, 'TunnelBadOptions'],
  'an option twice': [`06 00 0800 000000 00 ${endpoint} ${endpoint}`, 'TunnelBadOptions'],
  'a cookie of 8 bytes': [
    `09 00 0800 000000 00 ${endpoint} ${attachment} 0108 03 02 89abcdef89abcdef`,
    'TunnelBadOptions',
  ],
  'an endpoint of 4 bytes': ['02 00 0800 000000 00 0108 01 01 01234567', 'TunnelBadOptions'],
  'another endpoint': [
    `${gwlbBase} ${endpoint.replace('ef', 'ee')} ${attachment} ${flow}`,
    'TunnelIdentity',
  ],
  'another attachment': [
    `${gwlbBase} ${endpoint} ${attachment.replace('fe', '7e')} ${flow}`,
    'TunnelIdentity',
  ],
  'no option': ['00 00 0800 000000 00', 'TunnelIdentity', { hasCookie: 0 }],
  'no attachment': [`03 00 0800 000000 00 ${endpoint}`, 'TunnelIdentity'],
  'no cookie': [`06 00 0800 000000 00 ${endpoint} ${attachment}`, 'Ok', { hasCookie: 0 }],
  'IPv6 inside': [`08 00 86dd 000000 00 ${endpoint} ${attachment} ${flow}`, 'TunnelBadProtocol'],
  'a control packet': ['00 80 0000 000000 00', 'Ok', { control: 1 }],
};

const gcpRows: Record<string, Row> = {
  'its own': [
    `${gcpBase} ${network} ${gcpEndpoint} ${profile}`,
    'Ok',
    { innerAt: 36, direction: 0 },
  ],
  'another order': [
    `${gcpBase} ${profile} ${network} ${gcpEndpoint}`,
    'Ok',
    { cookie: cookie & -16, hasCookie: 1, direction: 0 },
  ],
  ingress: [
    `${gcpBase} ${network.replace('de1', 'de0')} ${gcpEndpoint} ${profile}`,
    'Ok',
    { cookie: cookie & -16, direction: 1 },
  ],
  'reserved bits of the network id': [
    `${gcpBase} ${network.replace('de1', 'def')} ${gcpEndpoint} ${profile}`,
    'Ok',
    { cookie: cookie & -16, direction: 0 },
  ],
  'unknown options between': [
    `0a 00 0800 000000 00 ${profile} ${unknown} ${gcpEndpoint} 01320400 ${network}`,
    'Ok',
    { innerAt: 48, hasCookie: 1 },
  ],
  'a critical option': [`01 00 0800 000000 00 0132 81 00`, 'TunnelCriticalOption'],
  'an option twice': [`04 00 0800 000000 00 ${network} ${network}`, 'TunnelBadOptions'],
  'a network id of 8 bytes': [
    '03 00 0800 000000 00 0132 01 02 89abcdef89abcdef',
    'TunnelBadOptions',
  ],
  'another endpoint': [
    `${gcpBase} ${network} ${gcpEndpoint.replace('cafe', 'cafd')} ${profile}`,
    'TunnelIdentity',
  ],
  'a longer endpoint': [
    `08 00 0800 000000 00 ${network} 0132 02 02 cafe000100000000 ${profile}`,
    'TunnelIdentity',
  ],
  'another profile': [
    `${gcpBase} ${network} ${gcpEndpoint} ${profile.replace('ff', 'fe')}`,
    'TunnelIdentity',
  ],
  'no endpoint': [`05 00 0800 000000 00 ${network} ${profile}`, 'TunnelIdentity'],
  'no network id': [`05 00 0800 000000 00 ${gcpEndpoint} ${profile}`, 'Ok', { hasCookie: 0 }],
};

t.test('what is received is checked', async (t) => {
  const tables = [
    ['gwlb', gwlb, gwlbRows],
    ['gcp', gcp, gcpRows],
  ] as const;
  for (const [title, tunnel, rows] of tables) {
    for (const [name, [text, expected, fields]] of Object.entries(rows)) {
      const header = checked(tunnel, packet(text));
      t.equal(header.reason, reasonNames[Reason[expected]], `${title}: ${name}`);
      t.match(header, { control: 0, ...fields }, `${title}: ${name}: header`);
      t.equal(Object.values(header).includes(-7), false, 'every field assigned');
    }
  }
});

t.test('any header comes back as it was written; one byte less never does', async (t) => {
  const digits = (length: number) =>
    fc.uint8Array({ minLength: length, maxLength: length }).map((bytes) => hex(bytes));
  const port = 6081;
  const tunnels = fc.oneof(
    fc
      .tuple(digits(8), digits(8))
      .map(([endpointId, attachmentId]) => createGwlb({ port, endpointId, attachmentId })),
    fc
      .tuple(
        fc.integer({ min: 1, max: 31 }).chain((words) => digits(words * 4)),
        digits(8),
      )
      .map(([endpointId, profileId]) => createGcp({ port, endpointId, profileId })),
  );
  const directions = fc.constantFrom(Direction.Egress, Direction.Ingress);
  fc.assert(
    fc.property(tunnels, directions, fc.integer(), (tunnel, direction, cookie) => {
      const bytes = packet(written(tunnel, direction, cookie));
      const header = checked(tunnel, bytes);
      t.match(header, {
        reason: 'ok',
        innerAt: bytes.length,
        cookie: cookie & tunnel.cookieMask,
        direction: tunnel.name === 'gcp' ? direction : -1,
      });
      for (let length = 0; length < bytes.length; length++) {
        const { reason } = checked(tunnel, bytes.subarray(0, length));
        if (reason !== 'tunnel-too-short') throw new Error(`${length} bytes: ${reason}`);
      }
    }),
    { numRuns: 60 },
  );
});

t.test('nothing forged is put on the network', async (t) => {
  const cookieAt = { gwlb: 36, gcp: 12 } as const;
  const identityAt = { gwlb: 12, gcp: 20 } as const;
  for (const [name, tunnel] of Object.entries({ gwlb, gcp })) {
    const kind = name as 'gwlb' | 'gcp';
    const path = startEngine({}, [], tunnel);
    path.egress(udp(out, 5000, 53, Buffer.from('question')));
    const good = Buffer.from(path.io.socket.sent[0].bytes);
    const change = (offset: number, bits: number) => {
      const copy = Buffer.from(good);
      copy[offset] = copy[offset]! ^ bits;
      return copy;
    };
    path.answer([change(cookieAt[kind], 1)]);
    path.answer([change(cookieAt[kind] + 3, 0x10)]);
    path.answer([change(identityAt[kind], 1)]);
    path.answer([change(6, 1)]);
    t.equal(path.io.egress.written.length, 0, name);
    path.answer([good]);
    t.equal(path.io.egress.written.length, 1, name);
    t.same(
      path.counts(),
      {
        redirected: 1,
        reinjected: 1,
        'tunnel-cookie-wrong': 2,
        'tunnel-identity': 1,
        'tunnel-vni': 1,
      },
      name,
    );
    path.ingress(udp(back, 53, 5000, Buffer.from('answer')));
    path.answer([Buffer.from(path.io.socket.sent[1].bytes)]);
    t.equal(path.io.ingress.written.length, 1, `${name}: ingress`);
  }
});

const goldenPath = join(process.cwd(), 'test/golden/gateways.json');

function goldenPayloads(): Record<string, string> {
  const segment = buildTcp({ sourcePort: 40000, destinationPort: 443, flags: 0x18 }, [1, 2, 3]);
  const datagram = buildUdp({ sourcePort: 40000, destinationPort: 9999 }, [1, 2, 3, 4]);
  return {
    'gwlb-egress-tcp': written(gwlb, Direction.Egress, cookie) + hex(segment),
    'gcp-egress-tcp': written(gcp, Direction.Egress, cookie) + hex(segment),
    'gcp-ingress-udp': written(gcp, Direction.Ingress, cookie) + hex(datagram),
  };
}

t.test('the golden vectors are what is written', async (t) => {
  const payloads = goldenPayloads();
  if (process.argv.includes('--update')) {
    writeFileSync(goldenPath, `${JSON.stringify(payloads, null, 2)}\n`);
  }
  t.same(payloads, JSON.parse(readFileSync(goldenPath, 'utf8')));
});

t.test('another decoder reads the golden vectors', { skip: tsharkMissing() }, async (t) => {
  const golden: Record<string, string> = JSON.parse(readFileSync(goldenPath, 'utf8'));
  const payloads = Object.values(golden).map((text): [Uint8Array, number] => [packet(text), 6081]);
  const fields = [
    'geneve.vni',
    'geneve.option.class',
    'geneve.option.type',
    'geneve.option.unknown.data',
    'geneve.option.gcp.vnid',
    'geneve.option.gcp.direction',
    'geneve.option.gcp.endpoint',
    'geneve.option.gcp.profile',
    'ip.checksum.status',
    'tcp.dstport',
    'udp.dstport',
    '_ws.malformed',
  ];
  const decoded = decodeDatagrams(t.testdir(), payloads, fields);
  const gateway = '0x000000';
  const aws = '0x0108,0x0108,0x0108|0x01,0x02,0x03';
  const google = '0x0132,0x0132,0x0132|0x01,0x02,0x03|';
  const identity = 'cafe0001|255';
  const number = 0x89abcde;
  t.same(Object.fromEntries(Object.keys(golden).map((name, index) => [name, decoded[index]])), {
    'gwlb-egress-tcp': `${gateway}|${aws}|${endpointId},${attachmentId},89abcdef|||||1,1|443|6081|`,
    'gcp-egress-tcp': `${gateway}|${google}|${number}|1|${identity}|1,1|443|6081|`,
    'gcp-ingress-udp': `${gateway}|${google}|${number}|0|${identity}|1,1||6081,9999|`,
  });
});
