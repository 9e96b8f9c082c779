/**
 * Eyes that are not ours: cap captures on an interface of the namespace that this program runs in
 * and decodes; a line of JSON for each UDP datagram. Says `ready` first.
 */
import cap from 'cap';

const { Cap, decoders } = cap;
const [device = 'eth0'] = process.argv.slice(2);
const capture = new Cap();
const buffer = Buffer.alloc(65535);
const link = capture.open(device, 'udp', 4 << 20, buffer);
capture.setMinBytes?.(0);

capture.on('packet', () => {
  if (link !== 'ETHERNET') return;
  const ethernet = decoders.Ethernet(buffer);
  if (ethernet.info.type !== decoders.PROTOCOL.ETHERNET.IPV4) return;
  const ip = decoders.IPV4(buffer, ethernet.offset);
  if (ip.info.protocol !== decoders.PROTOCOL.IP.UDP) return;
  const udp = decoders.UDP(buffer, ip.offset);
  const { srcaddr, dstaddr } = ip.info;
  const { srcport, dstport } = udp.info;
  process.stdout.write(`${JSON.stringify({ srcaddr, dstaddr, srcport, dstport })}\n`);
});
process.stdout.write('ready\n');
