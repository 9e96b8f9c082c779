/**
 * SYNs of distinct 5-tuples from a raw socket, at a rate, as fast as the machine allows if that is
 * less. Arguments: who varies (`source` or `target`: 65,536 addresses from the given one on, then
 * the next source port), the source's and the target's address, the target's port, how many in all,
 * how many a second. Prints how long it took, in ms.
 */
import * as abi from '../../linux/abi/net.ts';
import {
  allocate,
  check,
  LITTLE_ENDIAN,
  sendmmsg,
  setPointer,
  socket,
} from '../../linux/syscall.ts';

const batch = 64;
const packetLength = 40;
const addressesInTurn = 65536;
const rawProtocol = 255;
/** Between bursts, so that a rate is not all in the first milliseconds of each second. */
const sleepMs = 1;

const [varies = '', source = '', target = '', port = '', total = '', rate = ''] =
  process.argv.slice(2);
const number = (text: string) => Buffer.from(text.split('.').map(Number)).readUInt32BE();
const fd = check(socket(abi.AF_INET, abi.SOCK_RAW, rawProtocol), 'socket');
const packets = allocate(batch * packetLength);
const vectors = allocate(batch * abi.iovec.size);
const names = allocate(batch * abi.sockaddr_in.size);
const messages = allocate(batch * abi.mmsghdr.size);
for (let i = 0; i < batch; i++) {
  const at = i * packetLength;
  packets.view.setUint16(at, 0x4500);
  packets.view.setUint16(at + 2, packetLength);
  packets.view.setUint16(at + 6, 0x4000);
  packets.view.setUint16(at + 8, (64 << 8) | 6);
  packets.view.setUint16(at + 22, Number(port));
  packets.view.setUint16(at + 32, 0x5002);
  packets.view.setUint16(at + 34, 64240);
  setPointer(vectors.view, i * abi.iovec.size, packets.address + at);
  vectors.view.setUint32(i * abi.iovec.size + abi.iovec.iov_len, packetLength, LITTLE_ENDIAN);
  names.view.setUint16(i * abi.sockaddr_in.size, abi.AF_INET, LITTLE_ENDIAN);
  const row = i * abi.mmsghdr.size;
  setPointer(messages.view, row, names.address + i * abi.sockaddr_in.size);
  messages.view.setUint32(row + abi.msghdr.msg_namelen, abi.sockaddr_in.size, LITTLE_ENDIAN);
  setPointer(messages.view, row + abi.msghdr.msg_iov, vectors.address + i * abi.iovec.size);
  messages.view.setUint32(row + abi.msghdr.msg_iovlen, 1, LITTLE_ENDIAN);
}

/** RFC 1071 over the pseudo header and the TCP header. The kernel fills the IP header's. */
function finishChecksum(at: number): void {
  const { view } = packets;
  view.setUint16(at + 36, 0);
  let sum = 6 + 20;
  for (let word = at + 12; word < at + packetLength; word += 2) sum += view.getUint16(word);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  view.setUint16(at + 36, ~sum & 0xffff);
}

function write(slot: number, index: number): void {
  const at = slot * packetLength;
  const turn = index % addressesInTurn;
  const from = number(source) + (varies === 'source' ? turn : 0);
  const to = number(target) + (varies === 'target' ? turn : 0);
  packets.view.setUint32(at + 12, from);
  packets.view.setUint32(at + 16, to);
  packets.view.setUint16(at + 20, 20000 + Math.floor(index / addressesInTurn));
  packets.view.setUint32(at + 24, Math.imul(index, 0x9e3779b1) >>> 0);
  finishChecksum(at);
  names.view.setUint32(slot * abi.sockaddr_in.size + abi.sockaddr_in.sin_addr, to);
}

const lock = new Int32Array(new SharedArrayBuffer(4));
const start = performance.now();
let sent = 0;
while (sent < Number(total)) {
  const due = ((performance.now() - start) * Number(rate)) / 1000;
  const count = Math.min(batch, Number(total) - sent, Math.floor(due) - sent);
  if (count < 1) {
    Atomics.wait(lock, 0, 0, sleepMs);
    continue;
  }
  for (let slot = 0; slot < count; slot++) write(slot, sent + slot);
  sent += check(sendmmsg(fd, messages.address, count, 0), 'sendmmsg');
}
console.log(Math.round(performance.now() - start));
