/**
 * System calls through koffi: the only file that imports it. Every pointer crosses as a Number
 * address (`uintptr_t`), every other argument as an integer: 100 to 160 ns a call on Node 20,
 * where a typed-array argument adds 10 and Node's own fs calls cost 300.
 *
 * Calls return what the C function returns; -1 means `errno()` says why. Whoever passes an address
 * keeps its buffer reachable until the call returns, and for ever when the kernel keeps it.
 */
import { arch } from 'node:process';
import koffi from 'koffi';
import { callFailed } from './errors.ts';

const libc = koffi.load('libc.so.6');
koffi.alias('ssize_t', 'long');

export type Fd = number;
/** An address in this process; user addresses are below 2^47, so a Number holds them exactly. */
export type Address = number;

export const open: (path: string, flags: number, mode: number) => Fd = libc.func(
  'int open(const char*, int, int)',
);
export const close: (fd: Fd) => number = libc.func('int close(int)');
export const read: (fd: Fd, buffer: Address, length: number) => number = libc.func(
  'ssize_t read(int, uintptr_t, size_t)',
);
export const write: (fd: Fd, buffer: Address, length: number) => number = libc.func(
  'ssize_t write(int, uintptr_t, size_t)',
);
export const writev: (fd: Fd, iovec: Address, count: number) => number = libc.func(
  'ssize_t writev(int, uintptr_t, int)',
);
export const ioctl: (fd: Fd, request: number, argument: Address) => number = libc.func(
  'int ioctl(int, unsigned long, uintptr_t)',
);
export const socket: (domain: number, type: number, protocol: number) => Fd = libc.func(
  'int socket(int, int, int)',
);
export const bind: (fd: Fd, address: Address, length: number) => number = libc.func(
  'int bind(int, uintptr_t, uint32_t)',
);
export const connect: (fd: Fd, address: Address, length: number) => number = libc.func(
  'int connect(int, uintptr_t, uint32_t)',
);
export const listen: (fd: Fd, backlog: number) => number = libc.func('int listen(int, int)');
export const accept4: (fd: Fd, address: Address, length: Address, flags: number) => Fd = libc.func(
  'int accept4(int, uintptr_t, uintptr_t, int)',
);
export const setsockopt: (
  fd: Fd,
  level: number,
  name: number,
  value: Address,
  length: number,
) => number = libc.func('int setsockopt(int, int, int, uintptr_t, uint32_t)');
export const getsockname: (fd: Fd, address: Address, length: Address) => number = libc.func(
  'int getsockname(int, uintptr_t, uintptr_t)',
);
export const getsockopt: (
  fd: Fd,
  level: number,
  name: number,
  value: Address,
  length: Address,
) => number = libc.func('int getsockopt(int, int, int, uintptr_t, uintptr_t)');
export const send: (fd: Fd, buffer: Address, length: number, flags: number) => number = libc.func(
  'ssize_t send(int, uintptr_t, size_t, int)',
);
export const recv: (fd: Fd, buffer: Address, length: number, flags: number) => number = libc.func(
  'ssize_t recv(int, uintptr_t, size_t, int)',
);
export const sendmsg: (fd: Fd, message: Address, flags: number) => number = libc.func(
  'ssize_t sendmsg(int, uintptr_t, int)',
);
export const sendmmsg: (fd: Fd, messages: Address, count: number, flags: number) => number =
  libc.func('int sendmmsg(int, uintptr_t, unsigned int, int)');
export const recvmmsg: (
  fd: Fd,
  messages: Address,
  count: number,
  flags: number,
  timeout: Address,
) => number = libc.func('int recvmmsg(int, uintptr_t, unsigned int, int, uintptr_t)');
export const epollCreate1: (flags: number) => Fd = libc.func('int epoll_create1(int)');
export const epollCtl: (epoll: Fd, operation: number, fd: Fd, event: Address) => number = libc.func(
  'int epoll_ctl(int, int, int, uintptr_t)',
);
export const epollWait: (epoll: Fd, events: Address, count: number, timeoutMs: number) => number =
  libc.func('int epoll_wait(int, uintptr_t, int, int)');
export const eventfd: (initial: number, flags: number) => Fd = libc.func(
  'int eventfd(unsigned int, int)',
);
export const clockGettime: (clock: number, timespec: Address) => number = libc.func(
  'int clock_gettime(int, uintptr_t)',
);
export const adjtimex: (timex: Address) => number = libc.func('int adjtimex(uintptr_t)');
export const mmap: (
  address: Address,
  length: number,
  protection: number,
  flags: number,
  fd: Fd,
  offset: number,
) => Address = libc.func('uintptr_t mmap(uintptr_t, size_t, int, int, int, long)');
export const mount: (
  source: string,
  target: string,
  type: string,
  flags: number,
  data: Address,
) => number = libc.func(
  'int mount(const char*, const char*, const char*, unsigned long, uintptr_t)',
);
export const umount2: (target: string, flags: number) => number = libc.func(
  'int umount2(const char*, int)',
);
export const fcntl: (fd: Fd, command: number, argument: number) => number = libc.func(
  'int fcntl(int, int, long)',
);
export const prctl: (option: number, a: number, b: number, c: number, d: number) => number =
  libc.func('int prctl(int, unsigned long, unsigned long, unsigned long, unsigned long)');
/** Both lists end with null. Only returns when it fails. */
export const execve: (
  path: string,
  words: readonly (string | null)[],
  environment: readonly (string | null)[],
) => number = libc.func('int execve(const char*, const char**, const char**)');
export const setrlimit: (resource: number, limit: Address) => number = libc.func(
  'int setrlimit(int, uintptr_t)',
);
export const setns: (fd: Fd, type: number) => number = libc.func('int setns(int, int)');
const syscall3: (number: number, a: number, b: Address, c: number) => number = libc.func(
  'long syscall(long, long, uintptr_t, long)',
);

/** bpf(2) has no wrapper in libc. */
const bpfNumber: Record<string, number> = { x64: 321, arm64: 280 };
export function bpf(command: number, attributes: Address, length: number): number {
  return syscall3(bpfNumber[arch] ?? -1, command, attributes, length);
}

export type Library = { func(prototype: string): never };

/** The first of these shared libraries that the host has; undefined: none. */
export function loadLibrary(names: readonly string[]): Library | undefined {
  for (const name of names) {
    try {
      return koffi.load(name) as unknown as Library;
    } catch {
      // The next name, then.
    }
  }
  return undefined;
}

/** errno of the last call in this thread. */
export function errno(): number {
  return koffi.errno();
}

/**
 * Address of a buffer's first byte. The buffer must be large or external (never moved by GC) and
 * kept reachable.
 */
export function addressOf(buffer: ArrayBufferLike | ArrayBufferView): Address {
  const target = ArrayBuffer.isView(buffer) ? buffer : new Uint8Array(buffer);
  return Number(koffi.address(target));
}

/** Memory at an address (a mapping) as an ArrayBuffer, no copy; valid until it is unmapped. */
export function viewAt(address: Address, length: number): ArrayBuffer {
  return koffi.view(BigInt(address), length) as ArrayBuffer;
}

/** Memory for kernel structs: its own allocation, whose address stays while it is reachable. */
export type Region = {
  readonly bytes: Uint8Array;
  readonly view: DataView;
  readonly address: Address;
};
export function allocate(length: number): Region {
  // WebAssembly.Memory would round to 64 KiB; an ArrayBuffer of its own is never moved either.
  const bytes = new Uint8Array(new ArrayBuffer(length));
  return { bytes, view: new DataView(bytes.buffer), address: addressOf(bytes) };
}

/**
 * Addresses to be passed again and again. A Number above 2^31 is an object of 16 bytes to V8, made
 * anew by whatever computes it or reads it from a field of numbers; elements of an array that also
 * holds something else are passed as they are.
 */
export function keepAddresses(addresses: readonly Address[]): readonly Address[] {
  const kept: unknown[] = [null];
  for (let index = 0; index < addresses.length; index++) kept[index] = addresses[index];
  kept[addresses.length] = null;
  return kept as Address[];
}

/** For calls that must work: throws a SystemError named after `call` for a negative result. */
export function check(result: number, call: string): number {
  if (result < 0) throw callFailed(call, errno());
  return result;
}

export const LITTLE_ENDIAN = true;

/** Write a pointer-sized value without BigInt: user addresses are below 2^47. */
export function setPointer(view: DataView, at: number, value: number): void {
  view.setUint32(at, value >>> 0, LITTLE_ENDIAN);
  view.setUint32(at + 4, Math.floor(value / 0x1_0000_0000), LITTLE_ENDIAN);
}
