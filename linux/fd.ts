/** File descriptors with an owner: closed once, in reverse order of opening. */
import { close, type Fd } from './syscall.ts';

/** A last-in first-out list of things to undo; `closeAll` runs each once, even when one throws. */
export class Closers {
  private readonly closers: (() => void)[] = [];

  add(close: () => void): void {
    this.closers.push(close);
  }

  /** Take ownership of a descriptor and return it. */
  own(fd: Fd): Fd {
    this.closers.push(() => void close(fd));
    return fd;
  }

  /** Idempotent. Throws the first error after everything else has been undone. */
  closeAll(): void {
    let first: unknown;
    for (let undo = this.closers.pop(); undo !== undefined; undo = this.closers.pop()) {
      try {
        undo();
      } catch (error) {
        first ??= error;
      }
    }
    if (first !== undefined) throw first;
  }
}
