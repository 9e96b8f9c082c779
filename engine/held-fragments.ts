/**
 * Later fragments that came before their first one, which alone has the ports: they wait here, in
 * fixed memory, for less than a second. Reordering on a path is a matter of milliseconds; who waits
 * longer has lost its first fragment.
 *
 * The newest finds no place when all slots wait, so that a flood of stray fragments costs only what
 * is out of order too. A fragment that is taken keeps its slot until `reclaim`, since a send that
 * is still queued may point to its bytes. Oldest first: what follows the first fragment keeps the
 * order it came in.
 */

/** Fragments that wait at once, for each way through the engine. */
export const heldSlots = 64;
/** The largest jumbo frame in use: no fragment that came over a wire is longer. */
export const heldSlotLength = 9216;

/** Ticks of 100 ms; a fragment that came late in its tick has waited 900 ms at least 800. */
const waitTicks = 9;

export class HeldFragments {
  /** How many wait. */
  count = 0;
  /** Of the fragment last taken: its first byte, its length, and what `hold` was told of it. */
  at = 0;
  length = 0;
  tag = 0;

  private readonly bytes: Uint8Array;
  private readonly from: number;
  private readonly source = new Int32Array(heldSlots);
  private readonly target = new Int32Array(heldSlots);
  private readonly idProtocol = new Int32Array(heldSlots);
  private readonly lengths = new Int32Array(heldSlots);
  private readonly tags = new Int32Array(heldSlots);
  private readonly since = new Int32Array(heldSlots);
  /** Slots that wait, oldest first, in the front; then those taken; the free ones at the end. */
  private readonly order = Uint8Array.from({ length: heldSlots }, (_, slot) => slot);
  private taken = 0;

  /** @param from offset in `bytes` of `heldSlots * heldSlotLength` bytes that are ours */
  constructor(bytes: Uint8Array, from: number) {
    this.bytes = bytes;
    this.from = from;
  }

  /**
   * Copy the fragment `at`. `tag` is the caller's, to be had back with the fragment. False: it is
   * too long, or there is no room.
   */
  hold(
    at: number,
    length: number,
    source: number,
    target: number,
    id: number,
    protocol: number,
    tag: number,
    nowTick: number,
  ): boolean {
    const used = this.count + this.taken;
    if (used === heldSlots || length > heldSlotLength) return false;
    const slot = this.order[used];
    // Behind those that wait, before those taken: the first of these makes room at the end.
    this.order[used] = this.order[this.count];
    this.order[this.count] = slot;
    this.count++;
    this.bytes.copyWithin(this.from + slot * heldSlotLength, at, at + length);
    this.source[slot] = source;
    this.target[slot] = target;
    this.idProtocol[slot] = (id << 8) | protocol;
    this.lengths[slot] = length;
    this.tags[slot] = tag;
    this.since[slot] = nowTick;
    return true;
  }

  /** The oldest that waits for this datagram: true, and it is in `at`, `length` and `tag`. */
  take(source: number, target: number, id: number, protocol: number): boolean {
    const idProtocol = (id << 8) | protocol;
    for (let position = 0; position < this.count; position++) {
      const slot = this.order[position];
      if (
        this.idProtocol[slot] === idProtocol &&
        this.source[slot] === source &&
        this.target[slot] === target
      ) {
        this.remove(position);
        return true;
      }
    }
    return false;
  }

  /** The oldest, when it has waited for too long at `nowTick`; as `take`. */
  takeExpired(nowTick: number): boolean {
    if (this.count === 0 || nowTick - this.since[this.order[0]] < waitTicks) return false;
    this.remove(0);
    return true;
  }

  /** The slots of all that was taken are free again: nothing points to them any more. */
  reclaim(): void {
    this.taken = 0;
  }

  private remove(position: number): void {
    const { order } = this;
    const slot = order[position];
    this.at = this.from + slot * heldSlotLength;
    this.length = this.lengths[slot];
    this.tag = this.tags[slot];
    this.count--;
    for (let next = position; next < this.count; next++) order[next] = order[next + 1];
    order[this.count] = slot;
    this.taken++;
  }
}
