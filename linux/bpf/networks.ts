/**
 * The networks that pass, as the kernel's longest-prefix map has them. A longer prefix of a policy
 * that no longer holds hides a shorter one that does, until it is removed: the packet then comes up
 * to the engine, which passes it all the same.
 */
import { type Fd, LITTLE_ENDIAN } from '../syscall.ts';
import { deleteElement, updateElement } from './load.ts';
import { networkKey, networkValueSize, type Prefix4 } from './policy.ts';

export class Networks {
  private readonly map: Fd;
  /** What is in the map: prefix as text to its generation. */
  private readonly held = new Map<string, { prefix: Prefix4; generation: number }>();

  constructor(map: Fd) {
    this.map = map;
  }

  set(prefixes: readonly Prefix4[], generation: number): void {
    const value = new Uint8Array(networkValueSize);
    new DataView(value.buffer).setUint32(0, generation, LITTLE_ENDIAN);
    for (const prefix of prefixes) {
      updateElement(this.map, keyOf(prefix), value);
      this.held.set(nameOf(prefix), { prefix, generation });
    }
  }

  forgetBefore(generation: number): void {
    for (const [name, entry] of this.held) {
      if (entry.generation >= generation) continue;
      deleteElement(this.map, keyOf(entry.prefix));
      this.held.delete(name);
    }
  }
}

function keyOf(prefix: Prefix4): Uint8Array {
  const key = new Uint8Array(networkKey.size);
  const view = new DataView(key.buffer);
  view.setUint32(networkKey.length, prefix.length, LITTLE_ENDIAN);
  view.setInt32(networkKey.address, prefix.address);
  return key;
}

function nameOf(prefix: Prefix4): string {
  return `${prefix.address}/${prefix.length}`;
}
