/**
 * Beginnings and ends of flows, on their way from the data path to whoever writes them down: a ring
 * of fixed-size records in shared memory, one writer, one reader, no lock and no wait. When the
 * reader is behind, records are lost and counted; the path does not notice.
 *
 *     Int32    written, read, lost, (pad)
 *     Float64  packets and bytes of each direction, 4 for each record
 *     Int32    the rest, `Word` for each record
 *
 * Ordering: the writer stores `written` after the record (Atomics are sequentially consistent), so
 * a reader that sees the count sees the record; likewise `read` and the slot that is free again.
 * Both count on for ever, modulo 2^32.
 */
import type { FlowColumns } from './flow-columns.ts';

export const FlowEvent = { Start: 0, End: 1 } as const;
export type FlowEvent = (typeof FlowEvent)[keyof typeof FlowEvent];

/** How a flow ended; a beginning has None. */
export const FlowEnd = {
  None: 0,
  /** TCP: both sides said so. */
  Fin: 1,
  /** TCP: one side broke it off. */
  Rst: 2,
  /** No packet for longer than its state allows. */
  Idle: 3,
  /** It had to make room. */
  Evicted: 4,
  /** A new connection began on its 5-tuple. */
  Replaced: 5,
  /** The agent stopped; the connection may live on. */
  Stop: 6,
  /** It goes on under another verdict (`reload --reclassify`). */
  Reclassified: 7,
} as const;
export type FlowEnd = (typeof FlowEnd)[keyof typeof FlowEnd];

const Word = {
  event: 0,
  end: 1,
  verdict: 2,
  protocol: 3,
  opener: 4,
  localIsA: 5,
  link: 6,
  addressA: 7,
  addressB: 8,
  ports: 9,
  rule: 10,
  generation: 11,
  firstSeen: 12,
  lastSeen: 13,
  firewall: 14,
} as const;
const wordsPerRecord = 15;
const doublesPerRecord = 4;

const headerBytes = 16;
const writtenWord = 0;
const readWord = 1;
const lostWord = 2;

/**
 * Records that fit: a reader that looks every 200 ms keeps up with 80,000 events a second, in
 * 1.4 MiB. A power of two, so that a count modulo 2^32 finds its slot by a mask.
 */
export const flowLogRecords = 16_384;

/** Bytes of shared memory for a ring of `records` (a power of two, or 0: nothing is kept). */
export function flowLogByteLength(records: number): number {
  return headerBytes + records * (8 * doublesPerRecord + 4 * wordsPerRecord);
}

/** One record as plain values; reused by its reader. Names as in FlowColumns. */
export type FlowRecord = { -readonly [K in keyof typeof Word]: number } & {
  /** Packets and bytes sent by the host, and brought by the network. */
  egressPackets: number;
  ingressPackets: number;
  egressBytes: number;
  ingressBytes: number;
};

export function createFlowRecord(): FlowRecord {
  const words = Object.fromEntries(Object.keys(Word).map((name) => [name, 0]));
  const amounts = { egressPackets: 0, ingressPackets: 0, egressBytes: 0, ingressBytes: 0 };
  return { ...(words as Record<keyof typeof Word, number>), ...amounts };
}

class Ring {
  protected readonly header: Int32Array;
  protected readonly doubles: Float64Array;
  protected readonly words: Int32Array;
  protected readonly capacity: number;

  constructor(memory: SharedArrayBuffer) {
    const capacity = (memory.byteLength - headerBytes) / flowLogRecordBytes;
    this.capacity = capacity;
    this.header = new Int32Array(memory, 0, headerBytes / 4);
    this.doubles = new Float64Array(memory, headerBytes, capacity * doublesPerRecord);
    const wordsAt = headerBytes + 8 * capacity * doublesPerRecord;
    this.words = new Int32Array(memory, wordsAt, capacity * wordsPerRecord);
  }
}

const flowLogRecordBytes = flowLogByteLength(1) - headerBytes;

/** The data path's end. Nothing allocates; 20 stores and two atomics a record. */
export class FlowLogWriter extends Ring {
  private written: number;

  constructor(memory: SharedArrayBuffer) {
    super(memory);
    // A worker that takes over from a dead one goes on where it was.
    this.written = this.header[writtenWord];
  }

  /** Write down the flow as its columns say. */
  write(columns: FlowColumns, flow: number, event: FlowEvent, end: FlowEnd): void {
    const { capacity, doubles, header, words } = this;
    if (capacity === 0) return;
    if (((this.written - Atomics.load(header, readWord)) | 0) >= capacity) {
      header[lostWord]++;
      return;
    }
    const slot = this.written & (capacity - 1);
    let at = slot * doublesPerRecord;
    doubles[at] = columns.packets[2 * flow];
    doubles[at + 1] = columns.packets[2 * flow + 1];
    doubles[at + 2] = columns.bytes[2 * flow];
    doubles[at + 3] = columns.bytes[2 * flow + 1];
    at = slot * wordsPerRecord;
    words[at + Word.event] = event;
    words[at + Word.end] = end;
    words[at + Word.verdict] = columns.verdict[flow];
    words[at + Word.protocol] = columns.protocol[flow];
    words[at + Word.opener] = columns.opener[flow];
    words[at + Word.localIsA] = columns.localIsA[flow];
    words[at + Word.link] = columns.link[flow];
    words[at + Word.addressA] = columns.addressA[flow];
    words[at + Word.addressB] = columns.addressB[flow];
    words[at + Word.ports] = columns.ports[flow];
    words[at + Word.rule] = columns.rule[flow];
    words[at + Word.generation] = columns.generation[flow];
    words[at + Word.firstSeen] = columns.firstSeen[flow];
    words[at + Word.lastSeen] = columns.lastSeen[flow];
    words[at + Word.firewall] = columns.firewall[flow];
    this.written = (this.written + 1) | 0;
    Atomics.store(header, writtenWord, this.written);
  }
}

/** The other end. */
export class FlowLogReader extends Ring {
  /** The oldest record into `record`; false when there is none. */
  read(record: FlowRecord): boolean {
    const { doubles, header, words } = this;
    const read = header[readWord];
    if (Atomics.load(header, writtenWord) === read) return false;
    const slot = read & (this.capacity - 1);
    let at = slot * doublesPerRecord;
    record.egressPackets = doubles[at];
    record.ingressPackets = doubles[at + 1];
    record.egressBytes = doubles[at + 2];
    record.ingressBytes = doubles[at + 3];
    at = slot * wordsPerRecord;
    for (const [name, word] of wordEntries) record[name] = words[at + word];
    Atomics.store(header, readWord, (read + 1) | 0);
    return true;
  }

  /** Records that found the ring full, since the start. */
  get lost(): number {
    return this.header[lostWord];
  }
}

const wordEntries = Object.entries(Word) as [keyof typeof Word, number][];
