/**
 * The one source of chance of every fuzzer: mulberry32, 32 bits of state. A case has a generator of
 * its own, made from the run's seed, the fuzzer's name and the case's number, so that any case can
 * be had again without those before it.
 */
export class Random {
  private state: number;

  constructor(seed: number) {
    this.state = seed | 0;
  }

  /** 0 to 2^32 - 1. */
  next(): number {
    this.state = (this.state + 0x6d2b79f5) | 0;
    const { state } = this;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return (mixed ^ (mixed >>> 14)) >>> 0;
  }

  /** 0 to `limit` - 1. */
  below(limit: number): number {
    return Math.floor((this.next() / 0x1_0000_0000) * limit);
  }

  /** Once in `times`. */
  once(times: number): boolean {
    return this.below(times) === 0;
  }

  pick<T>(choices: readonly T[]): T {
    return choices[this.below(choices.length)];
  }
}

/** FNV-1a over the name, then the two numbers. */
export function seedOf(seed: number, name: string, number: number): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < name.length; i++) {
    hash = Math.imul(hash ^ name.charCodeAt(i), 0x01000193);
  }
  hash = Math.imul(hash ^ seed, 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 15) ^ number, 0xc2b2ae35);
  return hash ^ (hash >>> 13);
}

/**
 * From now on the flow table's cookies, hash seed and evictions are the generator's too: it asks
 * the global `crypto`, which has no seed.
 */
export function seedCrypto(random: Random): void {
  const getRandomValues = (words: Int32Array): Int32Array => {
    for (let i = 0; i < words.length; i++) words[i] = random.next();
    return words;
  };
  Object.defineProperty(globalThis, 'crypto', { value: { getRandomValues }, configurable: true });
}
