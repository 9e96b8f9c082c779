/**
 * From a flow's key to its number: open addressing with linear probing at a load of at most one
 * half; deletion shifts back instead of leaving tombstones, so a probe ends at the first empty
 * slot. A hit touches two cache lines: the slot, which has the hash beside the number, and the key,
 * whose four words lie together.
 */

const slotWords = 2;
const keyWords = 4;

export class FlowIndex {
  /** By slot: number of the flow + 1 (0: empty), and its hash. */
  private readonly slots: Int32Array;
  /** By flow: the addresses of its ends, both ports, protocol. */
  private readonly keys: Int32Array;
  private readonly mask: number;

  constructor(capacity: number) {
    const count = 2 ** Math.ceil(Math.log2(capacity * 2));
    this.slots = new Int32Array(count * slotWords);
    this.keys = new Int32Array(capacity * keyWords);
    this.mask = count - 1;
  }

  /** The flow with this key, or -1. */
  find(a: number, b: number, ports: number, protocol: number, hash: number): number {
    const { keys, mask, slots } = this;
    for (let slot = hash & mask; ; slot = (slot + 1) & mask) {
      const flow = slots[slot * slotWords] - 1;
      if (flow < 0) return -1;
      if (slots[slot * slotWords + 1] !== hash) continue;
      const at = flow * keyWords;
      if (
        keys[at] === a &&
        keys[at + 1] === b &&
        keys[at + 2] === ports &&
        keys[at + 3] === protocol
      ) {
        return flow;
      }
    }
  }

  /** The key must not be there. */
  insert(flow: number, a: number, b: number, ports: number, protocol: number, hash: number): void {
    const { keys, mask, slots } = this;
    const at = flow * keyWords;
    keys[at] = a;
    keys[at + 1] = b;
    keys[at + 2] = ports;
    keys[at + 3] = protocol;
    let slot = hash & mask;
    while (slots[slot * slotWords] !== 0) slot = (slot + 1) & mask;
    slots[slot * slotWords] = flow + 1;
    slots[slot * slotWords + 1] = hash;
  }

  /** The flow must be there, under this hash. */
  remove(flow: number, hash: number): void {
    const { mask, slots } = this;
    let hole = hash & mask;
    while (slots[hole * slotWords] !== flow + 1) hole = (hole + 1) & mask;
    // Shift back what probed past the hole (Knuth 6.4, algorithm R).
    for (let slot = (hole + 1) & mask; slots[slot * slotWords] !== 0; slot = (slot + 1) & mask) {
      const home = slots[slot * slotWords + 1] & mask;
      if (((slot - home) & mask) >= ((slot - hole) & mask)) {
        slots[hole * slotWords] = slots[slot * slotWords];
        slots[hole * slotWords + 1] = slots[slot * slotWords + 1];
        hole = slot;
      }
    }
    slots[hole * slotWords] = 0;
  }
}
