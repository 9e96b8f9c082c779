/**
 * Takes one optimisation away from an agent, for tests: `node --import` loads this into every
 * thread before the agent itself, and WITHOUT names what goes. What the agent does must stay the
 * same.
 */
import { DatagramSender } from '../../linux/udp-send.ts';
import { Coalescer } from '../../tunnel/coalesce.ts';

const sender = DatagramSender.prototype as unknown as { join(): boolean };
const { add } = Coalescer.prototype;
const { queue } = DatagramSender.prototype;

const removals: Readonly<Record<string, () => void>> = {
  /** Super-datagrams are cut by ourselves, one call for each. */
  segmentation() {
    DatagramSender.prototype.queue = function (this: DatagramSender, ...rest) {
      this.segmentation = false;
      return queue.apply(this, rest);
    };
  },
  /** Each datagram is a message of its own. */
  joining() {
    sender.join = () => false;
  },
  /** Each packet that comes back is written by itself. */
  coalescing() {
    Coalescer.prototype.add = function (this: Coalescer, ...rest) {
      add.apply(this, rest);
      this.flush();
    };
  },
  /** Checksums by plain TypeScript. */
  simd() {
    WebAssembly.Module = class {
      constructor() {
        throw new Error('no WebAssembly modules');
      }
    } as unknown as typeof WebAssembly.Module;
  },
};

const name = process.env.WITHOUT ?? '';
removals[name]?.();
console.error(name in removals ? `without ${name}` : `nothing is called ${name}`);
