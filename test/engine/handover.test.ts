/** Packets that come to a data-path worker that does not have their flow. */
import t from 'tap';
import { countersByteLength, Gauge, totals } from '../../engine/counters.ts';
import { firewallColumnsByteLength } from '../../engine/firewall-columns.ts';
import { handoverByteLength } from '../../engine/handover.ts';
import {
  HandoverReader,
  HandoverWriter,
  handoverRingByteLength,
  recordWords,
} from '../../engine/handover-ring.ts';
import { type Spread, workerOf } from '../../engine/spread.ts';
import { reasonNames } from '../../parsers/reason.ts';
import { back, headerLength, out, server, startEngine, workload } from '../support/engine.ts';
import { address, echo, fragments, icmp, TCP, tcp, udp } from '../support/packets.ts';

const local = address(workload);
const remote = address(server);

/** `workers` engines, each with a world of its own, that meet over the same memory. */
function startWorkers(workers: number, seed = 7) {
  const spread: Spread = { workers, seed };
  const memory = new SharedArrayBuffer(handoverByteLength(workers));
  const shared = new SharedArrayBuffer(workers * countersByteLength);
  const woken: number[] = [];
  const probes = new SharedArrayBuffer(firewallColumnsByteLength(1));
  const engines = Array.from({ length: workers }, (_, self) =>
    startEngine({}, [], undefined, {}, shared, {
      self,
      spread,
      memory,
      probes,
      wake: (worker) => woken.push(worker),
    }),
  );
  /** Until nothing is under way. */
  const settle = () => {
    for (let round = 0; round < 3; round++) for (const { loop } of engines) loop.breathe();
  };
  return {
    engines,
    spread,
    woken,
    settle,
    homeOf: (port: number, protocol = 6) =>
      workerOf(spread, local, remote, port, protocol === 1 ? port : 80, protocol),
    /** Worker by worker. */
    sent: () => engines.map(({ io }) => io.socket.sent.length),
    written: () => engines.map(({ io }) => io.egress.written.length + io.ingress.written.length),
    flowCounts: () => engines.map(({ flows }) => flows.used.reduce((sum, used) => sum + used, 0)),
    counts() {
      for (const { io, loop } of engines) {
        io.clock.nowMs += 100;
        loop.breathe();
      }
      const { gauges, packets } = totals(shared);
      const entries = [...packets].map((n, reason) => [reasonNames[reason], n] as const);
      return {
        reasons: Object.fromEntries(entries.filter(([, n]) => n > 0)),
        handed: gauges[Gauge.HandedOver],
      };
    },
  };
}

const syn = (port: number) => tcp(out, { from: port, to: 80, flags: TCP.SYN });
const alone = (worker: number, count: number, value = 1) =>
  Array.from({ length: count }, (_, at) => (at === worker ? value : 0));

/** A port whose flows are at home with `worker`. */
function portAt(homeOf: (port: number, protocol: number) => number, worker: number, protocol = 6) {
  for (let port = 1024; port < 65536; port++) if (homeOf(port, protocol) === worker) return port;
  throw new Error('no such port');
}

t.test('both directions have one home, and flows spread evenly', async (t) => {
  for (const workers of [2, 3, 4, 16]) {
    const spread = { workers, seed: 0x1234567 };
    const counts = new Array<number>(workers).fill(0);
    for (let port = 1024; port < 1024 + 1000 * workers; port++) {
      const home = workerOf(spread, local, remote, port, 443, 6);
      if (home !== workerOf(spread, remote, local, 443, port, 6)) t.fail(`port ${port}`);
      counts[home]!++;
    }
    t.ok(Math.min(...counts) > 700 && Math.max(...counts) < 1300, `${workers}: ${counts}`);
  }
});

t.test('a ring keeps order, goes round, and says when it is full', async (t) => {
  const memory = new SharedArrayBuffer(handoverRingByteLength);
  const writer = new HandoverWriter(memory, 0);
  const reader = new HandoverReader(memory, 0);
  const from = new Uint8Array(65536);
  const to = new Uint8Array(65536);
  const record = { length: 0, words: new Int32Array(recordWords) };
  let written = 0;
  let read = 0;
  const length = (number: number) => 1 + ((number * 7919) % 60_000);
  const take = () => {
    if (!reader.read(to, 0, record)) return false;
    const same = to.subarray(0, record.length).every((byte) => byte === (read & 0xff));
    if (record.length !== length(read) || record.words[3] !== read || !same) t.fail(`${read}`);
    read++;
    return true;
  };
  for (let round = 0; round < 200; round++) {
    for (;;) {
      from.fill(written & 0xff, 0, length(written));
      if (!writer.write(from, 0, length(written), new Int32Array(recordWords).fill(written))) break;
      written++;
    }
    for (let i = 0; i <= round % 7 && take(); i++);
  }
  while (take());
  t.equal(read, written);
  t.ok(written > 500, `${written} records`);
  t.ok(reader.isEmpty);
  t.ok(new HandoverWriter(memory, 0).write(from, 0, 10, new Int32Array(recordWords)));
  t.notOk(reader.isEmpty, 'a writer that takes over goes on where the other was');
});

t.test('a packet of another worker makes its flow there, and its answer finds it', async (t) => {
  const { counts, engines, flowCounts, homeOf, sent, settle, woken, written } = startWorkers(4);
  const port = portAt(homeOf, 2);
  engines[0]!.egress(syn(port));
  t.same(sent(), [0, 0, 0, 0]);
  t.same(woken, [], 'nobody sleeps');
  settle();
  t.same(sent(), alone(2, 4));
  t.same(flowCounts(), alone(2, 4));
  const cookieHeader = engines[2]!.io.socket.sent[0]!.bytes.subarray(0, headerLength);
  const answer = tcp(back, { from: 80, to: port, flags: TCP.SYN | TCP.ACK });
  engines[2]!.ingress(answer);
  const returned = Buffer.from(engines[2]!.io.socket.sent[1]!.bytes);
  engines[3]!.answer([returned]);
  settle();
  t.same(written(), alone(2, 4));
  t.same(engines[2]!.io.ingress.written[0]!.bytes, answer);
  // A forger that does not know the cookie is refused wherever it comes.
  cookieHeader[headerLength - 1]! ^= 1;
  engines[1]!.answer([Buffer.concat([cookieHeader, syn(port)])]);
  settle();
  const { handed, reasons } = counts();
  t.equal(handed, 3);
  t.same(reasons, { redirected: 2, reinjected: 1, 'tunnel-cookie-wrong': 1 });
});

t.test('joined datagrams of several flows each go to their own', async (t) => {
  const { counts, engines, homeOf, settle, written } = startWorkers(2);
  const ports = [portAt(homeOf, 0), portAt(homeOf, 1)];
  for (const port of ports) engines[0]!.egress(syn(port));
  settle();
  const datagrams = engines.map(({ io }) => io.socket.sent[0]!.bytes);
  engines[1]!.answer(datagrams);
  settle();
  t.same(written(), [1, 1]);
  t.same(counts().reasons, { redirected: 2, reinjected: 2 });
});

t.test('an ICMP error goes where the flow is that it is about', async (t) => {
  const { engines, homeOf, sent, settle } = startWorkers(4);
  const port = portAt(homeOf, 3);
  engines[3]!.egress(syn(port));
  const quote = Buffer.concat([Buffer.alloc(4), syn(port).subarray(0, 28)]);
  engines[1]!.ingress(icmp({ source: '10.2.0.1', target: workload }, 3, 1, quote));
  settle();
  t.same(sent(), alone(3, 4, 2), 'the firewall sees it after the packet');
});

t.test('echoes have the home of their addresses', async (t) => {
  const { engines, homeOf, sent, settle } = startWorkers(4);
  for (const { egress } of engines) egress(echo(out, 8, 77));
  settle();
  t.same(sent(), alone(homeOf(77, 1), 4, 4));
});

t.test('fragments follow their first one, however they come and whoever gets them', async (t) => {
  const packet = (port: number) => udp(out, port, 80, Buffer.alloc(3000, 7));
  for (const order of [
    [0, 1, 2],
    [2, 1, 0],
    [1, 0, 2],
  ]) {
    for (const home of [0, 1, 2, 3]) {
      const { counts, engines, flowCounts, homeOf, sent, settle } = startWorkers(4);
      const parts = fragments(packet(portAt(homeOf, home, 17)), 1400, { ...out, id: 99 });
      for (const [at, part] of order.entries()) {
        engines[(at + home) % 4]!.egress(parts[part]!);
        settle();
      }
      t.same(flowCounts(), alone(home, 4));
      t.same(sent(), alone(home, 4, 3), `${order} at ${home}`);
      const inner = engines[home]!.io.socket.sent.map(({ bytes }) => bytes.subarray(headerLength));
      t.same(inner[0], parts[0], 'the first one first');
      // And back, each to another worker, the last one first.
      const returned = engines[home]!.io.socket.sent.map(({ bytes }) => Buffer.from(bytes));
      for (const [at, datagram] of returned.reverse().entries()) {
        engines[(at + home + 1) % 4]!.answer([datagram]);
        settle();
      }
      t.equal(engines[home]!.io.egress.written.length, 3);
      t.same(counts().reasons, { redirected: 3, reinjected: 3 });
    }
  }
});

t.test('an identification that another flow used before leads to the new one', async (t) => {
  const { counts, engines, homeOf, sent, settle } = startWorkers(2);
  for (const home of [0, 1, 0]) {
    const packet = udp(out, portAt(homeOf, home, 17), 80, Buffer.alloc(2000));
    for (const part of fragments(packet, 1400, { ...out, id: 5 })) engines[0]!.egress(part);
    settle();
  }
  t.same(sent(), [4, 2]);
  t.same(counts().reasons, { redirected: 6 });
});

t.test('what finds no room is counted, and a sleeper is woken once', async (t) => {
  const { counts, engines, homeOf, settle } = startWorkers(2);
  const port = portAt(homeOf, 1, 17);
  const packet = udp(out, port, 80, Buffer.alloc(1000));
  const fitting = Math.floor((handoverRingByteLength - 64) / (packet.length + 40 + 4));
  for (let i = 0; i < fitting + 10; i++) engines[0]!.egress(packet);
  for (let round = 0; round < 20; round++) settle();
  const { handed, reasons } = counts();
  t.equal(reasons.redirected! + reasons['handover-full']!, fitting + 10);
  t.ok(reasons['handover-full']! >= 10 && reasons['handover-full']! < 20);
  t.equal(handed, reasons.redirected);
});
