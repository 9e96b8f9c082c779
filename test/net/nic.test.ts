// Untimed: another test may run beside this one.
/**
 * A workload with a NIC that is no veth, by its driver: an emulated machine with Debian's kernel,
 * and the lab's other hosts (needs root, and a Debian mirror). What leaves it is looked at where
 * its wire would be.
 */
import t, { type Test } from 'tap';
import { addresses } from '../../lab/topology.ts';
import { fetchKernel } from '../vm/debian.ts';
import { startGuest } from '../vm/guest.ts';
import { type Nic, runIn } from '../vm/machine.ts';

const { server } = addresses;
const limitMs = 150_000;
const transferBytes = 4_000_000;

async function carries(t: Test, model: Nic['model']): Promise<void> {
  const kernel = fetchKernel('bookworm');
  const { config, directory, network, nic, wire } = await startGuest(t);
  const ask = `curl --silent --unix-socket ${directory}/control.sock http://agent/status`;
  const { code, output } = await runIn(
    kernel,
    `${network}
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
    { ...nic, model },
  );
  await wire.stop();
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
  t.ok((await wire.count('geneve')) > (2 * transferBytes) / 1448, 'through the tunnel');
  t.same(await wire.read('frame.len > 1514', ['frame.len']), [], 'no larger than the wire');
  t.equal(await wire.count('_ws.malformed || ip.checksum.status == 0'), 0);
}

for (const model of ['virtio-net-pci', 'vmxnet3'] as const) {
  t.test(model, (t) => carries(t, model));
}
