/** The engine's side of what the programs in the kernel carry; the test plays the programs. */
import t from 'tap';
import { GateCause } from '../../engine/gate.ts';
import { Reason } from '../../parsers/reason.ts';
import { back, out, startEngine } from '../support/engine.ts';
import { TCP, tcp, udp } from '../support/packets.ts';

const client = { from: 1000, to: 80 };
const host = { from: 80, to: 1000 };
const syn = tcp(out, { ...client, flags: TCP.SYN });
const synAck = tcp(back, { ...host, flags: TCP.SYN | TCP.ACK });
const ack = tcp(out, { ...client, flags: TCP.ACK });
const fin = tcp(out, { ...client, flags: TCP.FIN | TCP.ACK });
const payload = Buffer.alloc(100);
const datagram = udp(out, 1000, 53, payload);
const answer = udp(back, 53, 1000, payload);
const flow = 0;

function start() {
  const engine = startEngine();
  const { carrier } = engine.io;
  const tick = () => {
    engine.io.clock.nowMs += 100;
    engine.loop.breathe();
  };
  const establish = () => {
    engine.egress(syn);
    engine.ingress(synAck);
    engine.egress(ack);
    carrier.counts.given = [1, 0];
  };
  return { engine, carrier, tick, establish };
}

t.test(
  'a connection is counted from its SYN-ACK on, and carried once it is established',
  async (t) => {
    const { engine, carrier, tick } = start();
    engine.egress(syn);
    t.same(carrier.begun, []);
    engine.ingress(synAck);
    t.same(carrier.begun, [flow]);
    t.same(carrier.counts.sent, [-1, -1], 'not carried yet');
    carrier.counts.given = [1, 0];
    engine.egress(ack);
    t.same(carrier.counts.sent, [1, 0]);
    t.same(carrier.counts.delivered, [0, 0]);
    tick();
    t.same(carrier.reminded, [], 'numbers that agree');
  },
);

t.test('what was carried is counted as if the engine had done it', async (t) => {
  const { engine, carrier, establish, tick } = start();
  establish();
  const before = engine.amounts();
  const columns = engine.flows;
  const [packets, bytes] = [columns.packets[0]!, columns.bytes[0]!];
  carrier.carriedTotals.set(flow, [10, 5000, 7, 300, 16, 5200]);
  const after = engine.amounts();
  t.equal(after.packets[Reason.Redirected]! - before.packets[Reason.Redirected]!, 17);
  t.equal(after.bytes[Reason.Redirected]! - before.bytes[Reason.Redirected]!, 5300);
  t.equal(after.packets[Reason.Reinjected]! - before.packets[Reason.Reinjected]!, 16);
  t.equal(after.bytes[Reason.Reinjected]! - before.bytes[Reason.Reinjected]!, 5200);
  t.equal(columns.packets[0]! - packets, 10);
  t.equal(columns.bytes[0]! - bytes, 5000);
  t.equal(columns.carried[flow], 1);
  for (let i = 0; i < 60; i++) tick();
  const lastSeen = columns.lastSeen[flow]!;
  carrier.carriedTotals.set(flow, [11, 5100, 7, 300, 17, 5300]);
  tick();
  t.ok(columns.lastSeen[flow]! > lastSeen + 50, 'it is not idle');
});

t.test('numbers that do not agree are made to, when the queue is empty', async (t) => {
  const { engine, carrier, establish, tick } = start();
  establish();
  // Three were given, of which the device lost two.
  carrier.counts.given = [3, 0];
  carrier.counts.returned = [0, 5];
  tick();
  t.same(carrier.counts.sent, [1, 0], 'seen');
  engine.loop.breathe();
  t.same(carrier.counts.sent, [3, 0], 'settled');
  t.same(carrier.counts.delivered, [0, 5]);
  t.same(carrier.reminded, []);
  // The kernel has forgotten the flow: what comes up is not counted by the programs.
  engine.egress(ack);
  tick();
  t.same(carrier.reminded, [flow]);
  t.same(carrier.counts.sent, [2, -1], 'nothing is carried');
  engine.loop.breathe();
  t.same(carrier.counts.sent, [3, 0]);
});

t.test('a full queue leaves the numbers as they are', async (t) => {
  const { engine, carrier, establish, tick } = start();
  establish();
  carrier.counts.given = [9, 0];
  tick();
  for (let i = 0; i < 64; i++) {
    engine.io.egress.inbox.push({ bytes: udp(out, 2000 + i, 53, payload) });
  }
  engine.loop.breathe();
  t.same(carrier.counts.sent, [1, 0]);
});

t.test('UDP: after some packets both ways', async (t) => {
  const { engine, carrier } = start();
  for (let i = 0; i < 4; i++) {
    engine.egress(datagram);
    engine.ingress(answer);
    t.same(carrier.begun, i < 3 ? [] : [flow]);
  }
  // Two that were counted have not been read yet when the queue is looked at.
  carrier.counts.given = [2, 0];
  engine.loop.breathe();
  t.same(carrier.counts.sent, [2, 0]);
});

t.test('an end is an end', async (t) => {
  const { engine, carrier, establish, tick } = start();
  establish();
  engine.egress(fin);
  t.same(carrier.counts.sent, [2, 0], 'a FIN is told like any other');
  carrier.carriedTotals.set(flow, [1, 50, 0, 0, 0, 0]);
  engine.egress(syn);
  t.same(carrier.ended, [flow], 'a new connection on the same ports');
  tick();
  t.equal(engine.flows.carried[flow], 0);
  t.equal(engine.amounts().packets[Reason.Redirected], 6, 'with the one that was carried');
});

t.test('a host that has changed has everything begin again', async (t) => {
  const { carrier, engine, establish } = start();
  establish();
  carrier.again = true;
  engine.loop.breathe();
  t.same(carrier.ended, [flow]);
  engine.loop.breathe();
  t.same(carrier.ended, [flow], 'once');
});

t.test('nothing is carried to a firewall that must not be used', async (t) => {
  const { engine, carrier } = start();
  engine.loop.breathe();
  t.equal(carrier.innerMtu, 1452);
  engine.gate.close(GateCause.TelemetryAnswer);
  engine.loop.breathe();
  t.equal(carrier.innerMtu, 0);
});
