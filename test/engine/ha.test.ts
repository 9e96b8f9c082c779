/**
 * Several firewalls in the data path, over fakes: choice, what becomes of flows, and counts.
 */
import t from 'tap';
import { OnFailure, Verdict } from '../../engine/flows.ts';
import { GateCause } from '../../engine/gate.ts';
import { SteeringMode } from '../../engine/io.ts';
import { OnLoss } from '../../engine/peers.ts';
import { back, headerLength, out, rule, syn } from '../support/engine.ts';
import { names, world } from '../support/firewalls.ts';
import { address, checksumsRight, fragments, TCP, tcp, udp } from '../support/packets.ts';

const data = (from = 40000) => tcp(out, { from, to: 80, payload: Buffer.from('x') });
const open = (from = 40000) => tcp(out, { from, to: 80, flags: TCP.SYN });
const [a, b, c] = names;

t.test('the lost firewall is left within the bound, its flows move', async (t) => {
  const path = world(2);
  t.equal(path.send(open()), a);
  path.run(1000, () => path.send(data()));
  path.alive.delete(a);
  const lostMs = path.io.clock.nowMs;
  path.run(5000, () => {
    if (path.firewalls.active[1] === 0) path.send(data());
  });
  const tookMs = path.firewalls.sinceMs[0] - lostMs;
  t.ok(tookMs > 2000 && tookMs <= 3020, `lost after ${tookMs} ms`);
  t.equal(path.send(data()), b, 'the flow moved');
  t.equal(path.send(open(40001)), b, 'and new ones go there');
  t.equal(path.firewalls.flowsTaken[1], 1);
  path.alive.add(a);
  path.run(30_000);
  t.equal(path.firewalls.usable[0], 1);
  t.equal(path.send(data()), b, 'without preemption it stays');
  const counts = path.counts();
  const lost = counts.redirected - counts.reinjected;
  t.equal(path.firewalls.sentPackets[0] - path.firewalls.returnedPackets[0], lost);
  t.equal(path.firewalls.sentPackets[1], path.firewalls.returnedPackets[1]);
  t.equal(path.firewalls.sentPackets[0] + path.firewalls.sentPackets[1], counts.redirected);
});

t.test('a lease that ends moves them at once', async (t) => {
  const path = world(2);
  t.equal(path.send(open()), a);
  path.gates[0].close(GateCause.TelemetryRefused);
  t.equal(path.send(data()), b);
  t.equal(path.io.steering.mode, SteeringMode.Redirect);
  path.gates[1].close(GateCause.TelemetryTimeout);
  path.send(data());
  t.equal(path.io.steering.mode, SteeringMode.Pass, 'none left: telemetry is lost');
});

t.test('without shared sessions, established decides', async (t) => {
  const rows: [string, OnLoss, string | undefined, Record<string, number>][] = [
    ['pass', OnLoss.Pass, undefined, { redirected: 2, 'passed-established': 2 }],
    ['redirect', OnLoss.Move, b, { redirected: 4 }],
    ['reset', OnLoss.Reset, undefined, { redirected: 2, 'reset-established': 2 }],
  ];
  for (const [name, onLoss, second, expected] of rows) {
    const path = world(2, { onLoss, follow: false, probe: 'off' });
    path.send(open());
    path.send(data());
    path.gates[0].close(GateCause.TelemetryRefused);
    t.equal(path.send(data()), second, name);
    path.send(data());
    const counts = path.counts();
    delete counts.reinjected;
    t.same(counts, expected, name);
    t.equal(path.send(open(5)), b, 'a new connection goes to the other');
    t.equal(path.send(open()), b, 'and one that begins again, too');
  }
});

t.test('both ends of a reset connection are told', async (t) => {
  const path = world(2, { onLoss: OnLoss.Reset, follow: false, probe: 'off' });
  path.send(open());
  path.gates[0].close(GateCause.TelemetryRefused);
  const written = path.io.ingress.written.length;
  path.send(tcp(out, { from: 40000, to: 80, seq: 100, ack: 777 }));
  const [toHost] = path.io.ingress.written.slice(written);
  const toPeer = path.io.egress.written.at(-1)!;
  for (const { bytes } of [toHost, toPeer]) {
    t.equal(bytes[33] & TCP.RST, TCP.RST);
    t.ok(checksumsRight(bytes));
  }
});

t.test('a handshake under way and what is not TCP move', async (t) => {
  for (const onLoss of [OnLoss.Pass, OnLoss.Reset]) {
    const path = world(2, { onLoss, follow: false, probe: 'off' });
    path.send(open());
    path.send(udp(out, 5, 53, Buffer.from('q')));
    path.gates[0].close(GateCause.TelemetryRefused);
    t.equal(path.send(open()), b, 'the same SYN, sent again');
    t.equal(path.send(udp(out, 5, 53, Buffer.from('q'))), b);
    t.equal(path.send(data()), b, 'b has seen it begin');
  }
});

t.test('preemption moves new flows, and with shared sessions all of them', async (t) => {
  for (const follow of [true, false]) {
    const path = world(2, { preempt: true, holdDownMs: 5000, follow });
    path.gates[0].close(GateCause.TelemetryRefused);
    path.run(1000);
    t.equal(path.send(open()), b);
    path.gates[0].renew(path.io.clock.nowMs + 1e7);
    path.run(4000);
    t.equal(path.send(open(1)), b, 'held down');
    path.run(1500);
    t.equal(path.send(open(2)), a);
    t.equal(path.send(data()), follow ? a : b, 'a known flow');
  }
});

t.test('a flow that sticks goes on to the lost firewall', async (t) => {
  const path = world(2, { spread: true, follow: false, onLoss: OnLoss.Stick, probe: 'off' });
  const ports = Array.from({ length: 40 }, (_, i) => 1000 + i);
  const before = ports.map((from) => path.send(open(from)));
  t.same(new Set(before), new Set([a, b]), 'spread');
  path.gates[0].close(GateCause.TelemetryRefused);
  t.same(
    ports.map((from) => path.send(data(from))),
    before,
  );
  t.same(new Set(ports.map((from) => path.send(open(from + 100)))), new Set([b]));
});

t.test('rebalance moves the flows of the lost firewall and no others', async (t) => {
  const path = world(3, { spread: true, follow: false, probe: 'off', holdDownMs: 0 });
  const ports = Array.from({ length: 90 }, (_, i) => 1000 + i);
  const before = ports.map((from) => path.send(open(from)));
  t.same(new Set(before), new Set([a, b, c]));
  path.gates[1].close(GateCause.TelemetryRefused);
  const during = ports.map((from) => path.send(data(from)));
  t.same(new Set(during), new Set([a, c]));
  t.notOk(
    during.some((one, i) => before[i] !== b && one !== before[i]),
    'others stay',
  );
  path.gates[1].renew(path.io.clock.nowMs + 1e7);
  t.same(
    ports.map((from) => path.send(data(from))),
    during,
    'and stay when it is back',
  );
  t.ok(ports.map((from) => path.send(open(from + 1000))).includes(b), 'new ones go there again');
});

t.test('both directions of a flow go to one firewall', async (t) => {
  const path = world(3, { spread: true, follow: false, probe: 'off' });
  for (let port = 1; port < 30; port++) {
    const there = path.send(open(port));
    const before = path.io.socket.sent.length;
    path.ingress(tcp(back, { from: 80, to: port, flags: TCP.SYN | TCP.ACK }));
    t.equal(path.io.socket.sent[before].peer, address(there!));
  }
});

t.test('a rule names the firewalls of its connections', async (t) => {
  const port = (number: number) => [{ first: number, last: number }];
  const redirect = { protocol: 6, verdict: Verdict.Redirect } as const;
  const path = world(3, { probe: 'off' }, { onFirewallDown: OnFailure.Drop }, [
    rule({ ...redirect, remotePort: port(81), firewalls: 0b010 }),
    rule({ ...redirect, remotePort: port(82), firewalls: 0b110, onFailure: 'pass' }),
  ]);
  const to = (to: number, from = 7, flags: number = TCP.SYN) => tcp(out, { from, to, flags });
  t.same(
    [80, 81, 82].map((port) => path.send(to(port))),
    [a, b, b],
  );
  path.gates[1].close(GateCause.TelemetryRefused);
  t.equal(path.send(to(81, 7, TCP.ACK)), undefined, 'its only one is lost');
  t.equal(path.send(to(82, 7, TCP.ACK)), c);
  path.gates[2].close(GateCause.TelemetryRefused);
  t.equal(path.send(to(82, 7, TCP.ACK)), undefined, 'none of its two');
  t.equal(path.send(to(80, 7, TCP.ACK)), a, 'others go on');
  t.equal(path.io.steering.mode, SteeringMode.Redirect, 'the kernel cannot know');
  const counts = path.counts();
  t.match(counts, { 'dropped-firewall-down': 1, 'passed-firewall-down': 1 });
  path.gates[1].renew(path.io.clock.nowMs + 1e7);
  t.equal(path.send(to(81, 7, TCP.ACK)), b, 'and comes back to it');
});

t.test('no firewall healthy: pass or drop, with its own reasons, rules first', async (t) => {
  const keep = { protocol: 6, remotePort: [{ first: 5432, last: 5432 }] };
  const rules = [rule({ ...keep, verdict: Verdict.Redirect, onFailure: 'drop' })];
  for (const [policy, mode, kernel, reason] of [
    ['pass', OnFailure.Pass, SteeringMode.Pass, 'passed-firewall-down'],
    ['drop', OnFailure.Drop, SteeringMode.Drop, 'dropped-firewall-down'],
  ] as const) {
    const path = world(2, {}, { onFirewallDown: mode });
    path.send(open());
    path.alive.clear();
    path.run(4000);
    t.equal(path.io.steering.mode, kernel, policy);
    path.send(data());
    t.equal(path.counts()[reason], 1, policy);
    path.alive.add(b);
    path.run(1100);
    t.equal(path.io.steering.mode, SteeringMode.Redirect, 'back');
    t.equal(path.send(data()), b);
  }
  const path = world(1, {}, {}, rules);
  path.alive.clear();
  path.run(4000);
  t.equal(path.io.steering.mode, SteeringMode.RedirectAll);
  path.send(tcp(out, { from: 1, to: 5432, flags: TCP.SYN }));
  path.send(syn());
  t.match(path.counts(), { 'dropped-firewall-down': 1, 'passed-established': 1 });
});

t.test('the path to each firewall has its own MTU; what may move is clamped for all', async (t) => {
  const path = world(2, { probe: 'off' });
  path.io.socket.mtus.set(address(b), 1400);
  path.run(11_000);
  t.equal(path.send(tcp(out, { from: 3, to: 80, flags: TCP.SYN, options: mss(1460) })), undefined);
  const clamped = path.io.socket.sent.at(-1)!.bytes.subarray(headerLength);
  t.equal(clamped.readUInt16BE(42), 1400 - 48 - 40);
  const big = udp({ ...out, df: true }, 5, 53, Buffer.alloc(1400));
  t.equal(path.send(big), a, 'fits the first');
  path.gates[0].close(GateCause.TelemetryRefused);
  t.equal(path.send(big), undefined, 'and not the second');
  t.match(path.counts(), { 'too-big': 1 });
});

const mss = (value: number) => Buffer.from([2, 4, value >> 8, value & 255]);

t.test('an answer counts for the firewall that holds the flow', async (t) => {
  const subnet = { address: address('10.9.0.0'), length: 24 };
  const firewalls = [a, b].map((text) => ({ address: address(text), returnFrom: subnet }));
  const path = world(2, { firewalls, probe: 'off' });
  path.alive.clear();
  path.send(open());
  path.gates[0].close(GateCause.TelemetryRefused);
  path.send(data());
  const last = path.io.socket.sent.at(-1)!;
  path.answer([last.bytes], '10.9.0.77');
  t.same([...path.firewalls.returnedPackets], [0, 1]);
  path.answer([last.bytes], '10.9.1.77');
  t.match(path.counts(), { reinjected: 1, 'tunnel-sender': 1 });
});

t.test('fragments go with their flow', async (t) => {
  const path = world(2, { probe: 'off' });
  const ip = { ...out, id: 7 };
  const parts = fragments(udp(ip, 5, 53, Buffer.alloc(4000)), 1400, ip);
  t.equal(path.send(parts[0]), a);
  path.gates[0].close(GateCause.TelemetryRefused);
  t.equal(path.send(parts[1]), b, 'which moved');
});
