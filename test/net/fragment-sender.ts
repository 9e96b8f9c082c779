/**
 * Sends one UDP datagram as fragments in reverse order from a raw socket, and prints the SHA-256 of
 * its payload and of what comes back. Arguments: our address, the target, its port, payload bytes.
 */
import { createHash, randomBytes } from 'node:crypto';
import { createSocket } from 'node:dgram';
import raw from 'raw-socket';
import { fragments, udp } from '../support/packets.ts';

const [source = '', target = '', port = '', size = ''] = process.argv.slice(2);
const ourPort = 6500;
const waitMs = 5000;

const payload = randomBytes(Number(size));
const hash = (bytes: Buffer) => createHash('sha256').update(bytes).digest('hex');
const answers = createSocket('udp4');
setTimeout(() => {
  console.log(hash(payload), 'nothing');
  process.exit(0);
}, waitMs);
answers.on('message', (answer) => {
  console.log(hash(payload), hash(answer));
  process.exit(0);
});
const ip = { source, target, id: 1 + Math.floor(Math.random() * 65535) };
const parts = fragments(udp(ip, ourPort, Number(port), payload), 1400, ip);
const socket = raw.createSocket({ protocol: raw.Protocol.UDP });
socket.setOption(raw.SocketLevel.IPPROTO_IP, raw.SocketOption.IP_HDRINCL, 1);
answers.bind(ourPort, source);
let sent = 0;
function send() {
  sent = 0;
  for (const part of parts.toReversed()) {
    socket.send(part, 0, part.length, target, (error) => {
      if (error) throw error;
      sent++;
    });
  }
}
send();
// The module at times waits for ever for its socket to be writable.
setTimeout(() => {
  if (sent === 0) send();
}, 1000);
