/**
 * What the data path does not redirect, over fakes: exclusions, a closed gate, forgeries, refusals
 * of the kernel, malformed packets. Each under its own reason.
 */
import t from 'tap';
import { OnFailure, Verdict } from '../../engine/flows.ts';
import { createGates, GateCause } from '../../engine/gate.ts';
import { KernelVerdict, SteeringMode } from '../../engine/io.ts';
import { Reason, reasonKinds } from '../../parsers/reason.ts';
import {
  back,
  firewall,
  out,
  overhead,
  rule,
  server,
  startEngine,
  syn,
  workload,
} from '../support/engine.ts';
import { address, echo, icmp, mssOption, TCP, tcp, udp } from '../support/packets.ts';

t.test('a connection whose start was not seen passes, and the kernel is told', async (t) => {
  const path = startEngine();
  const packet = tcp(out, { from: 22, to: 50000, payload: Buffer.from('ssh') });
  path.egress(packet);
  path.ingress(tcp(back, { from: 50000, to: 22 }));
  t.same(path.io.egress.written[0].bytes, packet);
  t.equal(path.io.ingress.written.length, 1);
  t.equal(path.io.socket.sent.length, 0);
  t.equal(path.io.steering.remembered.length, 2, 'with each packet that comes up');
  t.same(path.io.steering.remembered.slice(1), [
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
  const path = startEngine();
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
  const path = startEngine();
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
  const pass = startEngine();
  pass.gate.close(GateCause.TelemetryUnreachable);
  pass.egress(syn(), { checksumStart: 20, checksumOffset: 16 });
  t.equal(pass.io.steering.mode, SteeringMode.Pass);
  t.equal(pass.io.egress.written[0].checksumStart, 20, 'unfinished checksums stay so');
  t.same(pass.counts(), { 'passed-gate-closed': 1 });

  const drop = startEngine({ onTelemetryLoss: OnFailure.Drop });
  drop.gate.close(GateCause.TelemetryUnreachable);
  drop.egress(syn());
  drop.egress(tcp({ source: workload, target: '192.0.2.7' }, { from: 22, to: 4000 }));
  t.equal(drop.io.steering.mode, SteeringMode.Drop);
  t.same(drop.counts(), { 'dropped-gate-closed': 1, 'passed-built-in': 1 });
});

t.test('the gate opens and closes with its lease', async (t) => {
  const path = startEngine({ onTelemetryLoss: OnFailure.Drop });
  path.gate.renew(path.io.clock.nowMs + 1000);
  path.loop.breathe();
  t.equal(path.io.steering.mode, SteeringMode.Redirect);
  path.io.clock.nowMs += 1001;
  path.loop.breathe();
  t.equal(path.io.steering.mode, SteeringMode.Drop);
  t.equal(path.io.steering.heartbeatMs, path.io.clock.nowMs);
});

t.test('before the first telemetry everything passes, also with drop', async (t) => {
  const path = startEngine({ onTelemetryLoss: OnFailure.Drop });
  path.gate.close(GateCause.Starting);
  path.egress(syn());
  t.same(path.counts(), { 'passed-gate-closed': 1 });
});

t.test('a clock that jumps, as after a suspended night, only lets the lease run out', async (t) => {
  const path = startEngine({ onTelemetryLoss: OnFailure.Drop });
  const { gate, io, loop } = path;
  gate.renew(io.clock.nowMs + 10_000);
  path.egress(syn());
  t.equal(io.socket.sent.length, 1);
  io.clock.nowMs += 12 * 3_600_000;
  loop.breathe();
  t.equal(io.steering.mode, SteeringMode.Drop, 'closed, whatever was promised yesterday');
  t.equal(io.steering.heartbeatMs, io.clock.nowMs, 'and alive');
  gate.renew(io.clock.nowMs + 10_000);
  path.egress(syn());
  t.equal(io.steering.mode, SteeringMode.Redirect, 'open again');
  t.equal(io.socket.sent.length, 2);
});

t.test('onBoot: drop holds until the gate opens for the first time, without grace', async (t) => {
  const parts = { onBoot: OnFailure.Drop, onTelemetryLoss: OnFailure.Pass };
  const path = startEngine(parts, [rule({ verdict: Verdict.Redirect, onFailure: 'pass' })]);
  const { gate, io, loop } = path;
  const [fresh] = createGates(1);
  new Int32Array(gate.shared).set(new Int32Array(fresh!.shared));
  loop.breathe();
  t.equal(io.steering.mode, SteeringMode.Drop, 'starting');
  gate.close(GateCause.TelemetryUnreachable);
  loop.breathe();
  t.equal(io.steering.mode, SteeringMode.Drop, 'its grace is over');
  gate.renew(io.clock.nowMs + 1000);
  loop.breathe();
  t.equal(io.steering.mode, SteeringMode.Redirect, 'open');
  io.clock.nowMs += 2000;
  loop.breathe();
  t.equal(io.steering.mode, SteeringMode.RedirectAll, 'from then on the others decide');
});

t.test('nothing forged is put on the network', async (t) => {
  const path = startEngine();
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
  const path = startEngine();
  path.egress(udp(out, 5000, 53, Buffer.from('question')));
  const header = path.io.socket.sent[0].bytes.subarray(0, 20);
  path.egress(tcp(out, { from: 22, to: 50000 }));
  path.answer([Buffer.concat([header, tcp(back, { from: 50000, to: 22 })])]);
  t.match(path.counts(), { 'flow-not-redirected': 1 });
});

t.test('what the kernel refuses is counted under its reason', async (t) => {
  const path = startEngine();
  path.io.socket.answer = Reason.SocketFull;
  path.egress(syn());
  path.io.socket.answer = Reason.Ok;
  path.egress(echo(out, 8, 77));
  path.io.egress.answer = Reason.DeviceDown;
  path.answer([path.io.socket.sent[0].bytes]);
  t.same(path.counts(), { 'socket-full': 1, redirected: 1, 'device-down': 1 });
});

t.test('a path that became narrower lowers the MTU at once', async (t) => {
  const path = startEngine();
  path.io.socket.answer = Reason.SocketTooBig;
  path.io.socket.mtu = 1400;
  path.egress(udp(out, 1, 2, Buffer.alloc(1400)));
  path.io.socket.answer = Reason.Ok;
  path.egress(udp({ ...out, df: true }, 1, 2, Buffer.alloc(1400)));
  t.equal(path.io.ingress.written[0].bytes.readUInt16BE(26), 1400 - overhead);
  t.match(path.counts(), { 'socket-too-big': 1, 'too-big': 1 });
});

t.test('a device that is gone ends the data path', async (t) => {
  const path = startEngine();
  path.io.egress.failure = 77;
  path.io.clock.nowMs += 200;
  t.throws(() => path.loop.breathe(), { code: 'ERR_DEVICE_FAILURE' });
});

t.test('malformed packets from the device are counted drops', async (t) => {
  const path = startEngine();
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

t.test('every fate has a kind', async (t) => {
  t.equal(reasonKinds.filter((kind) => kind === 'none').length, 1);
});
