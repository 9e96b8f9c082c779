/** What the lab shows and compares, without a network. */
import t from 'tap';
import type { AgentStatus } from '../../lab/agent.ts';
import { compareHostStates } from '../../lab/host-state.ts';
import { countTraffic } from '../../lab/view.ts';

function statusWith(
  counters: Record<string, [number, number]>,
  kernel: Record<string, [number, number]> = {},
): AgentStatus {
  const amounts = (rows: Record<string, [number, number]>) =>
    Object.fromEntries(
      Object.entries(rows).map(([name, [packets, bytes]]) => [name, { packets, bytes }]),
    );
  return { counters: amounts(counters), kernel: amounts(kernel) } as unknown as AgentStatus;
}

t.test('packets are summed up by their fate, with rates', async (t) => {
  const before = statusWith({ redirected: [10, 1000], 'passed-by-rule': [1, 10] });
  const now = statusWith(
    { redirected: [30, 3000], reinjected: [5, 500], 'passed-by-rule': [2, 20], 'too-big': [1, 9] },
    { passedVerdict: [3, 30], droppedMode: [4, 40], excluded: [100, 100], redirected: [30, 3000] },
  );
  const traffic = countTraffic(before, now, 2);
  t.same(traffic.redirected, {
    total: { packets: 30, bytes: 3000 },
    rate: { packets: 10, bytes: 1000 },
  });
  t.same(traffic.reinjected.total, { packets: 5, bytes: 500 });
  t.same(traffic.passed.total, { packets: 5, bytes: 50 }, 'by the agent and by the kernel');
  t.same(traffic.dropped.total, { packets: 5, bytes: 49 });
  const anew = countTraffic(now, statusWith({ redirected: [1, 100] }), 1);
  t.same(anew.redirected.rate, { packets: 0, bytes: 0 }, 'an agent that started anew');
  t.same(countTraffic(undefined, undefined, 1).dropped.total, { packets: 0, bytes: 0 });
});

t.test('a difference between two states of a host names itself', async (t) => {
  const before = new Map([
    ['ip rule', ['0 local', '32766 main']],
    ['nft', []],
  ]);
  const after = new Map([
    ['ip rule', ['0 local']],
    ['nft', ['table ip x']],
  ]);
  t.same(compareHostStates(before, after), ['ip rule: - 32766 main', 'nft: + table ip x']);
  t.same(compareHostStates(before, before), []);
});
