/** The oldest supported kernel, in an emulated machine (needs root, and a Debian mirror). */
import { programsWork, testKernel, trafficTravels } from '../vm/kernel-test.ts';

testKernel('bullseye', '5.10', programsWork + trafficTravels);
