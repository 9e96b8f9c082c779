/** What steering knows of the way in which a program gets on a hook, and of what stays of it. */
import type { Fd } from '../syscall.ts';

export type Hook = 'ingress' | 'egress';

/** Whose program it is: the agent's, or the boot guard's (guard.ts), which no agent owns. */
export type Owner = 'agent' | 'guard';

/** A program on a hook. */
export interface Attachment {
  /** Puts another program in its place; no packet passes between the two. */
  replace(program: Fd): void;
  /** Whether it still is on its hook: others can take it off, or the interface away. */
  isInPlace(): boolean;
  /** How many programs of others run before and after it on its hook. Throws SystemError. */
  others(): { readonly before: number; readonly after: number };
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
  /** For an operator: `eth0 egress`. */
  readonly name: string;
  /** Takes it off the hook. False when it was not there any more. Throws SystemError. */
  release(): boolean;
}

export interface AttachMethod {
  readonly name: string;
  /** First in line on the hook, before programs that are there. Throws SystemError. */
  attach(program: Fd, interfaceIndex: number, hook: Hook, owner: Owner): Attachment;
  /**
   * Everything of this method and owner that is on hooks of this thread's network namespace: asked
   * before the first `attach`, all of it is a dead run's. `directory` as in `keep`.
   */
  leftovers(directory: string, owner: Owner): Leftover[];
}

/** How many stand before and after the one that `isOurs` knows; none when it is not among them. */
export function around<T>(
  all: readonly T[],
  isOurs: (one: T) => boolean,
): { before: number; after: number } {
  const at = all.findIndex(isOurs);
  return at < 0 ? { before: 0, after: 0 } : { before: at, after: all.length - 1 - at };
}
