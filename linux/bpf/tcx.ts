/**
 * Attaching by TCX links. They go with the process, however it ends, unless they are kept: then
 * they have a name in a bpffs (pins.ts), by which the next run finds them.
 *
 * First in line: what we take away, others see once, when it comes back, in its final form.
 */
import { close, type Fd } from '../syscall.ts';
import type { AttachMethod, Attachment, Hook } from './attach.ts';
import { leftoverPins, pinLink, releasePin, unpinLink } from './pins.ts';
import { createLink, describeTcxLink, detachLink, updateLink } from './tcx-link.ts';

export const tcx: AttachMethod = {
  name: 'TCX',
  attach(program, interfaceIndex, hook) {
    return new TcxLink(createLink(program, interfaceIndex, hook), hook);
  },
  leftovers(directory) {
    return leftoverPins(directory).map((path) => ({
      name: path,
      release: () => releasePin(path),
    }));
  },
};

class TcxLink implements Attachment {
  private fd: Fd;
  private readonly hook: Hook;
  /** Path of its name, or ''. */
  private pinned = '';

  constructor(fd: Fd, hook: Hook) {
    this.fd = fd;
    this.hook = hook;
  }

  replace(program: Fd): void {
    updateLink(this.fd, program);
  }

  isInPlace(): boolean {
    return this.fd >= 0 && (describeTcxLink(this.fd)?.interfaceIndex ?? 0) !== 0;
  }

  keep(directory: string, interfaceName: string): void {
    if (this.pinned !== '') return;
    this.pinned = pinLink(this.fd, directory, interfaceName, this.hook);
  }

  letGo(): void {
    if (this.pinned === '') return;
    const path = this.pinned;
    this.pinned = '';
    unpinLink(path);
  }

  detach(): void {
    if (this.fd < 0) return;
    const fd = this.fd;
    this.fd = -1;
    try {
      detachLink(fd);
    } finally {
      close(fd);
      this.letGo();
    }
  }
}
