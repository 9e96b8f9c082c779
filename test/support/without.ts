/**
 * Takes one optimisation away from an agent, for tests: `node --import` loads this into every
 * thread before the agent itself, and WITHOUT names what goes. What the agent does must stay the
 * same.
 */
import { Handover, type HandoverOptions } from '../../engine/handover.ts';
import { probeSource } from '../../engine/probe.ts';
import { DatagramSender } from '../../linux/udp-send.ts';
import type { FlowKey } from '../../parsers/flow-key.ts';
import { Coalescer } from '../../tunnel/coalesce.ts';

const sender = DatagramSender.prototype as unknown as { join(): boolean };
const { add } = Coalescer.prototype;
const { queue } = DatagramSender.prototype;

const handover = Handover.prototype as unknown as {
  homeOf(this: { options: HandoverOptions }, key: FlowKey): number;
};
const { homeOf } = handover;

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
  /** The kernel always chooses another worker than the flow's. */
  spreading() {
    handover.homeOf = function (key) {
      // One of them only has sent it.
      if (key.source === probeSource) return homeOf.call(this, key);
      return (homeOf.call(this, key) + 1) % this.options.spread.workers;
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
