/** The ways in which programs get on hooks: which one this kernel has, and what is left of all. */
import type { AttachMethod, Leftover } from './attach.ts';
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
export function findLeftovers(directory: string): Leftover[] {
  return [tcx, clsact].flatMap((method) => method.leftovers(directory));
}

/**
 * For an operator, when a dead agent's programs drop traffic: takes all off the hooks of this
 * thread's network namespace. Returns how many there were. Throws SystemError.
 */
export function releaseLeftovers(directory: string): number {
  return findLeftovers(directory).filter((leftover) => leftover.release()).length;
}
