/**
 * Sends UDP datagrams at a rate and tells how many it sent: one flow, many to a system call, with a
 * short sleep between bursts, so that the generator leaves the processor to what is measured. Each
 * datagram crosses the stack by itself, unless several are to be joined (UDP_SEGMENT): those cross
 * as one, as those of a QUIC server do, and that measures something else.
 *
 *     node send-datagrams.js ADDRESS PORT
 *
 * Takes lines `TRIAL SIZE RATE SECONDS JOINED` (a number that each datagram begins with, bytes of
 * UDP payload, datagrams a second, how many are joined) and answers each with a line of JSON when
 * it is done. Says `ready` first.
 */
import { writeSync } from 'node:fs';
import { constants } from 'node:os';
import { createInterface } from 'node:readline';
import * as abi from '../../linux/abi/net.ts';
import {
  allocate,
  check,
  connect,
  errno,
  type Fd,
  LITTLE_ENDIAN,
  sendmmsg,
  setPointer,
  setsockopt,
  socket,
} from '../../linux/syscall.ts';
import { writeAddress } from './address.ts';

const batch = 64;
/** Of one send, in bytes: 64 joined datagrams of 64 bytes, or one of 1,472. */
const longest = 4096;
/** Between bursts: at 80,000 a second, 20 datagrams go at a time. */
const sleepMs = 0.25;
/** A burst at the highest rates must fit. */
const sendBuffer = 4 << 20;

export type Sent = { readonly sent: number; readonly seconds: number };

const [address = '', port = ''] = process.argv.slice(2);
const fd = open(address, Number(port));
const option = allocate(4);
const payload = allocate(longest);
const vector = allocate(abi.iovec.size);
setPointer(vector.view, abi.iovec.iov_base, payload.address);
const messages = allocate(batch * abi.mmsghdr.size);
for (let index = 0; index < batch; index++) {
  const at = index * abi.mmsghdr.size;
  setPointer(messages.view, at + abi.msghdr.msg_iov, vector.address);
  messages.view.setUint32(at + abi.msghdr.msg_iovlen, 1, LITTLE_ENDIAN);
}
const lock = new Int32Array(new SharedArrayBuffer(4));
writeSync(1, 'ready\n');
createInterface({ input: process.stdin }).on('line', (line) => {
  const [trial = 0, size = 0, rate = 0, seconds = 0, joined = 1] = line.split(' ').map(Number);
  prepare(trial, size, joined);
  writeSync(1, `${JSON.stringify(run(rate, seconds, joined))}\n`);
});

function open(to: string, toPort: number): Fd {
  const opened = check(socket(abi.AF_INET, abi.SOCK_DGRAM, 0), 'socket');
  const target = allocate(abi.sockaddr_in.size);
  writeAddress(target.view, to, toPort);
  check(connect(opened, target.address, abi.sockaddr_in.size), 'connect');
  const value = allocate(4);
  value.view.setInt32(0, sendBuffer, LITTLE_ENDIAN);
  setsockopt(opened, abi.SOL_SOCKET, abi.SO_SNDBUFFORCE, value.address, 4);
  return opened;
}

function prepare(trial: number, size: number, joined: number): void {
  if (size * joined > longest) throw new RangeError(`${joined} x ${size} bytes are too many`);
  vector.view.setUint32(abi.iovec.iov_len, size * joined, LITTLE_ENDIAN);
  option.view.setInt32(0, joined > 1 ? size : 0, LITTLE_ENDIAN);
  check(setsockopt(fd, abi.SOL_UDP, abi.UDP_SEGMENT, option.address, 4), 'UDP_SEGMENT');
  for (let index = 0; index < joined; index++) {
    payload.view.setUint32(index * size, trial, LITTLE_ENDIAN);
  }
}

function run(rate: number, seconds: number, joined: number): Sent {
  const begun = performance.now();
  const lastsMs = seconds * 1000;
  let sent = 0;
  for (;;) {
    const elapsed = performance.now() - begun;
    if (elapsed >= lastsMs) return { sent: sent * joined, seconds: elapsed / 1000 };
    const due = Math.floor(((elapsed / 1000) * rate) / joined) - sent;
    sent += burst(due, begun + lastsMs);
    Atomics.wait(lock, 0, 0, sleepMs);
  }
}

/** `due` sends, or as many as there is time for until `endMs`; returns how many. */
function burst(due: number, endMs: number): number {
  let sent = 0;
  while (sent < due && performance.now() < endMs) {
    const taken = sendmmsg(fd, messages.address, Math.min(due - sent, batch), 0);
    if (taken > 0) {
      sent += taken;
      continue;
    }
    // An ICMP error that came back ends the call, not the test.
    if (errno() !== constants.errno.ECONNREFUSED) check(taken, 'sendmmsg');
    break;
  }
  return sent;
}
