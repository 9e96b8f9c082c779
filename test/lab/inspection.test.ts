/**
 * What the built-in firewall reads, without a network: headers, HTTP, TLS, and one verdict a flow.
 */
import { spawn } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import t from 'tap';
import { createInner, decode } from '../../lab/firewall/decode.ts';
import { type FlowReport, Flows } from '../../lab/firewall/flows.ts';
import { Fate, Impairer } from '../../lab/firewall/impair.ts';
import { findHttpRequests, findServerName } from '../../lab/firewall/inspect.ts';
import { findDenial, readPolicy } from '../../lab/firewall/policy.ts';

const client = [10, 1, 0, 10];
const server = [10, 2, 0, 20];

/** Version 0, 3 words of options, inner IPv4, VNI 48813, our option with flags. */
function geneve(flags: number): number[] {
  return [
    0x03,
    0,
    0x08,
    0x00,
    0x00,
    0xbe,
    0xad,
    0,
    0xff,
    0xf1,
    0x20,
    2,
    flags,
    0,
    0,
    0,
    1,
    2,
    3,
    4,
  ];
}

type TcpFields = { from?: number[]; port?: number; sequence?: number; flags?: number };

function tcpPacket(payload: string, fields: TcpFields = {}): number[] {
  const from = fields.from ?? client;
  const to = from === client ? server : client;
  const sequence = fields.sequence ?? 1;
  const port = fields.port ?? 40000;
  const ports = from === client ? [port >> 8, port & 255, 0, 80] : [0, 80, port >> 8, port & 255];
  const length = 40 + payload.length;
  return [
    ...[0x45, 0, length >> 8, length & 255, 0, 7, 0x40, 0, 64, 6, 0, 0, ...from, ...to],
    ...[
      ...ports,
      ...word(sequence),
      0,
      0,
      0,
      0,
      0x50,
      fields.flags ?? 0x18,
      0xff,
      0xff,
      0,
      0,
      0,
      0,
    ],
    ...Buffer.from(payload, 'latin1'),
  ];
}

function word(value: number): number[] {
  return [value >>> 24, (value >>> 16) & 255, (value >>> 8) & 255, value & 255];
}

function view(bytes: readonly number[]): DataView {
  return new DataView(Uint8Array.from(bytes).buffer);
}

/** A firewall whose list is `deny`; returns a function that judges one packet, and the reports. */
function createFlows(deny: Flows['policy']['deny'], allow: Flows['policy']['allow'] = []) {
  const reports: FlowReport[] = [];
  const flows = new Flows({ allow, deny }, (report) => reports.push(report));
  const inner = createInner();
  const judge = (packet: readonly number[], flags = 0) => {
    const bytes = view([...geneve(flags), ...packet]);
    if (!decode('geneve', bytes, 0, bytes.byteLength, inner)) throw new Error(inner.refusal);
    return flows.judge(bytes, inner);
  };
  return { judge, reports };
}

t.test('a tunnel header is refused when it is one byte short or does not add up', async (t) => {
  const inner = createInner();
  const whole = [...geneve(1), ...tcpPacket('hello')];
  const bytes = view(whole);
  t.ok(decode('geneve', bytes, 0, whole.length, inner));
  t.equal(inner.way, 1, 'bit 0 of our option says ingress');
  t.equal(inner.at, 20);
  t.equal(inner.end, whole.length);
  t.equal(inner.payloadAt, 60);
  t.equal(inner.targetPort, 80);
  for (let end = 0; end < whole.length; end++) {
    t.notOk(decode('geneve', bytes, 0, end, inner), `refused at ${end} bytes`);
  }
  const rows: [string, number, number, string][] = [
    ['version 1', 0, 0x43, 'geneve: version'],
    ['options past the end', 0, 0x3f, 'geneve: options past the end'],
    ['control packet', 1, 0x80, 'geneve: control packet'],
    ['inner IPv6', 2, 0x86, 'geneve: inner protocol'],
    ['option past the options', 11, 31, 'geneve: option past the end'],
    ['inner version 6', 20, 0x65, 'ipv4: version'],
    ['inner header of 16 bytes', 20, 0x44, 'ipv4: lengths'],
    ['inner total length past the end', 22, 0xff, 'ipv4: lengths'],
    ['TCP header past the end', 52, 0xf0, 'tcp: header length'],
    ['TCP header of 16 bytes', 52, 0x40, 'tcp: header length'],
  ];
  for (const [name, at, value, refusal] of rows) {
    const changed = view(whole.map((byte, index) => (index === at ? value : byte)));
    decode('geneve', changed, 0, whole.length, inner);
    t.equal(inner.refusal, refusal, name);
  }
  const ethernet = [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0];
  const vxlan = [8, 0, 0, 0, 0, 0xbe, 0xad, 0, ...ethernet, ...tcpPacket('')];
  t.ok(decode('vxlan', view(vxlan), 0, vxlan.length, inner));
  t.equal(inner.at, 22);
  t.equal(inner.way, -1, 'VXLAN does not say');
  t.notOk(decode('vxlan', view([0, ...vxlan.slice(1)]), 0, vxlan.length, inner));
  t.notOk(decode('vxlan', view(vxlan), 0, 21, inner));
});

t.test('HTTP requests are found with host and path', async (t) => {
  const rows: [string, string, string[]][] = [
    [
      'one request',
      'GET /a?b HTTP/1.1\r\nHost: Good.Example:80\r\n\r\n',
      ['GET good.example /a?b'],
    ],
    ['host not come yet', 'GET / HTTP/1.1\r\nAccept: x\r\nHost: goo', ['GET  /']],
    ['request line not come yet', 'GET / HTTP/1.', []],
    ['absolute form', 'GET http://x.example/p HTTP/1.1\r\nHost: y\r\n\r\n', ['GET x.example /p']],
    [
      'two on one connection',
      'POST /1 HTTP/1.1\r\nhost:a\r\n\r\nGET /2 HTTP/1.1\r\nHOST: b \r\n\r\n',
      ['POST a /1', 'GET b /2'],
    ],
    ['a header of the body is not the host', 'GET / HTTP/1.1\r\n\r\nHost: body\r\n', ['GET  /']],
    ['not HTTP', '\x16\x03\x01GET', []],
  ];
  for (const [name, text, expected] of rows) {
    const found = findHttpRequests(text).map(
      ({ method, host, path }) => `${method} ${host} ${path}`,
    );
    t.same(found, expected, name);
  }
});

t.test('the name in a ClientHello of openssl is found, however it is cut', async (t) => {
  const hello = await captureClientHello('Shop.Example');
  t.equal(findServerName(hello), 'shop.example');
  for (let length = 0; length < hello.length; length++) {
    const found = findServerName(hello.subarray(0, length));
    t.ok(found === undefined || found === 'shop.example', `never a part of it, at ${length}`);
  }
  const twoRecords = [22, 3, 1, 0, 40, ...hello.subarray(5, 45), 22, 3, 1];
  twoRecords.push((hello.length - 45) >> 8, (hello.length - 45) & 255, ...hello.subarray(45));
  t.equal(findServerName(Uint8Array.from(twoRecords)), 'shop.example', 'over two records');
  t.equal(findServerName(await captureClientHello('')), undefined, 'no name, none found');
  t.equal(findServerName(Buffer.from('GET / HTTP/1.1\r\n')), undefined);
});

t.test('a connection has one verdict', async (t) => {
  const { judge, reports } = createFlows([{ host: 'evil.example' }, { content: 'EICAR' }]);
  t.ok(judge(tcpPacket('', { flags: 2, sequence: 0 })), 'SYN');
  t.ok(judge(tcpPacket('GET / HTTP/1.1\r\nHost: evil.')), 'not known yet');
  t.notOk(judge(tcpPacket('example\r\n\r\n', { sequence: 28 })), 'cut in the middle of the name');
  t.notOk(judge(tcpPacket('', { from: server, flags: 0x10 })), 'the other way, too');
  t.notOk(judge(tcpPacket('', { flags: 2, sequence: 0 })), 'a repeated SYN is no new connection');
  t.ok(judge(tcpPacket('', { flags: 2, sequence: 5000 })), 'a new SYN is');
  t.same(
    reports.map(({ event, direction, source, target, about, reason }) => ({
      ...{ event, direction, source, target, about, reason },
    })),
    [
      {
        event: 'blocked',
        direction: 'egress',
        source: '10.1.0.10:40000',
        target: '10.2.0.20:80',
        about: 'GET evil.example/',
        reason: 'host evil.example',
      },
    ],
  );
  t.ok(judge(tcpPacket('', { port: 2, flags: 2, sequence: 99 })));
  t.ok(judge(tcpPacket('CAR', { port: 2, sequence: 102 })), 'early');
  t.notOk(judge(tcpPacket('EI', { port: 2, sequence: 100 })), 'the gap is closed: EICAR');
});

t.test('allow goes before deny, and direction is that of the connection', async (t) => {
  const { judge } = createFlows(
    [{ host: '*.example' }, { direction: 'ingress', protocol: 'tcp', port: 80 }],
    [{ host: 'good.example', path: '/ok' }],
  );
  const get = (host: string, path: string) => `GET ${path} HTTP/1.1\r\nHost: ${host}\r\n\r\n`;
  t.ok(judge(tcpPacket(get('good.example', '/ok/1'), { port: 1 })));
  t.notOk(judge(tcpPacket(get('good.example', '/no'), { port: 2 })));
  t.ok(judge(tcpPacket(get('example', '/'), { port: 3 })), '*.example is not example');
  t.notOk(judge(tcpPacket('', { port: 4, flags: 2 }), 1), 'denied by address at its first packet');
});

t.test('later fragments follow the first', async (t) => {
  const { judge } = createFlows([{ content: 'bad' }]);
  const fragment = (payload: string, id: number, flagsAndOffset: number) =>
    tcpPacket(payload).map((byte, at) => {
      if (at === 5) return id;
      return at === 6 ? flagsAndOffset >> 8 : at === 7 ? flagsAndOffset & 255 : byte;
    });
  t.ok(judge(fragment('good', 1, 0x2000)));
  t.ok(judge(fragment('rest', 1, 0x0005)));
  t.notOk(judge(fragment('bad', 2, 0x2000)));
  t.notOk(judge(fragment('rest', 2, 0x0005)));
  t.notOk(judge(fragment('rest', 3, 0x0005)), 'without a first one');
});

t.test('a list says where it is wrong', async (t) => {
  const file = join(t.testdir(), 'policy.yaml');
  const rows: [string, string | RegExp][] = [
    ['deny: [{ host: a, port: 80 }]', ''],
    ['', ''],
    ['block: []', /unknown key block/],
    ['deny: [{ hots: a }]', /unknown key hots/],
    ['deny: [{ port: "80" }]', /port has the wrong type/],
    ['deny: [{ address: ten }]', /not an IPv4 address/],
    ['allow: 3', /list of rules/],
  ];
  for (const [text, message] of rows) {
    writeFileSync(file, text);
    if (message === '') t.ok(readPolicy(file), text);
    else t.throws(() => readPolicy(file), { message }, text);
  }
  const none = { allow: [], deny: [{ sni: 'a' }] };
  const facts = { direction: 'egress', protocol: 'tcp', address: '1.2.3.4', port: 443 };
  t.equal(findDenial(none, { ...facts, requests: [], serverName: 'a', texts: [] }), 'sni a');
  t.equal(findDenial(none, { ...facts, requests: [], serverName: '', texts: [] }), '');
});

t.test('impairment repeats itself and keeps its shares', async (t) => {
  const draw = (seed: number) => {
    const impairer = new Impairer();
    Object.assign(impairer.impairment, { loss: 1, duplicate: 1, reorder: 5 });
    impairer.seed(seed);
    return Array.from({ length: 20000 }, () => impairer.next());
  };
  t.same(draw(3), draw(3));
  t.notSame(draw(3), draw(4));
  const share = (fate: Fate) => draw(3).filter((one) => one === fate).length / 200;
  t.ok(Math.abs(share(Fate.Lose) - 1) < 0.3);
  t.ok(Math.abs(share(Fate.Twice) - 1) < 0.3);
  t.ok(Math.abs(share(Fate.Hold) - 5) < 0.6);
  t.notOk(new Impairer().active);
});

/** The first bytes that `openssl s_client` sends; without a server name when it is empty. */
function captureClientHello(name: string): Promise<Uint8Array> {
  return new Promise((resolve) => {
    const listener = createServer((socket) => {
      socket.on('error', () => {});
      socket.once('data', (data) => {
        socket.destroy();
        listener.close();
        resolve(new Uint8Array(data));
      });
    });
    listener.listen(0, '127.0.0.1', () => {
      const { port } = listener.address() as { port: number };
      const names = name === '' ? ['-noservername'] : ['-servername', name];
      const args = ['s_client', '-connect', `127.0.0.1:${port}`, ...names];
      spawn('openssl', args, { stdio: 'ignore' });
    });
  });
}
