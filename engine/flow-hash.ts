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

/**
 * A hash of the tuple alone, the same in both directions: another agent, or this one when it is
 * started again, gets the same. Not for tables: whoever chooses ports can aim it.
 */
export function symmetricHash(
  source: number,
  target: number,
  sourcePort: number,
  targetPort: number,
  protocol: number,
): number {
  const ports = ((sourcePort ^ targetPort) << 16) | ((sourcePort + targetPort) & 0xffff);
  return hashTuple(source ^ target, (source + target) | 0, ports, protocol, 0);
}
