/** What the watch makes of a host that changes, over a fake host. */
import t from 'tap';
import type { Links } from '../../cli/host-policy.ts';
import { type Host, HostWatch } from '../../cli/host-watch.ts';
import type { Logger } from '../../cli/log.ts';
import type { Interface } from '../../linux/netlink.ts';

const eth0 = { name: 'eth0', index: 2, mac: '02:00:00:00:00:01', type: 1 } as Interface;
const firewall = 0x0a09_0004;

function start() {
  const said: string[] = [];
  const say = (words: string) => void said.push(words);
  const state = {
    news: false,
    links: { interfaces: [eth0], broadcasts: [7], globalIpv6: false } as Links,
    source: 0x0a01_000a,
    missing: [] as { interfaceName: string; hook: string }[],
    segmentation: true,
    applied: 0,
    connected: 0,
    settled: 0,
    canConnect: true,
    refuses: '',
  };
  const host: Host = {
    hasChanged: () => {
      const { news } = state;
      state.news = false;
      return news;
    },
    links: () => state.links,
    sourceTo: () => state.source,
    missing: () => state.missing,
    others: () => [],
    segmentation: () => state.segmentation,
    apply: async () => {
      if (state.refuses !== '') throw new Error(state.refuses);
      state.applied++;
      state.missing = [];
    },
    settled: () => void state.settled++,
    reconnect: () => {
      if (state.canConnect) state.connected++;
      return state.canConnect;
    },
  };
  const logger = { warn: say, info: say, error: say } as unknown as Logger;
  const watch = new HostWatch(host, state.links, [firewall], logger);
  let now = 0;
  return {
    state,
    watch,
    said,
    /** The kernel has news, and the watch looks. */
    async look() {
      state.news = true;
      now += 200;
      await watch.tick(now);
    },
    async wait(ms: number) {
      now += ms;
      await watch.tick(now);
    },
  };
}

t.test('nothing happens, nothing is done; without news it looks now and then', async (t) => {
  const { look, said, state, wait, watch } = start();
  await look();
  t.same([state.applied, state.connected, said, watch.drift], [0, 0, [], []]);
  state.missing = [{ interfaceName: 'eth0', hook: 'egress' }];
  await wait(1000);
  t.equal(state.applied, 0, 'not yet');
  await wait(3000);
  t.equal(state.applied, 1);
  t.match(watch.repairs[0]!.words, /egress hook of eth0 was taken away, and is back/);
});

t.test('an interface that goes is waited for, and its programs are not missed', async (t) => {
  const { look, said, state, watch } = start();
  state.links = { ...state.links, interfaces: [{ ...eth0, index: 0 }] };
  state.missing = [{ interfaceName: 'eth0', hook: 'egress' }];
  await look();
  t.match(said, [/eth0 is gone/]);
  t.equal(watch.repairCount, 0);
  const { applied } = state;
  state.missing = [{ interfaceName: 'eth0', hook: 'egress' }];
  await look();
  await look();
  t.equal(state.applied, applied, 'once');
  state.links = { ...state.links, interfaces: [{ ...eth0, index: 9 }] };
  await look();
  t.match(watch.repairs, [{ words: /eth0 is back/ }]);
});

t.test('an address that changes, with a moment without any', async (t) => {
  const { look, said, state, watch } = start();
  state.source = 0;
  await look();
  t.match(watch.drift, [/no route to the firewall 10\.9\.0\.4/]);
  t.equal(state.connected, 0);
  state.source = 0x0a01_004d;
  state.canConnect = false;
  await look();
  t.same(watch.repairs, [], 'not possible yet');
  state.canConnect = true;
  await look();
  t.match(watch.repairs, [{ words: /10\.1\.0\.77 now/ }]);
  t.same(watch.drift, []);
  t.match(said[1], /^no longer: there is no route/);
});

t.test('what the kernel refuses is said once, shown, and tried again', async (t) => {
  const { look, said, state, watch } = start();
  state.missing = [{ interfaceName: 'eth0', hook: 'ingress' }];
  state.refuses = 'another filter has priority 1';
  await look();
  await look();
  t.match(said, ['cannot be put right: another filter has priority 1']);
  t.same(watch.drift, ['another filter has priority 1']);
  state.refuses = '';
  await look();
  t.same(watch.drift, []);
  t.equal(watch.repairCount, 1);
});

t.test('a device that cannot cut is said once', async (t) => {
  const { look, said, state } = start();
  state.segmentation = false;
  await look();
  await look();
  t.match(said, [/EIO/]);
});
