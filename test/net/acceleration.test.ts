import t from 'tap';
import { addresses } from '../../lab/topology.ts';
import { type Hairpin, shell, startHairpin } from '../support/hairpin.ts';

const { server } = addresses;
for (const firewall of ['vxlan', 'builtin'] as const) {
  t.test(firewall, async (t) => {
    const hairpin: Hairpin = await startHairpin(t, {
      firewall,
      topology: { offloads: firewall === 'vxlan' ? 'firewall-off' : 'firewall-off' },
      top: { acceleration: 'kernel' },
    });
    const { topology } = hairpin;
    const iperf = topology.server.spawn('iperf3', ['-s', '-1']);
    t.teardown(() => void iperf.kill());
    const agent = await hairpin.startAgent();
    const ticks = () => {
      const stat = shell(topology.workload, `cat /proc/${agent.program.pid}/stat`);
      return stat.then((text) => text.split(' ').slice(13, 15).map(Number));
    };
    const before = await ticks();
    const out = await shell(topology.workload, `iperf3 -c ${server} -t 3 -J`);
    const result = JSON.parse(out).end;
    console.error(
      firewall,
      result.sum_sent.retransmits,
      result.sum_received.bits_per_second / 1e9,
      before,
      await ticks(),
    );
    await new Promise((resolve) => setTimeout(resolve, 300));
    const status = await agent.status();
    console.error(JSON.stringify(status!.counters, null, 1), JSON.stringify(status!.kernel));
    console.error(
      await shell(
        topology.workload,
        `ss -ti dst ${server} | head -5; nstat -az | grep -E 'Retrans|Reorder|DSACK' | head -20`,
      ),
    );
    t.pass();
  });
}
