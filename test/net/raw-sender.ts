/**
 * A neighbour that sends whatever it likes: raw-socket with a header of its own (IP_HDRINCL). A
 * program, because the add-on must live in the namespace that it sends from. Reads packets in hex,
 * one a line, from standard input; the destination is in the packet.
 */
import { createInterface } from 'node:readline';
import raw from 'raw-socket';

const socket = raw.createSocket({ protocol: raw.Protocol.UDP });
socket.setOption(raw.SocketLevel.IPPROTO_IP, raw.SocketOption.IP_HDRINCL, 1);

function send(packet: Buffer): Promise<void> {
  const to = [...packet.subarray(16, 20)].join('.');
  return new Promise((resolve, reject) => {
    socket.send(packet, 0, packet.length, to, (error: Error | null) => {
      if (error) reject(error);
      else resolve();
    });
  });
}

for await (const line of createInterface({ input: process.stdin })) {
  await send(Buffer.from(line, 'hex'));
}
process.exit(0);
