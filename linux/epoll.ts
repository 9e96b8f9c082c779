/** Sleeping until there is something to do, and waking a thread that sleeps. */
import type { Readiness } from '../engine/io.ts';
import * as abi from './abi/net.ts';
import { Closers } from './fd.ts';
import {
  type Address,
  allocate,
  check,
  close,
  epollCreate1,
  epollCtl,
  epollWait,
  eventfd,
  type Fd,
  keepAddresses,
  LITTLE_ENDIAN,
  type Region,
  read,
  write,
} from './syscall.ts';

/** An eventfd counts in 8 bytes. */
const counterLength = 8;

export type Waker = {
  readonly fd: Fd;
  /** From any call on, the sleeper's present or next wait returns at once. */
  wake(): void;
  close(): void;
};

/** Made where the sleeper's supervisor lives; other threads get `fd` and `openWaker` it. */
export function createWaker(): Waker {
  const fd = check(eventfd(0, abi.EFD_NONBLOCK | abi.EFD_CLOEXEC), 'eventfd');
  return openWaker(fd);
}

function openWaker(fd: Fd): Waker {
  const one = allocate(counterLength);
  one.view.setUint32(0, 1, LITTLE_ENDIAN);
  const closers = new Closers();
  closers.own(fd);
  return {
    fd,
    // A full counter (EAGAIN) is a wake that has not been heard yet: as good as ours.
    wake: () => void write(fd, one.address, counterLength),
    close: () => closers.closeAll(),
  };
}

/**
 * Level-triggered: what was not read to the end wakes the next wait. `wakeFd` is emptied by the
 * wait that it ends. The descriptors stay the caller's.
 */
export function openReadiness(fds: readonly Fd[], wakeFd: Fd): EpollReadiness {
  return new EpollReadiness(fds, wakeFd);
}

class EpollReadiness implements Readiness {
  private readonly epoll: Fd;
  private readonly wakeFd: Fd;
  private readonly capacity: number;
  private readonly events: Region;
  private readonly eventsAddress: readonly Address[];
  private readonly counter = allocate(counterLength);
  private closed = false;

  constructor(fds: readonly Fd[], wakeFd: Fd) {
    this.wakeFd = wakeFd;
    this.capacity = fds.length + 1;
    this.events = allocate(this.capacity * abi.epoll_event.size);
    this.eventsAddress = keepAddresses([this.events.address]);
    this.epoll = check(epollCreate1(abi.EPOLL_CLOEXEC), 'epoll_create1');
    try {
      for (const fd of [...fds, wakeFd]) this.watch(fd);
    } catch (error) {
      this.close();
      throw error;
    }
  }

  wait(timeoutMs: number): boolean {
    const count = epollWait(this.epoll, this.eventsAddress[0], this.capacity, timeoutMs);
    for (let index = 0; index < count; index++) {
      const at = index * abi.epoll_event.size;
      const fd = this.events.view.getUint32(at + abi.epoll_event.data, LITTLE_ENDIAN);
      const events = this.events.view.getUint32(at + abi.epoll_event.events, LITTLE_ENDIAN);
      if (fd === this.wakeFd) {
        read(fd, this.counter.address, counterLength);
      } else if ((events & abi.EPOLLIN) === 0) {
        // An error without data (the TUN was deleted) would end every wait at once from now on.
        epollCtl(this.epoll, abi.EPOLL_CTL_DEL, fd, 0);
      }
    }
    return count > 0;
  }

  /** Idempotent. */
  close(): void {
    if (!this.closed) close(this.epoll);
    this.closed = true;
  }

  private watch(fd: Fd): void {
    const event = allocate(abi.epoll_event.size);
    event.view.setUint32(abi.epoll_event.events, abi.EPOLLIN, LITTLE_ENDIAN);
    event.view.setUint32(abi.epoll_event.data, fd, LITTLE_ENDIAN);
    check(epollCtl(this.epoll, abi.EPOLL_CTL_ADD, fd, event.address), 'epoll_ctl');
  }
}
