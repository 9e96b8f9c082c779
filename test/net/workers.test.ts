/** Several data-path workers (needs root): the kernel finds the home of each flow. */
import t from 'tap';
import { compareHostStates, readHostState } from '../../lab/host-state.ts';
import { pause, start } from '../../lab/program.ts';
import { type HairpinOptions, shell, startHairpin } from '../support/hairpin.ts';
import { bothWays, look, withWorkers } from '../support/workers.ts';

for (const [workers, options] of [
  [2, {}],
  [4, {}],
  [2, { encapsulation: 'gwlb' }],
  [2, { firewall: 'vxlan', topology: { offloads: 'firewall-off' } }],
] as const) {
  const { encapsulation = 'geneve', firewall = 'builtin' } = options as HairpinOptions;
  const name = firewall === 'vxlan' ? "the kernel's vxlan" : encapsulation;

  t.test(`${workers} workers, ${name}: the kernel finds the home of each flow`, async (t) => {
    const hairpin = await startHairpin(t, withWorkers(workers, options));
    const { topology } = hairpin;
    const before = readHostState(topology.workload);
    const agent = await hairpin.startAgent();
    for (const [from, to, , target] of bothWays(topology)) {
      const iperf = start(to, 'iperf3', ['-s', '-1']);
      await pause(300);
      const out = await shell(from, `iperf3 -c ${target} -P 8 -n 16M -i 0 | grep -c receiver`);
      t.equal(Number(out), 9, `8 TCP flows to ${target}`);
      await iperf.ended;
      const echo = start(to, 'socat', ['-T1', 'UDP-LISTEN:7000,fork', 'EXEC:cat']);
      await pause(300);
      const udp = `for i in 1 2 3 4 5 6; do echo x | socat -t 1.5 - UDP:${target}:7000 & done; wait`;
      t.equal((await shell(from, udp)).replaceAll('\n', ''), 'xxxxxx', `UDP to ${target}`);
      await echo.stop();
      const pings = await shell(from, `ping -n -c 3 -i 0.1 -W 1 ${target}`);
      t.match(pings, '3 received');
    }
    const { handed, packets, status } = await look(agent);
    t.equal(status.workers.count, workers);
    t.ok(packets('reinjected') > 100, `${packets('reinjected')} packets came back`);
    // An error about a port that is closed by then has another source than its flow.
    t.ok(handed < 20, `${handed} packets came to another worker`);
    t.equal(packets('handover-full') + packets('flow-unknown'), 0);
    for (const [from, , , target] of bothWays(topology)) {
      const pings = await shell(from, `ping -n -s 4000 -c 5 -i 0.1 -W 1 ${target}`);
      t.match(pings, '5 received', 'fragments of ICMP');
    }
    await agent.program.stop();
    t.same(compareHostStates(before, readHostState(topology.workload)), []);
  });
}
