/** The ways in which programs get on hooks: which one this kernel has, and what is left of all. */
import type { AttachMethod, Leftover, Owner } from './attach.ts';
import { clsact } from './clsact.ts';
import { tcx } from './tcx.ts';
import { hasTcx } from './tcx-link.ts';

/**
 * TCX where the kernel has it, found by asking; else clsact, which throws UnsupportedFeature when
 * it is missing, too: on the TUN device, which comes first, so that nothing of the host is touched.
 */
export function chooseAttachMethod(): AttachMethod {
  return hasTcx() ? tcx : clsact;
}

/** Of every method: the kernel may have had another when the dead run started. */
export function findLeftovers(directory: string, owner: Owner): Leftover[] {
  return [tcx, clsact].flatMap((method) => method.leftovers(directory, owner));
}

/**
 * Takes what a dead agent, or the boot guard, has on hooks of this thread's network namespace off
 * them. Returns how many programs there were. Throws SystemError.
 */
export function releaseLeftovers(directory: string, owner: Owner): number {
  return findLeftovers(directory, owner).filter((leftover) => leftover.release()).length;
}
