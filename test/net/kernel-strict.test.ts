// Untimed: another test may run beside this one.
/**
 * A kernel whose verifier refuses a process with few capabilities what later ones allow it, in an
 * emulated machine (needs root, and a Debian mirror).
 */
import { programsWork, testKernel } from '../vm/kernel-test.ts';

testKernel('bookworm', '6.1', programsWork);
