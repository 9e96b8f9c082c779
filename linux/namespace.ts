/** Network namespaces of the calling thread. */
import { CLONE_NEWNET, O_CLOEXEC, O_RDONLY } from './abi/net.ts';
import { check, close, open, setns } from './syscall.ts';

/**
 * Move the calling thread into the network namespace at `path` (`/run/netns/NAME`). Descriptors
 * keep the namespace in which they were opened; threads started later inherit it.
 * @throws SystemError
 */
export function enterNamespace(path: string): void {
  const fd = check(open(path, O_RDONLY | O_CLOEXEC, 0), `open(${path})`);
  try {
    check(setns(fd, CLONE_NEWNET), 'setns');
  } finally {
    close(fd);
  }
}

/** Do `work` in the namespace at `path`; the calling thread is back where it was afterwards. */
export function insideNamespace<T>(path: string, work: () => T): T {
  const before = check(open('/proc/thread-self/ns/net', O_RDONLY | O_CLOEXEC, 0), 'open');
  try {
    enterNamespace(path);
    return work();
  } finally {
    // Both calls were possible a moment ago; a failure here would leave us in the wrong place.
    const back = setns(before, CLONE_NEWNET);
    close(before);
    check(back, 'setns');
  }
}
