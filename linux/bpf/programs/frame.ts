/** The stack of the programs on a workload's interface, from the frame pointer down. */
import { flowKey } from '../policy.ts';

/** Where a frame's IPv4 header begins; as long is the one inside a tunnel that carries frames. */
export const ethernetLength = 14;

/** The flow key. */
export const keyAt = -flowKey.size;
/** An IPv4 header without options. */
export const ipAt = keyAt - 24;
/** TCP up to its flags, or UDP. */
export const transportAt = ipAt - 16;
export const ipv6At = transportAt - 40;
export const typeAt = ipv6At - 8;
export const networkAt = typeAt - 8;
export const counterAt = networkAt - 8;

/** Of packets that the programs carry: u32 each, but for the amounts, which are u64. */
export const recordAt = counterAt - 8;
export const epochAt = recordAt + 4;
export const lengthAt = recordAt - 8;
export const headersAt = lengthAt + 4;
export const packetsAt = lengthAt - 8;
export const bytesAt = packetsAt - 8;
export const interfaceAt = bytesAt - 8;
export const expectedAt = interfaceAt + 4;
/** Outer IPv4 (20), UDP (8) and the longest tunnel header there is: gcp's. */
const outerRoom = 28 + 156;
export const outerAt = interfaceAt - outerRoom;

/** With several workers: the one that the packet is for. */
export const workerAt = outerAt - 8;
