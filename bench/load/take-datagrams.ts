/**
 * Takes UDP datagrams and counts them. Whenever it has been quiet after some, it prints how many
 * have come in all, as one line of JSON.
 *
 *     node take-datagrams.js PORT
 */
import { writeSync } from 'node:fs';
import * as abi from '../../linux/abi/net.ts';
import {
  allocate,
  bind,
  check,
  type Fd,
  LITTLE_ENDIAN,
  recvmmsg,
  setPointer,
  setsockopt,
  socket,
} from '../../linux/syscall.ts';
import { writeAddress } from './address.ts';

const batch = 64;
const longest = 2048;
/** A second of the highest rates: it must not be the receiver that loses. */
const receiveBuffer = 64 << 20;
const quietMs = 40;
/** asm-generic/socket.h, bits/socket.h */
const SO_RCVTIMEO = 20;
const MSG_WAITFORONE = 0x10000;

run(Number(process.argv[2]));

function run(port: number): never {
  const fd = open(port);
  const vectors = allocate(batch * abi.iovec.size);
  const messages = allocate(batch * abi.mmsghdr.size);
  const space = allocate(batch * longest);
  for (let index = 0; index < batch; index++) {
    const vectorAt = index * abi.iovec.size;
    setPointer(vectors.view, vectorAt + abi.iovec.iov_base, space.address + index * longest);
    vectors.view.setUint32(vectorAt + abi.iovec.iov_len, longest, LITTLE_ENDIAN);
    const at = index * abi.mmsghdr.size;
    setPointer(messages.view, at + abi.msghdr.msg_iov, vectors.address + vectorAt);
    messages.view.setUint32(at + abi.msghdr.msg_iovlen, 1, LITTLE_ENDIAN);
  }
  writeSync(1, `${JSON.stringify({ taken: 0 })}\n`);
  let taken = 0;
  let told = 0;
  for (;;) {
    const count = recvmmsg(fd, messages.address, batch, MSG_WAITFORONE, 0);
    if (count > 0) {
      taken += count;
    } else if (taken !== told) {
      writeSync(1, `${JSON.stringify({ taken })}\n`);
      told = taken;
    }
  }
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
