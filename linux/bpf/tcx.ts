/**
 * Attaching by TCX links. They go with the process, however it ends, unless they are kept: then
 * they have a name in a bpffs (pins.ts), by which the next run finds them.
 *
 * First in line: what we take away, others see once, when it comes back, in its final form.
 */
import { close, type Fd } from '../syscall.ts';
import { type AttachMethod, type Attachment, around, type Hook, type Owner } from './attach.ts';
import { leftoverPins, pinLink, pinPlace, pinPrefix, releasePin, unpinLink } from './pins.ts';
import { createLink, describeTcxLink, detachLink, programsOn, updateLink } from './tcx-link.ts';

export const tcx: AttachMethod = {
  name: 'TCX',
  attach(program, interfaceIndex, hook, owner) {
    return new TcxLink(createLink(program, interfaceIndex, hook), hook, owner);
  },
  leftovers(directory, owner) {
    return leftoverPins(directory, owner).map((path) => ({
      name: pinPlace(path),
      release: () => releasePin(path),
    }));
  },
};

class TcxLink implements Attachment {
  private fd: Fd;
  private readonly hook: Hook;
  private readonly owner: Owner;
  /** Path of its name, or ''. */
  private pinned = '';

  constructor(fd: Fd, hook: Hook, owner: Owner) {
    this.fd = fd;
    this.hook = hook;
    this.owner = owner;
  }

  replace(program: Fd): void {
    updateLink(this.fd, program);
  }

  isInPlace(): boolean {
    return this.fd >= 0 && (describeTcxLink(this.fd)?.interfaceIndex ?? 0) !== 0;
  }

  others(): { before: number; after: number } {
    const link = this.fd >= 0 ? describeTcxLink(this.fd) : null;
    if (link === null || link.interfaceIndex === 0) return { before: 0, after: 0 };
    return around(programsOn(link.interfaceIndex, this.hook), (id) => id === link.program);
  }

  keep(directory: string, interfaceName: string): void {
    if (this.pinned !== '') return;
    this.pinned = pinLink(this.fd, directory, interfaceName, pinPrefix(this.owner, this.hook));
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
