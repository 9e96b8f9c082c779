import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { Reason, reasonNames } from '../../parsers/reason.ts';
import { createTunnelHeader, type Encapsulation, innerMtu } from '../../tunnel/encapsulation.ts';
import { createGeneve } from '../../tunnel/geneve.ts';
import { Direction } from '../../tunnel/pieces.ts';
import { createVxlan } from '../../tunnel/vxlan.ts';
import { buildTcp, buildUdp, hex, packet, staleMemory } from '../model/packet.ts';
import { decodeDatagrams, tsharkMissing } from '../support/tshark.ts';

const at = 43;
const geneveOptions = { vni: 48813, port: 6081, optionClass: 0xfff1, optionType: 0x20 };
const geneve = createGeneve({ ...geneveOptions, inner: 'ipv4' });
const geneveEthernet = createGeneve({ ...geneveOptions, inner: 'ethernet' });
const vxlan = createVxlan({ port: 4789, egressVni: 800, ingressVni: 801 });

const geneveHeader = `
  03 00 0800   // version 0, 12 bytes of options, no flags, IPv4
  00bead 00    // VNI 48813
  fff1 20 02   // option class, type, 8 bytes
  01 01 0000   // ingress, version 1
  89abcdef     // cookie
`;

t.test('sizes', async (t) => {
  t.same([geneve.headerLength, geneve.overhead], [20, 48]);
  t.same([geneveEthernet.headerLength, geneveEthernet.overhead], [34, 62]);
  t.same([vxlan.headerLength, vxlan.overhead], [22, 50]);
  t.equal(innerMtu(1500, geneve), 1452);
  t.equal(innerMtu(1500, vxlan), 1450);
  t.same([geneve.cookieMask, vxlan.cookieMask], [-1, 0]);
  t.same([geneve.port, vxlan.port], [6081, 4789]);
});

function written(tunnel: Encapsulation, direction: Direction, cookie: number): string {
  const { bytes, view } = staleMemory(at + 100);
  tunnel.write(view, at, direction, cookie);
  if (bytes[at - 1] !== 0xa5) throw new Error('wrote before the header');
  if (bytes[at + tunnel.headerLength] !== 0xa5) throw new Error('wrote behind the header');
  return hex(bytes.slice(at, at + tunnel.headerLength));
}

const ethernet = '020000000002 020000000001 0800';

t.test('written over stale bytes, every one of them', async (t) => {
  const rows: [name: string, tunnel: Encapsulation, direction: Direction, expected: string][] = [
    ['GENEVE ingress', geneve, Direction.Ingress, geneveHeader],
    ['GENEVE egress', geneve, Direction.Egress, geneveHeader.replace('01 01', '00 01')],
    [
      'GENEVE with Ethernet',
      geneveEthernet,
      Direction.Ingress,
      `${geneveHeader.replace('0800', '6558')}${ethernet}`,
    ],
    ['VXLAN egress', vxlan, Direction.Egress, `08000000 000320 00 ${ethernet}`],
    ['VXLAN ingress', vxlan, Direction.Ingress, `08000000 000321 00 ${ethernet}`],
  ];
  for (const [name, tunnel, direction, expected] of rows) {
    t.equal(written(tunnel, direction, 0x89abcdef | 0), hex(packet(expected)), name);
  }
  const critical = createGeneve({ ...geneveOptions, optionType: 0xa0, inner: 'ipv4' });
  t.match(written(critical, Direction.Egress, 1), /^0340.*fff1a002/, 'C bit in both places');
  const macs = createVxlan({
    port: 4789,
    egressVni: 0xffffff,
    ingressVni: 0,
    innerSource: '0A:1b:2c:3d:4e:5f',
    innerDestination: 'ff:fe:fd:fc:fb:fa',
  });
  const text = written(macs, Direction.Egress, 0);
  t.equal(text, '08000000ffffff00fffefdfcfbfa0a1b2c3d4e5f0800');
});

/** Twelve bytes: the direction in bit 41, no cookie; the direction's byte has another bit set. */
const foreign = createGeneve({
  ...geneveOptions,
  inner: 'ipv4',
  optionData: 'aabb000000110000000000ff',
  directionBit: 41,
  cookieAt: -1,
});

t.test('an option of another shape', async (t) => {
  const head = '0400080000bead00 fff12003'.replace(' ', '');
  const egress = `${head}aabb000000110000000000ff`;
  t.equal(written(foreign, Direction.Egress, 7), egress);
  t.equal(written(foreign, Direction.Ingress, 7), `${head}aabb000000510000000000ff`);
  t.equal(foreign.cookieMask, 0);
  const header = createTunnelHeader();
  const check = (text: string) => {
    const bytes = packet(text);
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    return foreign.check(view, 0, bytes.length, header);
  };
  t.equal(check(`${head}aabb000000510000000000ff`), Reason.Ok);
  t.equal(header.direction, Direction.Ingress);
  t.equal(check(`${head}aabc000000510000000000ff`), Reason.Ok, 'another option, then');
  t.equal(header.direction, -1);
  t.equal(
    check(`${base('03').replaceAll(' ', '')}fff12002aabb000000510000`),
    Reason.TunnelBadOptions,
  );
});

t.test('what a header has no room for is refused at configuration', async (t) => {
  const inner = 'ipv4' as const;
  const option = (settings: object) => () => createGeneve({ ...geneveOptions, inner, ...settings });
  t.throws(option({ optionData: '' }), RangeError);
  t.throws(option({ optionData: '0102030' }), RangeError);
  t.throws(option({ directionBit: 64 }), RangeError);
  t.throws(option({ cookieAt: 8 }), RangeError);
  t.throws(option({ cookieAt: 2 }), RangeError);
  t.throws(option({ cookieAt: 0 }), RangeError, 'the direction is there');
  t.throws(() => createGeneve({ ...geneveOptions, inner, vni: 0x1000000 }), RangeError);
  t.throws(() => createGeneve({ ...geneveOptions, inner, vni: -1 }), RangeError);
  t.throws(() => createGeneve({ ...geneveOptions, inner, optionClass: 0x10000 }), RangeError);
  t.throws(() => createGeneve({ ...geneveOptions, inner, optionType: 256 }), RangeError);
  t.throws(() => createGeneve({ ...geneveOptions, inner, innerSource: '02:00' }), RangeError);
  t.throws(() => createVxlan({ port: 1, egressVni: 0.5, ingressVni: 0 }), RangeError);
});

type Row = [
  name: string,
  tunnel: Encapsulation,
  rows: string,
  expected: keyof typeof Reason,
  header?: { innerAt?: number; cookie?: number; hasCookie?: number; direction?: number },
];

const cookie = 0x89abcdef | 0;
const base = (words: string, flags = '00', protocol = '0800') =>
  `${words} ${flags} ${protocol} 00bead 00`;
const ours = 'fff12002 01010000 89abcdef';
const none = { hasCookie: 0, direction: -1, cookie: 0 };
const rows: Row[] = [
  [
    'our own header',
    geneve,
    geneveHeader,
    'Ok',
    { innerAt: 20, cookie, hasCookie: 1, direction: 1 },
  ],
  [
    'egress',
    geneve,
    geneveHeader.replace('01 01', '00 01'),
    'Ok',
    { cookie, hasCookie: 1, direction: 0 },
  ],
  [
    'an unknown option before ours',
    geneve,
    `${base('05')} 01080101 11223344 ${ours}`,
    'Ok',
    { innerAt: 28, cookie, hasCookie: 1 },
  ],
  [
    'an unknown option behind ours, without data',
    geneve,
    `${base('04')} ${ours} 01080100`,
    'Ok',
    { innerAt: 24, cookie, hasCookie: 1 },
  ],
  ['no option', geneve, base('00'), 'Ok', { ...none, innerAt: 8 }],
  ['ours in another class', geneve, `${base('03')} fff22002 01010000 89abcdef`, 'Ok', none],
  ['ours of another version', geneve, `${base('03')} fff12002 01020000 89abcdef`, 'Ok', none],
  ['reserved bits set', geneve, '03 3f 0800 00bead ff fff120e2 ff01ffff 89abcdef', 'Ok', {}],
  ['C bit with no critical option', geneve, `${base('03', '40')} ${ours}`, 'Ok', {}],
  ['one byte short of the base', geneve, '03 00 0800 00bead', 'TunnelTooShort', none],
  ['nothing', geneve, '', 'TunnelTooShort', none],
  [
    'one byte short of its options',
    geneve,
    `${base('03')} fff12002 01010000 89abcd`,
    'TunnelTooShort',
  ],
  ['version 1', geneve, base('40'), 'TunnelBadVersion'],
  ['another VNI', geneve, '00 00 0800 00beae 00', 'TunnelVni'],
  [
    'an option one word longer than all',
    geneve,
    `${base('02')} 01080102 11223344`,
    'TunnelBadOptions',
  ],
  ['ours of 4 bytes', geneve, `${base('02')} fff12001 01010000`, 'TunnelBadOptions'],
  ['ours twice', geneve, `${base('06')} ${ours} ${ours}`, 'TunnelBadOptions'],
  ['a critical option', geneve, `${base('01', '40')} 01088000`, 'TunnelCriticalOption'],
  ['a critical option, no C bit', geneve, `${base('01')} 01088000`, 'TunnelCriticalOption'],
  ['Ethernet inside', geneve, base('00', '00', '6558'), 'TunnelBadProtocol'],
  ['IPv6 inside', geneve, base('00', '00', '86dd'), 'TunnelBadProtocol'],
  [
    'Ethernet as configured',
    geneveEthernet,
    `${base('03', '00', '6558')} ${ours} ${ethernet}`,
    'Ok',
    { innerAt: 34, cookie, hasCookie: 1 },
  ],
  ['no Ethernet', geneveEthernet, base('00'), 'TunnelBadProtocol'],
  [
    'one byte short of Ethernet',
    geneveEthernet,
    `${base('00', '00', '6558')} ${ethernet.slice(0, -2)}`,
    'TunnelTooShort',
  ],
  [
    'ARP inside',
    geneveEthernet,
    `${base('00', '00', '6558')} ${ethernet.replace('0800', '0806')}`,
    'TunnelBadProtocol',
  ],
  [
    'VXLAN by the egress VNI',
    vxlan,
    `08000000 000320 00 ${ethernet}`,
    'Ok',
    { ...none, innerAt: 22 },
  ],
  ['VXLAN by the ingress VNI', vxlan, `08000000 000321 00 ${ethernet}`, 'Ok', none],
  ['VXLAN, reserved bits set', vxlan, `ffffffff 000321 ff ${ethernet}`, 'Ok', none],
  ['VXLAN by another VNI', vxlan, `08000000 000322 00 ${ethernet}`, 'TunnelVni'],
  ['VXLAN without the I flag', vxlan, `f7ffffff 000320 00 ${ethernet}`, 'TunnelBadFlags'],
  ['VXLAN one byte short', vxlan, `08000000 000320 00 ${ethernet.slice(0, -2)}`, 'TunnelTooShort'],
  [
    'VXLAN with a VLAN tag',
    vxlan,
    `08000000 000320 00 ${ethernet.replace('0800', '8100')}`,
    'TunnelBadProtocol',
  ],
];

t.test('what is received is checked', async (t) => {
  for (const [name, tunnel, text, expected, fields] of rows) {
    const bytes = packet(text);
    const memory = staleMemory(at + 200);
    memory.bytes.set(bytes, at);
    const header = createTunnelHeader();
    Object.assign(header, { innerAt: -7, cookie: -7, hasCookie: 1, direction: 1, control: 1 });
    const reason = tunnel.check(memory.view, at, at + bytes.length, header);
    t.equal(reasonNames[reason], reasonNames[Reason[expected]], name);
    const { innerAt, ...rest } = fields ?? {};
    t.match(header, { control: 0, ...rest }, `${name}: header`);
    if (innerAt !== undefined) t.equal(header.innerAt, at + innerAt, `${name}: innerAt`);
    t.equal(Object.values(header).includes(-7), false, `${name}: every field assigned`);
  }
});

t.test('a control packet is said to be one, whatever it carries', async (t) => {
  const bytes = packet(`${base('03', '80', '86dd')} ${ours}`);
  const header = createTunnelHeader();
  t.equal(geneve.check(new DataView(bytes.buffer), 0, bytes.length, header), Reason.Ok);
  t.match(header, { control: 1, cookie, hasCookie: 1 });
});

const goldenPath = join(process.cwd(), 'test/golden/tunnels.json');
const inner = {
  tcp: buildTcp({ sourcePort: 40000, destinationPort: 443, flags: 0x18 }, [1, 2, 3]),
  udp: buildUdp({ sourcePort: 40000, destinationPort: 9999 }, [1, 2, 3, 4]),
};

/** UDP payloads by name, as the tunnels write them. */
function goldenPayloads(): Record<string, string> {
  const make = (tunnel: Encapsulation, direction: Direction, bytes: Uint8Array) =>
    written(tunnel, direction, cookie) + hex(bytes);
  return {
    'geneve-egress-tcp': make(geneve, Direction.Egress, inner.tcp),
    'geneve-ingress-udp': make(geneve, Direction.Ingress, inner.udp),
    'geneve-ethernet-ingress-tcp': make(geneveEthernet, Direction.Ingress, inner.tcp),
    'vxlan-egress-tcp': make(vxlan, Direction.Egress, inner.tcp),
    'vxlan-ingress-udp': make(vxlan, Direction.Ingress, inner.udp),
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
  const names = Object.keys(golden);
  const payloads = names.map((name): [Uint8Array, number] => [
    packet(golden[name]!),
    name.startsWith('geneve') ? 6081 : 4789,
  ]);
  const fields = [
    'geneve.vni',
    'geneve.option.class',
    'geneve.option.type',
    'geneve.option.length',
    'geneve.option.unknown.data',
    'vxlan.vni',
    'eth.src',
    'eth.dst',
    'ip.src',
    'ip.dst',
    'ip.checksum.status',
    'tcp.dstport',
    'tcp.checksum.status',
    'udp.dstport',
    'udp.checksum.status',
    '_ws.malformed',
  ];
  const decoded = decodeDatagrams(t.testdir(), payloads, fields);
  const addresses = '10.0.0.1,10.0.0.1|192.168.1.2,192.168.1.2|1,1';
  const option = (data: string) => `0x00bead|0xfff1|0x20|12,12|${data}|`;
  const macs = '02:00:00:00:00:01|02:00:00:00:00:02';
  // Status 1 is "good", outer and inner; the last column would say "malformed".
  const tcp = (port: number) => `${addresses}|443|1|${port}|1|`;
  const udp = (port: number) => `${addresses}|||${port},9999|1,1|`;
  t.same(Object.fromEntries(names.map((name, index) => [name, decoded[index]])), {
    'geneve-egress-tcp': `${option('0001000089abcdef')}|||${tcp(6081)}`,
    'geneve-ingress-udp': `${option('0101000089abcdef')}|||${udp(6081)}`,
    'geneve-ethernet-ingress-tcp': `${option('0101000089abcdef')}|${macs}|${tcp(6081)}`,
    'vxlan-egress-tcp': `|||||800|${macs}|${tcp(4789)}`,
    'vxlan-ingress-udp': `|||||801|${macs}|${udp(4789)}`,
  });
});
