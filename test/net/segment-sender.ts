/**
 * Sends bytes as datagrams of one size with one call (UDP_SEGMENT), so that they cross a veth
 * joined, and prints in hex what comes back until 800 ms of silence. Arguments: port (ours and the
 * firewall's), the firewall's last address byte (10.9.0.x), size, bytes in hex.
 */
import {
  allocate,
  bind,
  check,
  connect,
  recv,
  send,
  setsockopt,
  socket,
} from '../../linux/syscall.ts';

const [port = '', last = '', size = '', hex = ''] = process.argv.slice(2);
const fd = check(socket(2, 2, 0), 'socket');
const name = allocate(16);
name.view.setUint16(0, 2, true);
name.view.setUint16(2, Number(port));
check(bind(fd, name.address, 16), 'bind');
name.bytes.set([10, 9, 0, Number(last)], 4);
check(connect(fd, name.address, 16), 'connect');
const option = allocate(16);
option.view.setInt32(0, Number(size), true);
check(setsockopt(fd, 17, 103, option.address, 4), 'setsockopt(UDP_SEGMENT)');
option.view.setUint32(0, 0, true);
option.view.setUint32(8, 800_000, true);
check(setsockopt(fd, 1, 20, option.address, 16), 'setsockopt(SO_RCVTIMEO)');
const bytes = Buffer.from(hex, 'hex');
const memory = allocate(65536);
memory.bytes.set(bytes);
check(send(fd, memory.address, bytes.length, 0), 'send');
for (;;) {
  const length = recv(fd, memory.address, 65536, 0);
  if (length < 0) break;
  console.log(Buffer.from(memory.bytes.subarray(0, length)).toString('hex'));
}
