/**
 * New TCP connections, as many as there can be: a server that accepts and closes, a client that
 * connects, waits for the end and closes. Blocking system calls in several threads each.
 *
 *     node connections.js accept PORT
 *     node connections.js connect ADDRESS PORT SECONDS      prints one line of JSON
 */
import { writeSync } from 'node:fs';
import { isMainThread, Worker, workerData } from 'node:worker_threads';
import * as abi from '../../linux/abi/net.ts';
import {
  accept4,
  allocate,
  bind,
  check,
  close,
  connect,
  type Fd,
  LITTLE_ENDIAN,
  listen,
  recv,
  setsockopt,
  socket,
} from '../../linux/syscall.ts';
import { writeAddress } from './address.ts';

export type Connected = {
  readonly connections: number;
  readonly failed: number;
  readonly seconds: number;
};

type Work =
  | { readonly kind: 'accept'; readonly fd: Fd }
  | {
      readonly kind: 'connect';
      readonly address: string;
      readonly port: number;
      readonly seconds: number;
      /** Two Int32: connections, failures. */
      readonly counts: SharedArrayBuffer;
    };

const SOCK_STREAM = 1;
/** asm-generic/socket.h */
const SO_SNDTIMEO = 21;
const SO_RCVTIMEO = 20;
const backlog = 4096;
const acceptThreads = 2;
/** In flight at once. */
const connectThreads = 8;
/** A lost SYN is sent again after 1 s; more than that is a failure. */
const limitSeconds = 3;

// At the head of the module: the kernel knows these by address alone, so something must hold them.
const target = allocate(abi.sockaddr_in.size);
const buffer = allocate(16);
const limit = allocate(16);

if (isMainThread) await main(process.argv.slice(2));
else work(workerData as Work);

async function main([command, ...args]: string[]): Promise<void> {
  if (command === 'accept') {
    const fd = openServer(Number(args[0]));
    for (let index = 0; index < acceptThreads; index++) startThread({ kind: 'accept', fd });
    writeSync(1, 'listening\n');
    return;
  }
  const [address = '', port = '', seconds = ''] = args;
  const counts = new SharedArrayBuffer(8);
  const data = { address, port: Number(port), seconds: Number(seconds), counts };
  const begun = performance.now();
  const threads = Array.from({ length: connectThreads }, () =>
    startThread({ kind: 'connect', ...data }),
  );
  await Promise.all(threads.map((one) => new Promise((resolve) => one.once('exit', resolve))));
  const [connections = 0, failed = 0] = new Int32Array(counts);
  const result: Connected = { connections, failed, seconds: (performance.now() - begun) / 1000 };
  writeSync(1, `${JSON.stringify(result)}\n`);
}

function startThread(data: Work): Worker {
  return new Worker(new URL(import.meta.url), { workerData: data });
}

function openServer(port: number): Fd {
  const fd = check(socket(abi.AF_INET, SOCK_STREAM, 0), 'socket');
  const address = allocate(abi.sockaddr_in.size);
  writeAddress(address.view, '0.0.0.0', port);
  check(bind(fd, address.address, abi.sockaddr_in.size), 'bind');
  check(listen(fd, backlog), 'listen');
  return fd;
}

function work(data: Work): void {
  if (data.kind === 'connect') return connectUntil(data);
  for (;;) {
    const fd = accept4(data.fd, 0, 0, 0);
    // The server closes first: then it is its side that remembers the connection (TIME_WAIT), and
    // the client's ports are free at once.
    if (fd >= 0) close(fd);
  }
}

function connectUntil(data: Work & { kind: 'connect' }): void {
  const counts = new Int32Array(data.counts);
  writeAddress(target.view, data.address, data.port);
  limit.view.setInt32(0, limitSeconds, LITTLE_ENDIAN);
  const end = performance.now() + data.seconds * 1000;
  while (performance.now() < end) {
    const fd = check(socket(abi.AF_INET, SOCK_STREAM, 0), 'socket');
    setsockopt(fd, abi.SOL_SOCKET, SO_SNDTIMEO, limit.address, 16);
    setsockopt(fd, abi.SOL_SOCKET, SO_RCVTIMEO, limit.address, 16);
    const works =
      connect(fd, target.address, abi.sockaddr_in.size) === 0 &&
      recv(fd, buffer.address, 1, 0) === 0;
    close(fd);
    Atomics.add(counts, works ? 0 : 1, 1);
  }
}
