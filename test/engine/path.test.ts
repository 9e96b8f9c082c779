/**
 * The whole data path over fakes: what goes in at a device comes out as datagrams, and back. The
 * datagrams are built and read with the test's own few lines, not with tunnel/.
 */
import t from 'tap';
import { createArena } from '../../engine/arena.ts';
import { countersByteLength, openPublishedCounters, snapshot } from '../../engine/counters.ts';
import { createEngine, type EngineOptions } from '../../engine/engine.ts';
import { Verdict } from '../../engine/flows.ts';
import { createGate, GateCause } from '../../engine/gate.ts';
import { Gso, KernelVerdict, SteeringMode } from '../../engine/io.ts';
import { Reason, reasonKinds, reasonNames } from '../../parsers/reason.ts';
import { createGeneve } from '../../tunnel/geneve.ts';
import { createFakeIo } from '../fakes/io.ts';
import {
  address,
  checksumsRight,
  echo,
  fragments,
  type Ip,
  icmp,
  mssOption,
  TCP,
  tcp,
  udp,
} from '../support/packets.ts';

const workload = '10.1.0.10';
const server = '10.2.0.20';
const firewall = '10.9.0.4';
const out: Ip = { source: workload, target: server };
const back: Ip = { source: server, target: workload };
const headerLength = 20;
const overhead = 48;

function start(options: Partial<EngineOptions> = {}) {
  const arena = createArena(64, 32);
  const io = createFakeIo(arena);
  const gate = createGate();
  gate.renew(io.clock.nowMs + 10_000_000);
  const shared = new SharedArrayBuffer(countersByteLength);
  const loop = createEngine(
    io,
    arena,
    createGeneve({ port: 6081, vni: 48813, optionClass: 0xfff1, optionType: 0x20, inner: 'ipv4' }),
    {
      flows: 1024,
      mtuLimit: 9216,
      peer: address(firewall),
      policy: {
        default: Verdict.Redirect,
        builtIns: {
          tunnelPort: 6081,
          tunnelPeers: [{ address: address(firewall), length: 32 }],
          telemetry: [{ address: address(firewall), port: 443 }],
          management: [
            { protocol: 6, remote: { address: address('192.0.2.0'), length: 24 }, port: 22 },
          ],
          broadcasts: [address('10.1.0.255')],
        },
      },
      established: Verdict.PassEstablished,
      closedMode: SteeringMode.Pass,
      ...options,
    },
    gate,
    shared,
  );
  let put = 0;
  return {
    io,
    gate,
    loop,
    egress(packet: Uint8Array, extra = {}) {
      put++;
      io.egress.inbox.push({ bytes: packet, ...extra });
      loop.breathe();
    },
    ingress(packet: Uint8Array, extra = {}) {
      put++;
      io.ingress.inbox.push({ bytes: packet, ...extra });
      loop.breathe();
    },
    /** The firewall returns these datagrams, joined into one when equal but the last (UDP_GRO). */
    answer(datagrams: Uint8Array[], source = firewall) {
      put += datagrams.length;
      io.socket.inbox.push({
        bytes: Buffer.concat(datagrams),
        segmentSize: datagrams[0].length,
        source: address(source),
      });
      loop.breathe();
    },
    inner(index: number) {
      return io.socket.sent[index].bytes.subarray(headerLength);
    },
    /** Packets by reason, those that happened. */
    counts(): Record<string, number> {
      io.clock.nowMs += 100;
      loop.breathe();
      const { packets } = snapshot(openPublishedCounters(shared));
      return Object.fromEntries(
        [...packets].map((n, reason) => [reasonNames[reason], n] as const).filter(([, n]) => n > 0),
      );
    },
    put: () => put,
  };
}

const syn = (options: Uint8Array = mssOption(1460)) =>
  tcp(out, { from: 40000, to: 80, flags: TCP.SYN, options });

t.test('a packet goes through the tunnel and comes back as it was', async (t) => {
  const path = start();
  const packet = udp(out, 5000, 53, Buffer.from('question'));
  path.egress(packet);
  t.equal(path.io.socket.sent.length, 1);
  const [datagram] = path.io.socket.sent;
  t.equal(datagram.peer, address(firewall));
  t.same(path.inner(0), packet);
  t.equal(datagram.bytes.readUInt16BE(2), 0x0800, 'inner protocol');
  t.equal(datagram.bytes.readUIntBE(4, 3), 48813, 'VNI');
  t.equal(datagram.bytes[12] & 1, 0, 'direction egress');
  path.answer([datagram.bytes]);
  t.same(path.io.egress.written[0].bytes, packet, 'out at the same side');
  t.equal(path.io.ingress.written.length, 0);

  const reply = udp(back, 53, 5000, Buffer.from('answer'));
  path.ingress(reply);
  t.equal(path.io.socket.sent[1].bytes[12] & 1, 1, 'direction ingress');
  t.equal(path.io.socket.sent[1].entropy, datagram.entropy, 'one flow, one source port');
  path.answer([path.io.socket.sent[1].bytes]);
  t.same(path.io.ingress.written[0].bytes, reply);
  t.same(path.counts(), { redirected: 2, reinjected: 2 });
});

t.test('SYN and SYN-ACK are clamped to the tunnel, with right checksums', async (t) => {
  for (const partial of [false, true]) {
    const path = start();
    const extra = partial ? { checksumStart: 20, checksumOffset: 16 } : {};
    path.egress(
      tcp(out, { from: 1, to: 2, flags: TCP.SYN, options: mssOption(1460), partial }),
      extra,
    );
    path.ingress(
      tcp(back, { from: 2, to: 1, flags: TCP.SYN | TCP.ACK, options: mssOption(8960), partial }),
      extra,
    );
    for (const index of [0, 1]) {
      const inner = path.inner(index);
      t.equal(inner.readUInt16BE(42), 1500 - overhead - 40, 'mss');
      t.ok(checksumsRight(inner));
    }
  }
  const small = start();
  small.egress(syn(mssOption(536)));
  t.equal(small.inner(0).readUInt16BE(42), 536, 'a smaller one stays');
});

t.test('a super-packet becomes datagrams that fit, and its answers one super-packet', async (t) => {
  const path = start();
  path.egress(syn());
  const payload = Buffer.alloc(60_000, 'abcdefghij');
  const whole = tcp(out, { from: 40000, to: 80, seq: 2, payload, partial: true });
  path.egress(whole, { gso: Gso.Tcp4, gsoSize: 1412, checksumStart: 20, checksumOffset: 16 });
  const datagrams = path.io.socket.sent.slice(1);
  t.equal(datagrams.length, Math.ceil(60_000 / 1412));
  let sequence = 2;
  const parts: Buffer[] = [];
  for (const { bytes } of datagrams) {
    const inner = bytes.subarray(headerLength);
    if (inner.length > 1452 || !checksumsRight(inner)) t.fail('a wrong segment');
    if (inner.readUInt32BE(24) !== sequence) t.fail('a wrong sequence number');
    parts.push(inner.subarray(40));
    sequence += inner.length - 40;
  }
  t.same(Buffer.concat(parts), payload);
  path.answer(datagrams.map(({ bytes }) => bytes));
  const joined = path.io.egress.written;
  t.same(Buffer.concat(joined.map(({ bytes }) => bytes.subarray(40))), payload);
  t.ok(joined.length <= 2, `joined into ${joined.length}`);
  t.match(path.counts(), { redirected: 1 + datagrams.length, reinjected: datagrams.length });
});

t.test('TCP larger than the tunnel is cut, whoever set the segment size', async (t) => {
  const path = start({ established: Verdict.Redirect });
  const payload = Buffer.alloc(1460, 7);
  path.egress(tcp(out, { from: 1, to: 2, payload }));
  path.egress(tcp(out, { from: 1, to: 2, payload: Buffer.alloc(2920, 8), partial: true }), {
    gso: Gso.Tcp4,
    gsoSize: 1460,
    checksumStart: 20,
    checksumOffset: 16,
  });
  for (const [index] of path.io.socket.sent.entries()) {
    t.ok(path.inner(index).length <= 1452 && checksumsRight(path.inner(index)));
  }
  t.equal(path.io.socket.sent.length, 2 + 3);
});

t.test('too big with DF: the sender is told the MTU, over the other direction', async (t) => {
  const path = start();
  const big = udp({ ...out, df: true }, 1, 2, Buffer.alloc(1460));
  path.egress(big);
  t.equal(path.io.socket.sent.length, 0);
  const [answer] = path.io.ingress.written;
  t.same([answer.bytes[9], answer.bytes[20], answer.bytes[21]], [1, 3, 4]);
  t.equal(answer.bytes.readUInt16BE(26), 1452);
  t.equal(answer.bytes.readInt32BE(16), address(workload), 'to its sender');
  t.ok(checksumsRight(answer.bytes));
  t.same(answer.bytes.subarray(28, 56), big.subarray(0, 28), 'quotes it');
  t.same(path.counts(), { 'too-big': 1 });
});

t.test('too big without DF: fragmented, and the fragments come back', async (t) => {
  const path = start();
  const payload = Buffer.alloc(4000, 'xyz');
  for (const part of fragments(udp(out, 5, 6, payload), 1500, out)) path.egress(part);
  const sent = path.io.socket.sent.map(({ bytes }) => bytes);
  t.ok(sent.length >= 3);
  const whole = Buffer.alloc(4008);
  for (const bytes of sent) {
    const inner = bytes.subarray(headerLength);
    t.ok(inner.length <= 1452);
    whole.set(inner.subarray(20), (inner.readUInt16BE(6) & 0x1fff) * 8);
  }
  t.same(whole.subarray(8), payload);
  for (const bytes of sent) path.answer([bytes]);
  t.equal(path.io.egress.written.length, sent.length);
  t.same(path.counts(), { redirected: 3, reinjected: sent.length });
});

t.test('a later fragment without its first is a counted drop', async (t) => {
  const path = start();
  path.egress(fragments(udp(out, 5, 6, Buffer.alloc(4000)), 1500, out)[1]);
  t.same(path.counts(), { 'fragment-unmatched': 1 });
});

t.test('a connection whose start was not seen passes, and the kernel is told', async (t) => {
  const path = start();
  const packet = tcp(out, { from: 22, to: 50000, payload: Buffer.from('ssh') });
  path.egress(packet);
  path.ingress(tcp(back, { from: 50000, to: 22 }));
  t.same(path.io.egress.written[0].bytes, packet);
  t.equal(path.io.ingress.written.length, 1);
  t.equal(path.io.socket.sent.length, 0);
  t.same(path.io.steering.remembered, [
    {
      local: address(workload),
      remote: address(server),
      localPort: 22,
      remotePort: 50000,
      protocol: 6,
      verdict: KernelVerdict.Pass,
    },
  ]);
  path.ingress(tcp(back, { from: 50000, to: 22, flags: TCP.SYN, options: mssOption(1400) }));
  t.equal(path.io.socket.sent.length, 1, 'a new connection on the same ports is redirected');
  t.same(path.counts(), { 'passed-established': 2, redirected: 1 });
});

t.test('built-in exclusions pass, also what only an ICMP error quotes', async (t) => {
  const path = start();
  const cases: Uint8Array[] = [
    udp({ source: workload, target: '224.0.0.251' }, 5353, 5353, Buffer.alloc(4)),
    udp({ source: workload, target: '10.1.0.255' }, 138, 138, Buffer.alloc(4)),
    udp({ source: '0.0.0.0', target: '255.255.255.255' }, 68, 67, Buffer.alloc(4)),
    udp({ source: workload, target: '10.1.0.1' }, 68, 67, Buffer.alloc(4)),
    tcp({ source: workload, target: '169.254.169.254' }, { from: 9, to: 80, flags: TCP.SYN }),
    tcp({ source: workload, target: firewall }, { from: 9, to: 443, flags: TCP.SYN }),
    tcp({ source: workload, target: '192.0.2.7' }, { from: 22, to: 4000 }),
  ];
  for (const packet of cases) path.egress(packet);
  const quoted = udp({ source: workload, target: firewall }, 33000, 6081, Buffer.alloc(8));
  path.ingress(
    icmp({ source: '10.1.0.1', target: workload }, 3, 4, Buffer.concat([Buffer.alloc(4), quoted])),
  );
  t.equal(path.io.socket.sent.length, 0);
  t.same(path.counts(), { 'passed-built-in': cases.length + 1 });
});

t.test('an ICMP error belongs to the flow that it quotes', async (t) => {
  const path = start();
  const probe = udp(out, 33434, 33434, Buffer.alloc(8));
  path.egress(probe);
  const error = icmp(
    { source: '10.1.0.1', target: workload },
    11,
    0,
    Buffer.concat([Buffer.alloc(4), probe]),
  );
  path.ingress(error);
  t.same(path.inner(1), error);
  path.answer([path.io.socket.sent[1].bytes]);
  t.same(path.io.ingress.written[0].bytes, error);
  path.ingress(
    icmp(
      { source: '10.1.0.1', target: workload },
      11,
      0,
      Buffer.concat([Buffer.alloc(4), udp(out, 9, 9, Buffer.alloc(8))]),
    ),
  );
  t.match(path.counts(), { 'passed-unrelated-error': 1 });
});

t.test('closed: pass lets everything through as it came, drop lets only exceptions', async (t) => {
  const pass = start();
  pass.gate.close(GateCause.TelemetryUnreachable);
  pass.egress(syn(), { checksumStart: 20, checksumOffset: 16 });
  t.equal(pass.io.steering.mode, SteeringMode.Pass);
  t.equal(pass.io.egress.written[0].checksumStart, 20, 'unfinished checksums stay so');
  t.same(pass.counts(), { 'passed-gate-closed': 1 });

  const drop = start({ closedMode: SteeringMode.Drop });
  drop.gate.close(GateCause.TelemetryUnreachable);
  drop.egress(syn());
  drop.egress(tcp({ source: workload, target: '192.0.2.7' }, { from: 22, to: 4000 }));
  t.equal(drop.io.steering.mode, SteeringMode.Drop);
  t.same(drop.counts(), { 'dropped-gate-closed': 1, 'passed-built-in': 1 });
});

t.test('the gate opens and closes with its lease', async (t) => {
  const path = start({ closedMode: SteeringMode.Drop });
  path.gate.renew(path.io.clock.nowMs + 1000);
  path.loop.breathe();
  t.equal(path.io.steering.mode, SteeringMode.Redirect);
  path.io.clock.nowMs += 1001;
  path.loop.breathe();
  t.equal(path.io.steering.mode, SteeringMode.Drop);
  t.equal(path.io.steering.heartbeatMs, path.io.clock.nowMs);
});

t.test('before the first telemetry everything passes, also with drop', async (t) => {
  const path = start({ closedMode: SteeringMode.Drop });
  path.gate.close(GateCause.Starting);
  path.egress(syn());
  t.same(path.counts(), { 'passed-gate-closed': 1 });
});

t.test('nothing forged is put on the network', async (t) => {
  const path = start();
  path.egress(udp(out, 5000, 53, Buffer.from('question')));
  const good = Buffer.from(path.io.socket.sent[0].bytes);
  const change = (at: number, value: number) => {
    const copy = Buffer.from(good);
    copy[at] = value;
    return copy;
  };
  const stranger = Buffer.concat([
    good.subarray(0, 20),
    udp(out, 5001, 53, Buffer.from('question')),
  ]);
  path.answer([good], '10.9.0.5');
  path.answer([change(6, 1)]);
  path.answer([change(16, good[16] ^ 1)]);
  path.answer([stranger]);
  path.answer([change(0, 0x42)]);
  path.answer([change(2, 0x86)]);
  path.answer([Buffer.concat([good.subarray(0, 8), good.subarray(20)]).fill(0, 0, 1)]);
  path.answer([good.subarray(0, 7)]);
  path.answer([change(30, 99)]);
  t.equal(path.io.egress.written.length, 0);
  t.same(path.counts(), {
    redirected: 1,
    'tunnel-sender': 1,
    'tunnel-vni': 1,
    'tunnel-cookie-wrong': 1,
    'flow-unknown': 1,
    'tunnel-bad-version': 1,
    'tunnel-bad-protocol': 1,
    'tunnel-cookie-missing': 1,
    'tunnel-too-short': 1,
    'ipv4-bad-checksum': 1,
  });
});

t.test('a flow that passes may not be answered from the tunnel', async (t) => {
  const path = start();
  path.egress(udp(out, 5000, 53, Buffer.from('question')));
  const header = path.io.socket.sent[0].bytes.subarray(0, 20);
  path.egress(tcp(out, { from: 22, to: 50000 }));
  path.answer([Buffer.concat([header, tcp(back, { from: 50000, to: 22 })])]);
  t.match(path.counts(), { 'flow-not-redirected': 1 });
});

t.test('what the kernel refuses is counted under its reason', async (t) => {
  const path = start();
  path.io.socket.answer = Reason.SocketFull;
  path.egress(syn());
  path.io.socket.answer = Reason.Ok;
  path.egress(echo(out, 8, 77));
  path.io.egress.answer = Reason.DeviceDown;
  path.answer([path.io.socket.sent[0].bytes]);
  t.same(path.counts(), { 'socket-full': 1, redirected: 1, 'device-down': 1 });
});

t.test('a path that became narrower lowers the MTU at once', async (t) => {
  const path = start();
  path.io.socket.answer = Reason.SocketTooBig;
  path.io.socket.mtu = 1400;
  path.egress(udp(out, 1, 2, Buffer.alloc(1400)));
  path.io.socket.answer = Reason.Ok;
  path.egress(udp({ ...out, df: true }, 1, 2, Buffer.alloc(1400)));
  t.equal(path.io.ingress.written[0].bytes.readUInt16BE(26), 1400 - overhead);
  t.match(path.counts(), { 'socket-too-big': 1, 'too-big': 1 });
});

t.test('malformed packets from the device are counted drops', async (t) => {
  const path = start();
  path.egress(Buffer.alloc(10));
  path.egress(Buffer.alloc(20, 0x60));
  path.egress(syn().subarray(0, 39));
  const bad = syn();
  bad[10] ^= 1;
  path.egress(bad);
  t.same(path.counts(), {
    'ipv4-too-short': 1,
    'ipv4-bad-version': 1,
    'ipv4-bad-total-length': 1,
    'ipv4-bad-checksum': 1,
  });
});

t.test('the outer DSCP is the inner one, without ECN', async (t) => {
  const path = start();
  path.egress(udp({ ...out, tos: 0xb9 }, 1, 2, Buffer.alloc(1)));
  t.equal(path.io.socket.sent[0].tos, 0xb8);
});

t.test('every fate has a kind', async (t) => {
  t.equal(reasonKinds.filter((kind) => kind === 'none').length, 1);
});
