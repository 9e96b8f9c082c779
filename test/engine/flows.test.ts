import t from 'tap';
import { flowColumnsByteLength } from '../../engine/flow-columns.ts';
import { FlowEnd } from '../../engine/flow-log.ts';
import { FlowState } from '../../engine/flow-progress.ts';
import { Flows, noFlow, Verdict } from '../../engine/flows.ts';
import { Fragments } from '../../engine/fragments.ts';
import { address, TCP } from '../support/packets.ts';

function createFlows(capacity: number): Flows {
  return new Flows(capacity, new SharedArrayBuffer(flowColumnsByteLength(capacity)));
}

const local = address('10.1.0.10');
const remote = address('10.2.0.20');
const egress = 0;
const ingress = 1;

t.test('both directions of a connection find one record', async (t) => {
  const flows = createFlows(64);
  t.equal(flows.find(local, remote, 40000, 80, 6), noFlow);
  const flow = flows.insert(egress, 0, Verdict.Redirect, 0);
  t.equal(flows.find(local, remote, 40000, 80, 6), flow);
  t.equal(flows.directionOf(flow), egress);
  t.equal(flows.find(remote, local, 80, 40000, 6), flow);
  t.equal(flows.directionOf(flow), ingress);
  t.equal(flows.find(remote, local, 40000, 80, 6), noFlow, 'the ports belong to their ends');
  t.equal(flows.find(local, remote, 40000, 80, 17), noFlow, 'another protocol');
});

t.test('a flow opened from outside has its local end at the destination', async (t) => {
  const flows = createFlows(64);
  flows.find(remote, local, 50000, 22, 6);
  const flow = flows.insert(ingress, 0, Verdict.Redirect, 0);
  t.equal(flows.columns.opener[flow], ingress);
  flows.find(remote, local, 50000, 22, 6);
  t.equal(flows.directionOf(flow), ingress);
  flows.find(local, remote, 22, 50000, 6);
  t.equal(flows.directionOf(flow), egress);
});

t.test('equal addresses at both ends are told apart by their ports', async (t) => {
  const flows = createFlows(64);
  flows.find(local, local, 5, 9, 17);
  const flow = flows.insert(egress, 0, Verdict.Pass, 0);
  t.equal(flows.find(local, local, 9, 5, 17), flow);
  t.equal(flows.directionOf(flow), ingress);
});

t.test('agrees with a Map under random inserts, finds and removals', async (t) => {
  const flows = createFlows(256);
  const model = new Map<string, number>();
  let seed = 42;
  const random = (limit: number) => {
    seed = (Math.imul(seed, 1103515245) + 12345) & 0x7fffffff;
    return (seed >>> 8) % limit;
  };
  for (let step = 0; step < 50_000; step++) {
    const tuple = [random(12) - 6, random(12) - 6, random(3), random(3), 6] as const;
    const [source, target, sourcePort, targetPort] = tuple;
    const names = [
      [source >>> 0, sourcePort],
      [target >>> 0, targetPort],
    ].sort((a, b) => a[0] - b[0] || a[1] - b[1]);
    const name = names.join('-');
    const found = flows.find(...tuple);
    if (found !== (model.get(name) ?? noFlow)) t.fail(`step ${step}: ${name}`);
    if (found === noFlow && model.size < 250) model.set(name, flows.insert(egress, 0, 1, step));
    else if (found !== noFlow && random(2) === 0) {
      flows.remove(found, FlowEnd.Idle);
      model.delete(name);
    }
    if (flows.count !== model.size) t.fail(`step ${step}: count`);
  }
  t.ok(model.size > 20, 'the walk kept a population');
});

t.test('TCP state follows the flags of both directions', async (t) => {
  const flows = createFlows(64);
  const send = (leaves: boolean, flags: number) => {
    const flow = leaves ? flows.find(local, remote, 1, 2, 6) : flows.find(remote, local, 2, 1, 6);
    flows.touch(flow, flags, 1);
    return flows.state[flow];
  };
  flows.find(local, remote, 1, 2, 6);
  flows.insert(egress, 0, Verdict.Redirect, 0);
  t.equal(send(true, TCP.SYN), FlowState.Opening);
  t.equal(send(false, TCP.SYN | TCP.ACK), FlowState.Opening);
  t.equal(send(true, TCP.ACK), FlowState.Open);
  t.equal(send(true, TCP.FIN | TCP.ACK), FlowState.HalfClosed);
  t.equal(
    send(true, TCP.FIN | TCP.ACK),
    FlowState.HalfClosed,
    'a retransmitted FIN changes nothing',
  );
  t.equal(send(false, TCP.FIN | TCP.ACK), FlowState.Closed);
  t.equal(send(false, TCP.ACK), FlowState.Closed, 'the last ACK does not reopen it');
});

t.test('idle flows go after their own time', async (t) => {
  for (const [protocol, seconds] of [
    [17, 120],
    [1, 30],
    [6, 30],
    [47, 600],
  ]) {
    const flows = createFlows(64);
    flows.find(local, remote, 1, 2, protocol);
    flows.insert(egress, 0, Verdict.Redirect, 0);
    flows.sweep(seconds * 10, 64);
    t.equal(flows.count, 1, `protocol ${protocol} is there at ${seconds} s`);
    flows.sweep(seconds * 10 + 1, 64);
    t.equal(flows.count, 0, `and gone after`);
  }
});

/** A table of 64 with what `begin` makes of TCP port 0, 1, 2 … */
function fullTable(begin: (flows: Flows, flow: number, port: number) => void): Flows {
  const flows = createFlows(64);
  for (let port = 0; port < 64; port++) {
    flows.find(local, remote, port, 80, 6);
    begin(flows, flows.insert(egress, 0, Verdict.Redirect, 1000), port);
  }
  return flows;
}

const has = (flows: Flows, port: number) => flows.find(local, remote, port, 80, 6) !== noFlow;

function insert(flows: Flows, port: number, nowTick: number): number {
  flows.find(local, remote, port, 80, 6);
  return flows.insert(egress, 0, Verdict.Redirect, nowTick);
}

function shake(flows: Flows, flow: number, port: number, nowTick = 1000): void {
  flows.touch(flow, TCP.SYN, nowTick);
  flows.find(remote, local, 80, port, 6);
  flows.touch(flow, TCP.SYN | TCP.ACK, nowTick);
  flows.find(local, remote, port, 80, 6);
  flows.touch(flow, TCP.ACK, nowTick);
}

t.test('a full table evicts what closed first, then what was never answered', async (t) => {
  const flows = fullTable((flows, flow, port) => {
    if (port >= 4) shake(flows, flow, port);
    else flows.touch(flow, TCP.SYN, 1000);
    if (port === 9 || port === 7) flows.touch(flow, TCP.RST, 1000);
  });
  flows.find(local, remote, 0, 80, 6);
  flows.touch(flows.find(local, remote, 0, 80, 6), TCP.SYN, 1000);
  // Number 8 has just closed: it comes last, unless it gets older.
  const now = 1011;
  flows.touch(flows.find(local, remote, 8, 80, 6), TCP.RST, now);
  for (let port = 10; port < 64; port++)
    flows.touch(flows.find(local, remote, port, 80, 6), TCP.ACK, now);
  for (const port of [4, 5, 6]) flows.touch(flows.find(local, remote, port, 80, 6), TCP.ACK, now);
  const gone = [7, 9, 1, 2, 3, 0, 8];
  for (const [round, port] of gone.entries()) {
    t.ok(has(flows, port));
    const flow = insert(flows, 1000 + round, now);
    t.notOk(has(flows, port), `round ${round} ends ${port}`);
    shake(flows, flow, 1000 + round, now);
  }
  t.equal(insert(flows, 2000, now), noFlow, 'the rest is established and busy');
  t.equal(insert(flows, 2000, now + 10), noFlow, 'also after a second');
  t.not(insert(flows, 2000, now + 11), noFlow, 'what is silent for longer makes room');
  t.equal(flows.count, 64);
  t.equal(flows.evicted, gone.length + 1);
});

t.test('a flood of half-open connections evicts none that is established', async (t) => {
  const flows = fullTable((flows, flow, port) => {
    if (port < 60) shake(flows, flow, port);
  });
  // Hours later: all are idle, and the flood is young.
  for (let port = 100; port < 40_000; port++) {
    if (insert(flows, port, 60_000 + (port >> 8)) === noFlow) t.fail(`port ${port}`);
  }
  for (let port = 0; port < 60; port++) t.ok(has(flows, port));
});

t.test('one packet or one side alone establishes nothing', async (t) => {
  const rounds: [string, number, (flows: Flows, flow: number) => void][] = [
    ['a SYN and an ACK of one side', 6, (flows, flow) => flows.touch(flow, TCP.ACK, 1000)],
    ['a stream that nobody answers', 17, (flows, flow) => flows.touch(flow, 0, 1000)],
  ];
  for (const [what, protocol, more] of rounds) {
    const flows = createFlows(64);
    for (let port = 0; port < 65; port++) {
      flows.find(local, remote, port, 80, protocol);
      const flow = flows.insert(egress, 0, Verdict.Redirect, 1000);
      more(flows, flow);
      if (port === 63) {
        flows.find(local, remote, 0, 80, protocol);
        more(flows, flows.find(local, remote, 0, 80, protocol));
      }
    }
    t.not(flows.find(local, remote, 0, 80, protocol), noFlow, `${what}: the busy stays`);
    t.equal(flows.find(local, remote, 1, 80, protocol), noFlow, `${what}: the idle goes`);
  }
  const flows = createFlows(64);
  for (let port = 0; port < 65; port++) {
    flows.find(local, remote, port, 53, 17);
    const flow = flows.insert(egress, 0, Verdict.Redirect, 1000);
    if (port > 63) continue;
    flows.find(remote, local, 53, port, 17);
    flows.touch(flow, 0, 1000);
  }
  t.equal(flows.find(local, remote, 64, 53, 17), noFlow, 'answered UDP makes no room');
});

t.test('cookies differ and change when a connection begins again', async (t) => {
  const flows = createFlows(4096);
  const cookies = new Set<number>();
  for (let i = 0; i < 4096; i++) {
    flows.find(local, remote, i, 80, 6);
    cookies.add(flows.cookie[flows.insert(egress, 0, Verdict.Redirect, 0)]);
  }
  t.ok(cookies.size > 4090);
  const before = flows.cookie[0];
  flows.restart(0, egress, Verdict.Redirect, 0);
  t.not(flows.cookie[0], before);
});

t.test('later fragments find the flow of their first one, for a bounded time', async (t) => {
  const fragments = new Fragments(16);
  fragments.remember(local, remote, 7, 17, 3, 55, 1, 100);
  t.equal(fragments.find(local, remote, 7, 17, 100), 3);
  t.equal(fragments.find(local, remote, 7, 17, 400), 3);
  t.equal(fragments.find(local, remote, 7, 17, 401), -1, 'too old');
  t.equal(fragments.find(local, remote, 8, 17, 100), -1, 'another datagram');
  t.equal(fragments.find(local, remote, 7, 6, 100), -1, 'another protocol');
  t.equal(fragments.find(remote, local, 7, 17, 100), -1, 'the other direction');
  for (let id = 100; id < 200; id++) fragments.remember(local, remote, id, 17, id, id, 0, id);
  t.equal(fragments.find(local, remote, 199, 17, 199), 199, 'the newest always fits');
  t.same([fragments.cookie, fragments.sourceIsA], [199, 0]);
});

t.test("a record that serves another connection by now is not the datagram's", async (t) => {
  const flows = createFlows(1);
  flows.find(local, remote, 1, 80, 17);
  const flow = flows.insert(egress, 0, Verdict.Redirect, 0);
  const cookie = flows.cookie[flow];
  flows.find(remote, local, 80, 1, 17);
  t.ok(flows.select(flow, cookie, 1));
  t.equal(flows.sourceIsA, 1);
  t.ok(flows.select(flow, cookie, 0));
  t.equal(flows.sourceIsA, 0);
  flows.remove(flow, FlowEnd.Evicted);
  t.notOk(flows.select(flow, cookie, 1), 'ended');
  // Between the same addresses, as another of the same pair of hosts would be.
  flows.find(local, remote, 2, 80, 17);
  t.equal(flows.insert(egress, 0, Verdict.Redirect, 0), flow, 'the same record');
  t.notOk(flows.select(flow, cookie, 1), 'of another flow');
});
