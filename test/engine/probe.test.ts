/** The probe through the tunnel, over fakes. */
import t from 'tap';
import { OnFailure } from '../../engine/flows.ts';
import { SteeringMode } from '../../engine/io.ts';
import { createVxlan } from '../../tunnel/vxlan.ts';
import { headerLength, startEngine } from '../support/engine.ts';
import { geneve, names, world } from '../support/firewalls.ts';
import { address, checksumsRight, udp } from '../support/packets.ts';

const [a, b] = names;

t.test('a probe is a sound packet between link-local addresses', async (t) => {
  const path = world(1);
  const inner = path.io.socket.sent[0].bytes.subarray(headerLength);
  t.same([...inner.subarray(12, 20)], [169, 254, 1, 1, 169, 254, 1, 2]);
  t.same([inner.readUInt16BE(20), inner.readUInt16BE(22)], [45000, 45000]);
  t.equal(inner.length, inner.readUInt16BE(2));
  t.ok(checksumsRight(inner));
  t.same(path.counts(), { 'probe-answered': 1 });
  t.equal(path.io.egress.written.length + path.io.ingress.written.length, 0, 'never on the host');
  t.equal(path.firewalls.probesAnswered[0], 1);
  t.equal(path.io.steering.mode, SteeringMode.Redirect);
});

t.test('until a firewall has answered, everything passes', async (t) => {
  const never = startEngine({ onFirewallDown: OnFailure.Drop }, [], geneve, {
    probe: 'tunnel',
    graceMs: 1000,
  });
  t.equal(never.io.steering.mode, SteeringMode.Pass);
  for (let i = 0; i < 50; i++) {
    never.io.clock.nowMs += 10;
    never.loop.breathe();
  }
  t.equal(never.io.steering.mode, SteeringMode.Pass, 'still in its grace');
  for (let i = 0; i < 300; i++) {
    never.io.clock.nowMs += 10;
    never.loop.breathe();
  }
  t.equal(never.io.steering.mode, SteeringMode.Drop, 'then it is down');
});

t.test('nobody forges an answer', async (t) => {
  const path = world(2);
  path.alive.clear();
  path.run(2000);
  const { sent } = path.io.socket;
  const probe = sent.findLast(({ peer }) => peer === address(a))!.bytes;
  const rows: [string, Buffer, string, string][] = [
    ['another sender', probe, '10.9.0.9', 'tunnel-sender'],
    ['the other firewall', probe, b, 'probe-unknown'],
    ['another cookie', change(probe, headerLength - 1), a, 'probe-unknown'],
    ['another nonce', change(probe, headerLength + 63), a, 'probe-unknown'],
    ['another number', change(probe, headerLength + 51), a, 'probe-unknown'],
    ['another firewall', change(probe, headerLength + 55), a, 'probe-unknown'],
    ['one that was answered before', sent[0].bytes, a, 'probe-unknown'],
    ['one byte short', shorter(probe), a, 'probe-unknown'],
    ['itself', probe, a, 'probe-answered'],
    ['itself again', probe, a, 'probe-unknown'],
  ];
  for (const [name, bytes, source, reason] of rows) {
    const before = path.counts()[reason] ?? 0;
    path.io.socket.inbox.push({ bytes, source: address(source) });
    path.loop.breathe();
    t.equal((path.counts()[reason] ?? 0) - before, 1, name);
  }
});

t.test('without a probe its addresses are nobody', async (t) => {
  const probe = world(1).io.socket.sent[0].bytes;
  const path = world(1, { probe: 'off' });
  path.answer([probe]);
  t.same(path.counts(), { 'flow-unknown': 1 });
});

t.test('a new data path takes over what the last one knew', async (t) => {
  const path = world(1, {}, { onFirewallDown: OnFailure.Drop });
  t.equal(path.firewalls.probeState[0], 2);
  path.alive.clear();
  path.run(4000);
  const next = path.restart();
  next.breathe();
  t.equal(path.io.steering.mode, SteeringMode.Drop, 'not as if nothing had been');
});

t.test('without room for a cookie the nonce is enough', async (t) => {
  const vxlan = createVxlan({
    port: 4789,
    egressVni: 7,
    ingressVni: 7,
    innerSource: '02:00:00:00:00:01',
    innerDestination: '02:00:00:00:00:02',
  });
  const path = world(1, {}, {}, [], vxlan as typeof geneve);
  path.run(3000);
  t.equal(path.firewalls.probesAnswered[0], path.firewalls.probesSent[0]);
  t.ok(path.firewalls.probesSent[0] >= 3);
});

function change(bytes: Buffer, at: number): Buffer {
  const copy = Buffer.from(bytes);
  copy[at] ^= 0x10;
  return copy;
}

/** The last byte of the payload is missing, and every length says so. */
function shorter(datagram: Buffer): Buffer {
  const inner = datagram.subarray(headerLength);
  const addresses = { source: '169.254.1.1', target: '169.254.1.2' };
  const packet = udp(addresses, 45000, 45000, inner.subarray(28, -1));
  return Buffer.concat([datagram.subarray(0, headerLength), packet]);
}
