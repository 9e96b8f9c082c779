/**
 * Takes UDP datagrams and counts those of the latest trial, the number that each begins with. Says
 * `ready`, then now and then, and when it has become quiet, how many have come, as a line of JSON.
 *
 *     node take-datagrams.js PORT
 */
import { writeSync } from 'node:fs';
import { constants } from 'node:os';
import * as abi from '../../linux/abi/net.ts';
import {
  allocate,
  bind,
  check,
  errno,
  type Fd,
  LITTLE_ENDIAN,
  recvmmsg,
  setPointer,
  setsockopt,
  socket,
} from '../../linux/syscall.ts';
import { writeAddress } from './address.ts';

export type Taken = { readonly trial: number; readonly taken: number };

const batch = 64;
const longest = 2048;
/** A second of the highest rates: it must not be the receiver that loses. */
const receiveBuffer = 64 << 20;
const quietMs = 20;
const tellEveryMs = 100;
/** asm-generic/socket.h, bits/socket.h */
const SO_RCVTIMEO = 20;
const MSG_WAITFORONE = 0x10000;

/** The kernel knows these by address alone; held together, none is collected while one is used. */
const regions = {
  vectors: allocate(batch * abi.iovec.size),
  messages: allocate(batch * abi.mmsghdr.size),
  space: allocate(batch * longest),
};

const fd = open(Number(process.argv[2]));
prepare();
writeSync(1, 'ready\n');
run();

function prepare(): void {
  const { vectors, messages, space } = regions;
  for (let index = 0; index < batch; index++) {
    const vectorAt = index * abi.iovec.size;
    setPointer(vectors.view, vectorAt + abi.iovec.iov_base, space.address + index * longest);
    vectors.view.setUint32(vectorAt + abi.iovec.iov_len, longest, LITTLE_ENDIAN);
    const at = index * abi.mmsghdr.size;
    setPointer(messages.view, at + abi.msghdr.msg_iov, vectors.address + vectorAt);
    messages.view.setUint32(at + abi.msghdr.msg_iovlen, 1, LITTLE_ENDIAN);
  }
}

function run(): never {
  let trial = 0;
  let taken = 0;
  let told = 0;
  let tellAt = 0;
  for (;;) {
    const count = recvmmsg(fd, regions.messages.address, batch, MSG_WAITFORONE, 0);
    if (count < 0 && !isQuiet(errno())) check(count, 'recvmmsg');
    for (let index = 0; index < count; index++) {
      const id = regions.space.view.getUint32(index * longest, LITTLE_ENDIAN);
      // What comes late of an earlier trial counts for none.
      if (id < trial) continue;
      if (id > trial) {
        trial = id;
        taken = 0;
        told = 0;
      }
      taken++;
    }
    if (taken === told || (count > 0 && performance.now() < tellAt)) continue;
    told = taken;
    tellAt = performance.now() + tellEveryMs;
    writeSync(1, `${JSON.stringify({ trial, taken } satisfies Taken)}\n`);
  }
}

/** SO_RCVTIMEO, or a signal. */
function isQuiet(code: number): boolean {
  return code === constants.errno.EAGAIN || code === constants.errno.EINTR;
}

function open(port: number): Fd {
  const fd = check(socket(abi.AF_INET, abi.SOCK_DGRAM, 0), 'socket');
  const value = allocate(16);
  value.view.setInt32(0, receiveBuffer, LITTLE_ENDIAN);
  check(setsockopt(fd, abi.SOL_SOCKET, abi.SO_RCVBUFFORCE, value.address, 4), 'SO_RCVBUFFORCE');
  value.view.setInt32(0, 0, LITTLE_ENDIAN);
  value.view.setInt32(8, quietMs * 1000, LITTLE_ENDIAN);
  check(setsockopt(fd, abi.SOL_SOCKET, SO_RCVTIMEO, value.address, 16), 'SO_RCVTIMEO');
  const address = allocate(abi.sockaddr_in.size);
  writeAddress(address.view, '0.0.0.0', port);
  check(bind(fd, address.address, abi.sockaddr_in.size), 'bind');
  return fd;
}
