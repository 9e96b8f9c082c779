/**
 * Packets on their way from one data-path worker to another: a ring of bytes in shared memory, one
 * writer, one reader, no lock and no wait.
 *
 *     Int32    written, read: bytes, counted for ever modulo 2^32; padding to 64 bytes
 *     bytes    records, each whole and on 8 bytes: `Word` words, then the packet
 *
 * A record that does not fit before the end begins anew at the front, behind a skip. Ordering: the
 * writer stores `written` after the record (Atomics are sequentially consistent), so a reader that
 * sees the count sees the record; likewise `read` and the room that is free again.
 */

/** What a record holds; the numbers that come with it are the caller's. */
export type HandoverRecord = {
  length: number;
  readonly words: Int32Array;
};

/** Words of a record that are the caller's. */
export const recordWords = 8;
const headerWords = 2 + recordWords;
const headerLength = 4 * headerWords;
const ringHeader = 64;
const writtenWord = 0;
const readWord = 1;
/** In the place of a length. */
const skip = -1;

/** Eight super-packets of 64 KiB, or 500 full packets: a breath of the reader's. A power of two. */
const ringLength = 512 * 1024;

export const handoverRingByteLength = ringHeader + ringLength;

function roundUp(length: number): number {
  return (length + 7) & ~7;
}

class Ring {
  protected readonly header: Int32Array;
  protected readonly words: Int32Array;
  protected readonly bytes: Uint8Array;

  /** @param at where the ring's handoverRingByteLength bytes begin */
  constructor(memory: SharedArrayBuffer, at: number) {
    this.header = new Int32Array(memory, at, ringHeader / 4);
    this.words = new Int32Array(memory, at + ringHeader, ringLength / 4);
    this.bytes = new Uint8Array(memory, at + ringHeader, ringLength);
  }
}

export class HandoverWriter extends Ring {
  private written: number;

  constructor(memory: SharedArrayBuffer, at: number) {
    super(memory, at);
    // A worker that takes over from a dead one goes on where it was.
    this.written = this.header[writtenWord];
  }

  /** Copy `bytes[at, at + length)` and the numbers; false when there is no room. */
  write(bytes: Uint8Array, at: number, length: number, numbers: Int32Array): boolean {
    const { header, words } = this;
    const needed = headerLength + roundUp(length);
    const free = ringLength - ((this.written - Atomics.load(header, readWord)) >>> 0);
    let place = this.written & (ringLength - 1);
    const left = ringLength - place;
    const skipped = left < needed ? left : 0;
    if (free < needed + skipped) return false;
    if (skipped > 0) {
      words[place >> 2] = skip;
      place = 0;
    }
    const word = place >> 2;
    words[word] = length;
    for (let i = 0; i < recordWords; i++) words[word + 2 + i] = numbers[i];
    this.bytes.set(bytes.subarray(at, at + length), place + headerLength);
    this.written = (this.written + skipped + needed) | 0;
    Atomics.store(header, writtenWord, this.written);
    return true;
  }
}

export class HandoverReader extends Ring {
  get isEmpty(): boolean {
    return Atomics.load(this.header, writtenWord) === this.header[readWord];
  }

  /** The oldest record: its packet to `bytes[at...]`, its numbers to `record`. False: none. */
  read(bytes: Uint8Array, at: number, record: HandoverRecord): boolean {
    const { header, words } = this;
    let read = header[readWord];
    if (Atomics.load(header, writtenWord) === read) return false;
    let place = read & (ringLength - 1);
    if (words[place >> 2] === skip) {
      read = (read + ringLength - place) | 0;
      place = 0;
    }
    const word = place >> 2;
    const length = words[word];
    record.length = length;
    for (let i = 0; i < recordWords; i++) record.words[i] = words[word + 2 + i];
    const from = place + headerLength;
    bytes.set(this.bytes.subarray(from, from + length), at);
    Atomics.store(header, readWord, (read + headerLength + roundUp(length)) | 0);
    return true;
  }
}
