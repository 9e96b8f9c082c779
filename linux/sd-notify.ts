/**
 * What a service tells its manager: lines `NAME=value`, one datagram each time, to the socket that
 * the manager named in the environment (sd_notify(3), which libsystemd implements; the protocol is
 * promised to stay).
 */
import {
  AF_UNIX,
  MSG_DONTWAIT,
  MSG_NOSIGNAL,
  SOCK_CLOEXEC,
  SOCK_DGRAM,
  sockaddr_un,
} from './abi/net.ts';
import { openClock } from './clock.ts';
import {
  allocate,
  check,
  close,
  connect,
  type Fd,
  LITTLE_ENDIAN,
  type Region,
  send,
  socket,
} from './syscall.ts';

export type Environment = Readonly<Record<string, string | undefined>>;

/** Longer words are cut: a status is one line for a person. */
const messageLength = 4096;
const microsecondsPerMillisecond = 1000;

export class ServiceManager {
  private readonly fd: Fd;
  private readonly message: Region = allocate(messageLength);

  constructor(fd: Fd) {
    this.fd = fd;
  }

  /**
   * Tell it, such as `{ READY: '1' }`. False when it does not listen, which is no reason to stop:
   * a manager that is restarted takes the next.
   */
  tell(fields: Readonly<Record<string, string>>): boolean {
    const lines = Object.entries(fields).map(([name, value]) => `${name}=${oneLine(value)}`);
    const { written } = new TextEncoder().encodeInto(lines.join('\n'), this.message.bytes);
    return send(this.fd, this.message.address, written, MSG_NOSIGNAL | MSG_DONTWAIT) === written;
  }

  /** A reload has begun; it has ended with the next `READY`. */
  tellReloading(): boolean {
    const microseconds = Math.floor(openClock().now() * microsecondsPerMillisecond);
    return this.tell({ RELOADING: '1', MONOTONIC_USEC: String(microseconds) });
  }

  close(): void {
    close(this.fd);
  }
}

/**
 * The manager of this process; undefined when there is none, or one that is not reached by a Unix
 * socket.
 * @throws SystemError when there is one and it cannot be reached
 */
export function openServiceManager(environment: Environment): ServiceManager | undefined {
  const path = environment.NOTIFY_SOCKET ?? '';
  if (!/^[/@]./.test(path)) return undefined;
  const { address, length } = unixAddress(path);
  const fd = check(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0), 'socket(AF_UNIX)');
  if (connect(fd, address.address, length) < 0) {
    try {
      check(-1, `connect(${path})`);
    } finally {
      close(fd);
    }
  }
  return new ServiceManager(fd);
}

/**
 * How long the manager waits for a sign of life before it ends this process, in ms; 0 when it does
 * not wait (sd_watchdog_enabled(3)).
 */
export function watchdogMs(environment: Environment, pid: number): number {
  const { WATCHDOG_PID = String(pid), WATCHDOG_USEC = '' } = environment;
  if (WATCHDOG_PID !== String(pid) || !/^\d+$/.test(WATCHDOG_USEC)) return 0;
  return Number(WATCHDOG_USEC) / microsecondsPerMillisecond;
}

/** unix(7): a path, or with `@` a name that is in no file system. */
function unixAddress(path: string): { readonly address: Region; readonly length: number } {
  const address = allocate(sockaddr_un.size);
  const bytes = new TextEncoder().encode(path);
  const length = sockaddr_un.sun_path + bytes.length;
  if (length >= sockaddr_un.size) throw new RangeError(`NOTIFY_SOCKET is too long: ${path}`);
  address.view.setUint16(sockaddr_un.sun_family, AF_UNIX, LITTLE_ENDIAN);
  address.bytes.set(bytes, sockaddr_un.sun_path);
  if (path.startsWith('@')) address.bytes[sockaddr_un.sun_path] = 0;
  return { address, length: path.startsWith('@') ? length : length + 1 };
}

/** A line break would begin another field. */
function oneLine(text: string): string {
  return text.replace(/\s+/g, ' ');
}
