// Untimed: another test may run beside this one.
/**
 * A workload with a NIC that is no veth, by its driver: an emulated machine with Debian's kernel,
 * and the lab's other hosts (needs root, and a Debian mirror). What leaves it is looked at where
 * its wire would be.
 */
import t, { type Test } from 'tap';
import { writeAgentConfig } from '../../lab/agent.ts';
import { addresses } from '../../lab/topology.ts';
import { startIperfServer, startWebServer } from '../../lab/traffic.ts';
import { startHairpin } from '../support/hairpin.ts';
import { fetchKernel } from '../vm/kernel.ts';
import { type Nic, runIn } from '../vm/machine.ts';

const { firewall, router, server, workload } = addresses;
const limitMs = 150_000;
const transferBytes = 4_000_000;

async function carries(t: Test, model: Nic['model']): Promise<void> {
  const kernel = fetchKernel('bookworm');
  const hairpin = await startHairpin(t, { topology: { offloads: 'firewall-off' } });
  const { topology } = hairpin;
  const servers = [
    await startWebServer(topology.server, 'server', server, [80]),
    await startIperfServer(topology.server),
  ];
  t.teardown(() => Promise.all(servers.map((one) => one.stop())));
  topology.router.ip('link del workload');
  topology.router.ip('tuntap add dev workload mode tap');
  topology.router.ip(`addr add ${router}/24 dev workload`);
  topology.router.ip('link set workload up');
  const config = writeAgentConfig({
    directory: hairpin.directory,
    ca: hairpin.certificates.ca,
    firewall,
    encapsulation: 'geneve',
  });
  const onWire = await hairpin.capture(topology.router, 'wire', {
    filter: 'udp port 6081',
    interface: 'workload',
  });
  const ask = `curl --silent --unix-socket ${hairpin.directory}/control.sock http://agent/status`;
  const { code, output } = await runIn(
    kernel,
    `ip addr add ${workload}/24 dev eth0
ip link set eth0 up
ip route add default via ${router}
bin/microperimeter run --config ${config} &
for i in $(seq 200); do
  ${ask} | grep -q '"state": *"redirecting"' && break
  sleep 0.3
done
curl --fail --silent --max-time 20 http://${server}/ >/dev/null || exit 2
for way in '' -R; do iperf3 -c ${server} -n ${transferBytes} $way || exit 3; done
sleep 0.5
echo "status: $(${ask} | tr -d '\\n')"
ethtool -k eth0 | grep -E 'tcp-segmentation-offload|tx-udp_tnl-segmentation'
kill %1
wait %1
`,
    limitMs,
    { model, namespace: topology.router.path, tap: 'workload' },
  );
  await onWire.stop();
  if (!t.equal(code, 0, 'all of it')) {
    t.comment(output.slice(-8000));
    return;
  }
  const status = JSON.parse(/^status: (.*)$/m.exec(output)![1]!);
  t.match(status.acceleration, { by: 'kernel', reason: '' });
  // What vmxnet3 joins on receiving is the agent's.
  t.ok(status.kernel.carriedOut.bytes > 0.8 * transferBytes, 'by the kernel');
  t.ok(status.kernel.carriedBack.bytes > 1.8 * transferBytes);
  t.match(output, /tx-udp_tnl-segmentation: off/, 'the NIC cuts no tunnels: the kernel does');
  t.ok((await onWire.count('geneve')) > (2 * transferBytes) / 1448, 'through the tunnel');
  t.same(await onWire.read('frame.len > 1514', ['frame.len']), [], 'no larger than the wire');
  t.equal(await onWire.count('_ws.malformed || ip.checksum.status == 0'), 0);
}

for (const model of ['virtio-net-pci', 'vmxnet3', 'e1000e'] as const) {
  t.test(model, (t) => carries(t, model));
}
