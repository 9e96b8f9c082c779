/**
 * Which flow a later fragment belongs to: the first fragment's flow holds for the rest of its
 * datagram. Key: source, destination, identification, protocol (RFC 791 section 3.2).
 *
 * Fixed size, 4-way: the four places of a key's bucket hold its newest datagrams, the oldest makes
 * room. A datagram is remembered as long as Linux waits for its parts (net.ipv4.ipfrag_time, 30 s).
 */
const ways = 4;
const lifetimeTicks = 300;

export class Fragments {
  /** Of the datagram last found, as `remember` was told. */
  cookie = 0;
  sourceIsA = 0;

  private readonly cookies: Int32Array;
  private readonly sourcesAreA: Uint8Array;
  private readonly source: Int32Array;
  private readonly target: Int32Array;
  private readonly idProtocol: Int32Array;
  private readonly flow: Int32Array;
  private readonly seen: Int32Array;
  private readonly mask: number;

  /** @param capacity datagrams remembered at once; a power of two */
  constructor(capacity: number) {
    this.source = new Int32Array(capacity);
    this.target = new Int32Array(capacity);
    this.idProtocol = new Int32Array(capacity);
    this.flow = new Int32Array(capacity).fill(-1);
    this.seen = new Int32Array(capacity);
    this.cookies = new Int32Array(capacity);
    this.sourcesAreA = new Uint8Array(capacity);
    this.mask = capacity / ways - 1;
  }

  /**
   * @param cookie of the flow: its record may serve another one by the time that the rest comes
   * @param sourceIsA which way round the flow the datagram goes
   */
  remember(
    source: number,
    target: number,
    id: number,
    protocol: number,
    flow: number,
    cookie: number,
    sourceIsA: number,
    nowTick: number,
  ): void {
    const bucket = this.bucket(source, target, id);
    const idProtocol = (id << 8) | protocol;
    let place = bucket;
    for (let way = bucket; way < bucket + ways; way++) {
      if (this.matches(way, source, target, idProtocol)) {
        place = way;
        break;
      }
      if (this.flow[way] < 0 || this.seen[way] < this.seen[place]) place = way;
    }
    this.source[place] = source;
    this.target[place] = target;
    this.idProtocol[place] = idProtocol;
    this.flow[place] = flow;
    this.cookies[place] = cookie;
    this.sourcesAreA[place] = sourceIsA;
    this.seen[place] = nowTick;
  }

  /**
   * The flow number remembered for the datagram, or -1. The flow may have ended since: ask
   * Flows.select, with `cookie` and `sourceIsA`.
   */
  find(source: number, target: number, id: number, protocol: number, nowTick: number): number {
    const bucket = this.bucket(source, target, id);
    const idProtocol = (id << 8) | protocol;
    for (let way = bucket; way < bucket + ways; way++) {
      if (this.matches(way, source, target, idProtocol)) {
        this.cookie = this.cookies[way];
        this.sourceIsA = this.sourcesAreA[way];
        return nowTick - this.seen[way] <= lifetimeTicks ? this.flow[way] : -1;
      }
    }
    return -1;
  }

  private matches(way: number, source: number, target: number, idProtocol: number): boolean {
    return (
      this.flow[way] >= 0 &&
      this.idProtocol[way] === idProtocol &&
      this.source[way] === source &&
      this.target[way] === target
    );
  }

  private bucket(source: number, target: number, id: number): number {
    let h = Math.imul(source ^ Math.imul(target, 0x85ebca6b) ^ id, 0xc2b2ae35);
    h ^= h >>> 15;
    return (h & this.mask) * ways;
  }
}
