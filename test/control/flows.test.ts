import t from 'tap';
import { listFlows, parseFlowQuery } from '../../control/flows.ts';
import { flowColumnsByteLength } from '../../engine/flow-columns.ts';
import { Flows, Verdict } from '../../engine/flows.ts';
import { address, TCP } from '../support/packets.ts';

const names = {
  interfaces: ['eth0'],
  rule: (rule: number) => `rule ${rule}`,
  firewall: (firewall: number) => (firewall === 255 ? '' : `fw-${firewall}`),
};

function query(text: string) {
  return parseFlowQuery(new URLSearchParams(text));
}

function table(): Flows {
  const flows = new Flows(64, new SharedArrayBuffer(flowColumnsByteLength(64)));
  const add = (remote: string, port: number, protocol: number, verdict: Verdict, bytes: number) => {
    flows.find(address('10.1.0.10'), address(remote), 40000, port, protocol);
    const flow = flows.insert(0, 0, verdict, 100);
    flows.describe(flow, port, 1, 0, 1, 0);
    flows.account(flow, 0, 1, bytes);
    flows.account(flow, 1, 2, 10);
    return flow;
  };
  add('10.2.0.20', 80, 6, Verdict.Redirect, 1000);
  add('10.2.0.21', 53, 17, Verdict.Pass, 5000);
  flows.find(address('10.2.0.22'), address('10.1.0.10'), 50000, 22, 6);
  const flow = flows.insert(1, 0, Verdict.PassEstablished, 50);
  flows.describe(flow, -1, 1, 0, 1, 255);
  flows.touch(flow, TCP.RST, 120);
  return flows;
}

t.test('a flow is told as the host sees it', async (t) => {
  const { flows, matching } = listFlows([table().columns], query('port=80'), 150, names);
  t.equal(matching, 1);
  t.same(flows, [
    {
      protocol: 'tcp',
      local: '10.1.0.10',
      localPort: 40000,
      remote: '10.2.0.20',
      remotePort: 80,
      opener: 'egress',
      interface: 'eth0',
      verdict: 'redirect',
      rule: 'rule 80',
      firewall: 'fw-0',
      state: 'opening',
      by: 'agent',
      ageMs: 5000,
      idleMs: 5000,
      egress: { packets: 1, bytes: 1000 },
      ingress: { packets: 2, bytes: 10 },
    },
  ]);
});

t.test('filters and orders', async (t) => {
  const ports = (text: string) =>
    listFlows([table().columns], query(text), 150, names).flows.map(({ remotePort }) => remotePort);
  t.same(ports(''), [53, 80, 50000], 'by bytes');
  t.same(ports('sort=age'), [50000, 80, 53], 'the oldest first');
  t.same(ports('sort=idle&limit=1'), [80]);
  t.same(ports('protocol=udp'), [53]);
  t.same(ports('protocol=6'), [80, 50000]);
  t.same(ports('address=10.2.0.22'), [50000]);
  t.same(ports('verdict=pass-established'), [50000]);
  t.same(ports('port=22'), [50000], 'at either end');
  t.equal(listFlows([table().columns], query('limit=1'), 150, names).matching, 3);
});

t.test('wrong questions are answered with a sentence', async (t) => {
  for (const [text, words] of [
    ['sort=size', /sort is bytes/],
    ['limit=0', /limit is a whole number/],
    ['port=x', /port is a whole number/],
    ['protocol=tpc', /protocol is tcp/],
    ['address=10.2', /address is like/],
    ['verdict=maybe', /verdict is undecided, redirect/],
  ] as const) {
    t.throws(() => query(text), { name: 'RangeError', message: words }, text);
  }
});
