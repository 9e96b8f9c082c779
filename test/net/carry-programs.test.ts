// Untimed: another test may run beside this one.
/**
 * The programs that carry flows by themselves, branch by branch: real frames through the kernel's
 * own test run of a program (needs root, no network).
 */
import t from 'tap';
import { Direction, KernelVerdict, SteeringMode } from '../../engine/io.ts';
import {
  carriedPeer,
  carriedRecord,
  controlPage,
  markBase,
  openingQueueOf,
  queueOf,
} from '../../linux/bpf/policy.ts';
import { fragments, ipv4, TCP, tcp, udp } from '../support/packets.ts';
import {
  Bench,
  back,
  cookie,
  epoch,
  firewall,
  innerMtu,
  out,
  profiles,
  workload,
} from './carry-bench.ts';
import { type Outcome, TC_ACT_REDIRECT } from './run-program.ts';

const TC_ACT_UNSPEC = -1;
const payload = Buffer.from('some payload that is long enough');
const segment = tcp(out, { from: 1000, to: 2000, flags: TCP.ACK, payload });
const datagram = udp({ ...out, df: true }, 1000, 2000, payload);
const answer = tcp(back, { from: 2000, to: 1000, flags: TCP.ACK, payload });

const queue = (direction: Direction, opens = false) =>
  markBase |
  (opens ? openingQueueOf({ interfaces: [0 as never] }, 0, direction) : queueOf(0, direction));

for (const [name, settings] of Object.entries(profiles)) {
  t.test(`${name}: carried out and back, both ways`, async (t) => {
    const bench = new Bench(settings);
    t.teardown(() => bench.close());
    const cases: [Direction, Buffer, Buffer][] = [
      [Direction.Egress, segment, answer],
      [Direction.Egress, datagram, udp(back, 2000, 1000, payload)],
      [Direction.Ingress, answer, segment],
      [Direction.Egress, udp({ ...out, tos: 0xb9 }, 1000, 2000, Buffer.alloc(0)), answer],
    ];
    let carried = 0;
    for (const [direction, packet] of cases) {
      const sent = bench.run(direction, packet);
      t.equal(sent.action, TC_ACT_REDIRECT);
      t.equal(sent.mark >>> 0, markBase, 'our mark, without a queue');
      const outer = sent.frame.subarray(14);
      const expected = bench.wrap(packet, bench.header(direction), workload, firewall);
      expected.writeUInt16BE(40_000, 20);
      expected.writeUInt16BE(0, 26);
      expected.set([0, 0, 0x40, 0], 4);
      expected[1] = packet[1]! & 0xfc;
      expected.writeUInt16BE(0, 10);
      const withoutSum = Buffer.from(outer);
      withoutSum.writeUInt16BE(0, 10);
      t.equal(withoutSum.toString('hex'), expected.toString('hex'), 'byte for byte');
      const again = ipv4(
        { source: workload, target: firewall, id: 0, df: true, tos: packet[1]! & 0xfc },
        17,
        outer.subarray(20),
      );
      t.equal(outer.toString('hex'), again.toString('hex'), 'with the right header checksum');

      const returned = bench.run(Direction.Ingress, bench.wrap(packet, bench.header(direction)));
      carried++;
      t.equal(returned.action, direction === Direction.Egress ? TC_ACT_REDIRECT : TC_ACT_UNSPEC);
      t.equal(returned.mark >>> 0, direction === Direction.Egress ? markBase : 0);
      t.equal(returned.frame.subarray(14).toString('hex'), packet.toString('hex'), 'as it went');
      t.equal(bench.get(carriedRecord.reinjected), carried);
    }
    const bytes = cases.map(([direction, { length }]) => [direction, length] as const);
    const sum = (direction: Direction) =>
      bytes.reduce((total, [way, length]) => total + (way === direction ? length : 0), 0);
    t.equal(bench.get(carriedRecord.redirected), 3);
    t.equal(bench.get(carriedRecord.redirected + 8), sum(Direction.Egress));
    t.equal(bench.get(carriedRecord.redirected + 16), 1);
    t.equal(bench.get(carriedRecord.redirected + 24), sum(Direction.Ingress));
    t.equal(bench.get(carriedRecord.reinjected + 8), sum(0) + sum(1));
    t.equal(bench.get(carriedRecord.toEngine), 0);
    t.equal(bench.get(carriedRecord.toSocket), 0);
  });
}

t.test('to the engine goes what is not plain', async (t) => {
  const flags = (value: number) => tcp(out, { from: 1000, to: 2000, flags: value, payload });
  const with0 = (packet: Buffer, change: (copy: Buffer) => void) => {
    const copy = Buffer.from(packet);
    change(copy);
    return copy;
  };
  /** Whether the flow counts it as on its way through the engine. */
  const table: [name: string, packet: Buffer, noted: boolean, gsoSize?: number][] = [
    ['SYN', flags(TCP.SYN | TCP.ACK), true],
    ['FIN', flags(TCP.FIN | TCP.ACK), true],
    ['RST', flags(TCP.RST), true],
    [
      'IP options',
      tcp({ ...out, options: Buffer.from([1, 1, 1, 0]) }, { from: 1000, to: 2000, payload }),
      true,
    ],
    ['a first fragment', fragments(udp(out, 1000, 2000, Buffer.alloc(3000)), 1500, out)[0]!, false],
    ['a later fragment', fragments(udp(out, 1000, 2000, Buffer.alloc(3000)), 1500, out)[1]!, false],
    ['one byte too big', udp(out, 1000, 2000, Buffer.alloc(innerMtu - 27)), true],
    ['a segment size one byte too big', flags(TCP.ACK), true, innerMtu - 39],
    ['a UDP super-packet', datagram, true, 10],
    ['a wrong header checksum', with0(segment, (copy) => copy.writeUInt16BE(1, 10)), true],
    ['a TCP header past the end', with0(segment, (copy) => copy.writeUInt8(0xf0, 32)), true],
    ['a TCP header below 20', with0(segment, (copy) => copy.writeUInt8(0x40, 32)), true],
    ['a UDP length that is not the packet', with0(datagram, (copy) => copy[25]!--), true],
    ['longer than it says', Buffer.concat([segment, Buffer.alloc(1)]), true],
    ['shorter than it says', segment.subarray(0, -1), true],
    ['an unknown flow', tcp(out, { from: 1000, to: 2001, payload }), false],
    ['truncated within TCP', ipv4(out, 6, segment.subarray(20, 32)), false],
    ['truncated within UDP', ipv4(out, 17, datagram.subarray(20, 27)), false],
    ['another protocol', ipv4(out, 1, datagram.subarray(20)), false],
  ];
  for (const [name, packet, noted, gsoSize = 0] of table) {
    const bench = new Bench(profiles.geneve!);
    const { action, frame, mark } = bench.run(Direction.Egress, packet, gsoSize);
    t.equal(action, TC_ACT_REDIRECT, name);
    t.equal(mark, queue(Direction.Egress), `${name}: the engine's queue`);
    t.equal(frame.subarray(14).toString('hex'), packet.toString('hex'), `${name}: as it was`);
    t.equal(bench.get(carriedRecord.toEngine), noted ? 1 : 0, `${name}: order`);
    t.equal(bench.get(carriedRecord.redirected), 0);
    bench.close();
  }
});

t.test('what just fits is carried', async (t) => {
  const bench = new Bench(profiles.geneve!);
  t.teardown(() => bench.close());
  const packet = udp(out, 1000, 2000, Buffer.alloc(innerMtu - 28));
  t.equal(bench.run(Direction.Egress, packet).frame.length, 14 + innerMtu + 48);
});

t.test('padding of a short frame is not carried', async (t) => {
  const bench = new Bench(profiles.geneve!);
  t.teardown(() => bench.close());
  const ack = tcp(back, { from: 2000, to: 1000 });
  const { frame } = bench.run(Direction.Ingress, Buffer.concat([ack, Buffer.alloc(6)]));
  t.equal(frame.subarray(14 + 48).toString('hex'), ack.toString('hex'));
});

t.test('a SYN forgets the flow, which the engine must see begin', async (t) => {
  const bench = new Bench(profiles.geneve!);
  t.teardown(() => bench.close());
  const syn = tcp(out, { from: 1000, to: 2000, flags: TCP.SYN });
  t.equal(bench.run(Direction.Egress, syn).mark, queue(Direction.Egress, true));
  t.equal(bench.run(Direction.Egress, segment).mark, queue(Direction.Egress));
  t.equal(bench.get(carriedRecord.toEngine), 0);
});

t.test('a record that is not the flow’s any more carries nothing', async (t) => {
  for (const stale of [0, epoch + 1]) {
    const bench = new Bench(profiles.geneve!);
    bench.set(carriedRecord.epoch, stale);
    t.equal(bench.run(Direction.Egress, segment).mark, queue(Direction.Egress));
    const { action, frame } = bench.run(
      Direction.Ingress,
      bench.wrap(segment, bench.header(Direction.Egress)),
    );
    t.equal(action, TC_ACT_UNSPEC);
    t.equal(frame.length, 14 + 48 + segment.length, 'left to the socket');
    bench.close();
  }
});

t.test('heartbeat and mode hold for what is carried', async (t) => {
  const bench = new Bench(profiles.geneve!);
  t.teardown(() => bench.close());
  const wrapped = bench.wrap(segment, bench.header(Direction.Egress));
  bench.beat(800);
  const late = bench.runLate(Direction.Egress, segment);
  t.match(late, { action: TC_ACT_UNSPEC, mark: 0 }, 'a late heartbeat: straight on');
  t.equal(bench.runLate(Direction.Ingress, wrapped).frame.length, 14 + wrapped.length);
  const modes = [
    [SteeringMode.Pass, TC_ACT_UNSPEC, 0],
    [SteeringMode.Drop, 2, 0],
    [SteeringMode.RedirectAll, TC_ACT_REDIRECT, queue(Direction.Egress)],
  ] as const;
  for (const [mode, action, mark] of modes) {
    bench.mode(mode);
    t.match(bench.run(Direction.Egress, segment), { action, mark });
    t.equal(bench.run(Direction.Ingress, wrapped).frame.length, 14 + wrapped.length);
  }
  t.equal(bench.get(carriedRecord.redirected), 0);
  bench.mode(SteeringMode.Redirect);
  bench.control.setUint16(controlPage.peers + 2 * carriedPeer.size + carriedPeer.innerMtu, 0, true);
  t.equal(bench.run(Direction.Egress, segment).mark, queue(Direction.Egress), 'no inner MTU');
});

t.test('order: what follows waits for what is still with the engine', async (t) => {
  const bench = new Bench(profiles.geneve!);
  t.teardown(() => bench.close());
  bench.run(Direction.Egress, tcp(out, { from: 1000, to: 2000, flags: TCP.ACK | TCP.FIN }));
  t.equal(bench.run(Direction.Egress, segment).mark, queue(Direction.Egress));
  t.equal(bench.get(carriedRecord.toEngine), 2);
  t.equal(bench.run(Direction.Ingress, answer).mark >>> 0, markBase, 'the other way goes on');
  bench.set(carriedRecord.sent, 2);
  t.equal(bench.run(Direction.Egress, segment).mark >>> 0, markBase);

  const wrapped = (flags: number) =>
    bench.wrap(tcp(out, { from: 1000, to: 2000, flags, payload }), bench.header(Direction.Egress));
  const left = (outcome: Outcome) => outcome.action === TC_ACT_UNSPEC;
  t.ok(left(bench.run(Direction.Ingress, wrapped(TCP.ACK | TCP.FIN))));
  t.ok(left(bench.run(Direction.Ingress, wrapped(TCP.ACK))));
  t.equal(bench.get(carriedRecord.toSocket), 2);
  bench.set(carriedRecord.delivered, 2);
  t.notOk(left(bench.run(Direction.Ingress, wrapped(TCP.ACK))));
});

t.test('from the tunnel: the socket gets all that is not ours in every bit', async (t) => {
  const bench = new Bench(profiles.geneve!);
  t.teardown(() => bench.close());
  const header = bench.header(Direction.Egress);
  const changed = (at: number, value: number) => {
    const copy = Buffer.from(header);
    copy[at] = value;
    return copy;
  };
  const inner = (change: (copy: Buffer) => void) => {
    const copy = Buffer.from(segment);
    change(copy);
    return copy;
  };
  const wrapped = bench.wrap(segment, header);
  const fragment = fragments(wrapped, 100, { source: firewall, target: workload })[0]!;
  const table: [name: string, datagram: Buffer][] = [
    ['to another address', bench.wrap(segment, header, firewall, '10.4.0.10')],
    ['another VNI', bench.wrap(segment, changed(6, header[6]! ^ 1))],
    ['a version', bench.wrap(segment, changed(0, header[0]! | 0x40))],
    ['a control packet', bench.wrap(segment, changed(1, 0x80))],
    ['the critical flag', bench.wrap(segment, changed(1, 0x40))],
    ['another inner protocol', bench.wrap(segment, changed(3, 1))],
    ['another option', bench.wrap(segment, changed(10, 0x21))],
    ['a critical option', bench.wrap(segment, changed(10, 0xa0))],
    ['another option length', bench.wrap(segment, changed(11, 1))],
    ['another option version', bench.wrap(segment, changed(13, 2))],
    ['a longer header', bench.wrap(segment, Buffer.concat([changed(0, 6), Buffer.alloc(4)]))],
    ['no option', bench.wrap(segment, changed(0, 0).subarray(0, 8))],
    ['a wrong cookie', bench.wrap(segment, bench.header(Direction.Egress, cookie ^ 1))],
    ['an unknown flow', bench.wrap(tcp(out, { from: 1000, to: 2001, payload }), header)],
    ['an unknown ingress flow', bench.wrap(tcp(back, { from: 2001, to: 1000, payload }), header)],
    [
      'inner IP version',
      bench.wrap(
        inner((copy) => copy.writeUInt8(0x55, 0)),
        header,
      ),
    ],
    [
      'inner header checksum',
      bench.wrap(
        inner((copy) => copy.writeUInt16BE(1, 10)),
        header,
      ),
    ],
    [
      'inner length too short',
      bench.wrap(
        inner((copy) => copy.writeUInt16BE(60, 2)),
        header,
      ),
    ],
    ['inner fragment', bench.wrap(fragments(datagram, 44, out)[0]!, header)],
    ['inner ICMP', bench.wrap(ipv4(out, 1, Buffer.alloc(20)), header)],
    ['inner FIN', bench.wrap(tcp(out, { from: 1000, to: 2000, flags: TCP.FIN }), header)],
    ['truncated inner TCP', bench.wrap(segment.subarray(0, 30), header)],
    ['truncated inner IP', bench.wrap(segment.subarray(0, 19), header)],
    ['truncated header', bench.wrap(Buffer.alloc(0), header.subarray(0, 10))],
    ['joined datagrams', bench.wrap(Buffer.concat([segment, header, segment]), header)],
    ['an outer fragment', fragment],
  ];
  for (const [name, packet] of table) {
    const { action, frame, mark } = bench.run(Direction.Ingress, packet);
    t.match({ action, mark }, { action: TC_ACT_UNSPEC, mark: 0 }, name);
    t.equal(frame.subarray(14).toString('hex'), packet.toString('hex'), `${name}: as it was`);
  }
  const stranger = bench.run(Direction.Ingress, bench.wrap(segment, header, '10.9.0.5'));
  t.equal(stranger.mark, queue(Direction.Ingress), 'another sender: traffic like any other');
  t.equal(bench.get(carriedRecord.reinjected), 0);
  bench.set(carriedRecord.toSocket, 0);
  t.equal(bench.run(Direction.Ingress, wrapped).action, TC_ACT_REDIRECT, 'and the right one goes');
  bench.teach(6, KernelVerdict.Pass);
  t.equal(bench.run(Direction.Ingress, wrapped).action, TC_ACT_UNSPEC, 'not redirected');
});

t.test('what belongs in by another interface is left to the engine', async (t) => {
  const bench = new Bench(profiles.geneve!);
  t.teardown(() => bench.close());
  bench.set(carriedRecord.interfaceIndex, 2);
  const wrapped = bench.wrap(answer, bench.header(Direction.Ingress));
  t.equal(bench.run(Direction.Ingress, wrapped).frame.length, 14 + wrapped.length);
  const other = bench.wrap(segment, bench.header(Direction.Egress));
  t.equal(bench.run(Direction.Ingress, other).action, TC_ACT_REDIRECT, 'out by another: fine');
});
