/** What steering knows of the way in which a program gets on a hook, and of what stays of it. */
import type { Fd } from '../syscall.ts';

export type Hook = 'ingress' | 'egress';

/** A program on a hook. */
export interface Attachment {
  /** Puts another program in its place; no packet passes between the two. */
  replace(program: Fd): void;
  /** Whether it still is on its hook: others can take it off, or the interface away. */
  isInPlace(): boolean;
  /**
   * From now on it outlives this process. A method that needs a name for it uses `directory`, which
   * is on a bpffs or made one. Idempotent. Throws SystemError.
   */
  keep(directory: string, interfaceName: string): void;
  /** From now on it goes with this process, as far as the method can do that. Idempotent. */
  letGo(): void;
  /** Takes the program off the hook. Idempotent; works when the interface is gone. */
  detach(): void;
}

/** What a run that is over left on a hook. */
export interface Leftover {
  /** For an operator. */
  readonly name: string;
  /** Takes it off the hook. False when it was not there any more. Throws SystemError. */
  release(): boolean;
}

export interface AttachMethod {
  readonly name: string;
  /** First in line on the hook, before programs that are there. Throws SystemError. */
  attach(program: Fd, interfaceIndex: number, hook: Hook): Attachment;
  /**
   * Everything of this method that is on hooks of this thread's network namespace, whoever put it
   * there: asked before the first `attach`, all of it is a dead run's. `directory` as in `keep`.
   */
  leftovers(directory: string): Leftover[];
}
