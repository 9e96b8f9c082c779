/** What outsiders must not foresee: the place of a flow in its table, and its cookie. */

/** Random words fetched at once: a call to the system's generator costs microseconds. */
const pool = 1024;

export class RandomWords {
  private readonly words = new Int32Array(pool);
  private at = pool;

  /** An int32. */
  next(): number {
    if (this.at === pool) {
      crypto.getRandomValues(this.words);
      this.at = 0;
    }
    return this.words[this.at++];
  }
}

/** MurmurHash3's finaliser over the words of the key (public domain, Austin Appleby). */
export function hashTuple(
  a: number,
  b: number,
  ports: number,
  protocol: number,
  seed: number,
): number {
  let h = seed ^ a;
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b) ^ b;
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35) ^ ports;
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b) ^ protocol;
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return h ^ (h >>> 16);
}
