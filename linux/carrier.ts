/**
 * Flows that the programs carry by themselves (bpf/programs/carry-out.ts, carry-back.ts): the
 * data path's side. What the programs must know of a flow is a record in a memory-mapped array,
 * with the flow's number as its index; how they get from a packet to a record is an entry of the
 * flow map. Every `begin` takes an epoch of its own, never 0, that stands in both: an entry whose
 * epoch is not the record's is another life's, and carries nothing.
 */
import { type Carrier, carrierTotals, KernelVerdict } from '../engine/io.ts';
import { BPF_F_MMAPABLE, BPF_MAP_TYPE_ARRAY, BPF_MAP_UPDATE_ELEM, mapElem } from './abi/bpf.ts';
import { createMap, mapValues } from './bpf/load.ts';
import {
  carriedPeer,
  carriedPeersMax,
  carriedRecord,
  controlPage,
  flowKey,
  flowValue,
} from './bpf/policy.ts';
import { allocate, bpf, type Fd, LITTLE_ENDIAN, setPointer } from './syscall.ts';

/** A firewall as carried packets are sent to it; all that user space's sockets do, too. */
export type CarrierPeer = {
  /** int32, as `source`. */
  readonly address: number;
  readonly port: number;
  /** Address that its packets come from. */
  readonly source: number;
  /** Source ports, by the remainder of a flow's entropy. */
  readonly sourcePorts: readonly number[];
  /** Leads to it. */
  readonly interfaceIndex: number;
};

/** Plain data, for another thread. */
export type CarrierOptions = {
  readonly recordsFd: Fd;
  readonly controlFd: Fd;
  readonly flowsFd: Fd;
  readonly capacity: number;
  readonly peers: readonly CarrierPeer[];
};

/** The array of records. Its memory is taken at once: 128 bytes a flow. Throws SystemError. */
export function createRecords(capacity: number): Fd {
  return createMap({
    name: 'mp_records',
    type: BPF_MAP_TYPE_ARRAY,
    keyLength: 4,
    valueLength: carriedRecord.size,
    capacity,
    flags: BPF_F_MMAPABLE,
  });
}

/** On the control page. `Again`: the data path is to forget what it has begun, and go on. */
const Carrying = { On: 0, Off: 1, Again: 2 } as const;

/** Whether the programs carry flows. No system calls. */
export type CarrierSwitch = {
  /** What flows were begun with is not true any more: none is carried. */
  stop(): void;
  /** From now on, also after a stop: the firewalls as they are reached now. */
  start(peers: readonly CarrierPeer[]): void;
};

/** Any thread. Throws SystemError. */
export function openCarrierSwitch(controlFd: Fd): CarrierSwitch {
  const memory = mapValues(controlFd, controlPage.size);
  const page = new DataView(memory, 0, controlPage.size);
  const carrying = new Int32Array(memory, controlPage.carrying, 1);
  return {
    stop() {
      Atomics.store(carrying, 0, Carrying.Off);
      for (let firewall = 0; firewall < carriedPeersMax; firewall++) {
        const at = controlPage.peers + firewall * carriedPeer.size + carriedPeer.innerMtu;
        page.setUint16(at, 0, LITTLE_ENDIAN);
      }
    },
    start(peers) {
      writePeers(page, peers);
      Atomics.store(carrying, 0, Carrying.Again);
    },
  };
}

/** Nothing is carried to them until their inner MTU is set. */
function writePeers(page: DataView, peers: readonly CarrierPeer[]): void {
  peers.forEach((peer, index) => {
    const at = controlPage.peers + index * carriedPeer.size;
    page.setUint16(at + carriedPeer.innerMtu, 0, LITTLE_ENDIAN);
    page.setInt32(at + carriedPeer.source, peer.source);
    page.setInt32(at + carriedPeer.target, peer.address);
    page.setInt32(at + carriedPeer.interfaceIndex, peer.interfaceIndex, LITTLE_ENDIAN);
    page.setUint16(at + carriedPeer.port, peer.port);
  });
}

/** Of a kernel or a configuration that carries nothing. */
export const noCarrier: Carrier = {
  capacity: 0,
  begin() {},
  remind() {},
  end() {},
  given: () => 0,
  setSent() {},
  returned: () => 0,
  setDelivered() {},
  read: (_flow, totals) => void totals.fill(0),
  setInnerMtu() {},
  beginsAgain: () => false,
};

/** Every record starts as nobody's, with nothing carried: a dead data path's are over. */
export function openCarrier(options: CarrierOptions): Carrier {
  return new KernelCarrier(options);
}

const wordsOf = (offset: number) => offset >> 2;
const recordWords = wordsOf(carriedRecord.size);
const givenWord = wordsOf(carriedRecord.toEngine);
const sentWord = wordsOf(carriedRecord.sent);
const returnedWord = wordsOf(carriedRecord.toSocket);
const deliveredWord = wordsOf(carriedRecord.delivered);
const totalsWord = wordsOf(carriedRecord.redirected);
const epochWord = wordsOf(carriedRecord.epoch);

class KernelCarrier implements Carrier {
  readonly capacity: number;
  private readonly words: Int32Array;
  private readonly view: DataView;
  private readonly control: DataView;
  private readonly epochs: Int32Array;
  private readonly carrying: Int32Array;
  private readonly peers: readonly CarrierPeer[];
  private readonly key = allocate(flowKey.size);
  private readonly value = allocate(flowValue.size);
  private readonly update = allocate(mapElem.size);
  /** Of each flow: what `remind` writes again. */
  private readonly keys: Int32Array;

  constructor({ capacity, controlFd, flowsFd, peers, recordsFd }: CarrierOptions) {
    this.capacity = capacity;
    const memory = mapValues(recordsFd, capacity * carriedRecord.size);
    this.words = new Int32Array(memory);
    this.view = new DataView(memory);
    this.words.fill(0);
    const page = mapValues(controlFd, controlPage.size);
    this.control = new DataView(page, 0, controlPage.size);
    this.epochs = new Int32Array(page, controlPage.epoch, 1);
    if (peers.length > carriedPeersMax) throw new RangeError(`${peers.length} firewalls`);
    this.peers = peers;
    this.carrying = new Int32Array(page, controlPage.carrying, 1);
    this.keys = new Int32Array(capacity * wordsOf(flowKey.size));
    this.value.view.setUint32(flowValue.verdict, KernelVerdict.Carry, LITTLE_ENDIAN);
    const { view } = this.update;
    view.setUint32(mapElem.map_fd, flowsFd, LITTLE_ENDIAN);
    setPointer(view, mapElem.key, this.key.address);
    setPointer(view, mapElem.value, this.value.address);
  }

  begin(
    flow: number,
    local: number,
    remote: number,
    localPort: number,
    remotePort: number,
    protocol: number,
    cookie: number,
    entropy: number,
    firewall: number,
    interfaceIndex: number,
  ): void {
    const { key, view, words } = this;
    const { sourcePorts } = this.peers[firewall];
    const at = flow * carriedRecord.size;
    Atomics.store(words, flow * recordWords + epochWord, 0);
    view.setInt32(at + carriedRecord.cookie, cookie);
    view.setUint16(
      at + carriedRecord.sourcePort,
      sourcePorts[(entropy >>> 0) % sourcePorts.length],
    );
    view.setUint16(at + carriedRecord.peer, firewall, LITTLE_ENDIAN);
    view.setInt32(at + carriedRecord.interfaceIndex, interfaceIndex, LITTLE_ENDIAN);
    for (let direction = 0; direction < 2; direction++) {
      const word = flow * recordWords + direction;
      words[word + givenWord] = 0;
      words[word + sentWord] = -1;
      words[word + returnedWord] = 0;
      words[word + deliveredWord] = -1;
    }
    let epoch = Atomics.add(this.epochs, 0, 1) + 1;
    if ((epoch | 0) === 0) epoch = Atomics.add(this.epochs, 0, 1) + 1;
    Atomics.store(words, flow * recordWords + epochWord, epoch);
    key.view.setInt32(flowKey.local, local);
    key.view.setInt32(flowKey.remote, remote);
    key.view.setUint16(flowKey.localPort, localPort);
    key.view.setUint16(flowKey.remotePort, remotePort);
    key.view.setUint32(flowKey.protocol, protocol, LITTLE_ENDIAN);
    for (let word = 0; word < wordsOf(flowKey.size); word++) {
      this.keys[flow * wordsOf(flowKey.size) + word] = key.view.getInt32(4 * word);
    }
    this.write(flow);
  }

  /** `key` is the flow's. When it fails (memory is short) the engine goes on carrying it. */
  private write(flow: number): void {
    const { value, words } = this;
    value.view.setUint32(flowValue.record, flow, LITTLE_ENDIAN);
    value.view.setInt32(flowValue.epoch, words[flow * recordWords + epochWord], LITTLE_ENDIAN);
    bpf(BPF_MAP_UPDATE_ELEM, this.update.address, mapElem.size);
  }

  remind(flow: number): void {
    for (let word = 0; word < wordsOf(flowKey.size); word++) {
      this.key.view.setInt32(4 * word, this.keys[flow * wordsOf(flowKey.size) + word]);
    }
    this.write(flow);
  }

  end(flow: number): void {
    Atomics.store(this.words, flow * recordWords + epochWord, 0);
  }

  given(flow: number, direction: number): number {
    return Atomics.load(this.words, flow * recordWords + givenWord + direction);
  }

  setSent(flow: number, direction: number, count: number): void {
    Atomics.store(this.words, flow * recordWords + sentWord + direction, count);
  }

  returned(flow: number, direction: number): number {
    return Atomics.load(this.words, flow * recordWords + returnedWord + direction);
  }

  setDelivered(flow: number, direction: number, count: number): void {
    Atomics.store(this.words, flow * recordWords + deliveredWord + direction, count);
  }

  read(flow: number, totals: Float64Array): void {
    const at = flow * recordWords + totalsWord;
    for (let index = 0; index < carrierTotals; index++) {
      totals[index] = readTotal(this.words, at + 2 * index);
    }
  }

  setInnerMtu(firewall: number, innerMtu: number): void {
    const at = controlPage.peers + firewall * carriedPeer.size + carriedPeer.innerMtu;
    const isOn = Atomics.load(this.carrying, 0) === Carrying.On;
    this.control.setUint16(at, isOn ? Math.min(innerMtu, 0xffff) : 0, LITTLE_ENDIAN);
  }

  beginsAgain(): boolean {
    const { Again, On } = Carrying;
    return Atomics.compareExchange(this.carrying, 0, Again, On) === Again;
  }
}

/** A u64 that programs add to, below 2^53: its halves belong together when the upper one stays. */
function readTotal(words: Int32Array, at: number): number {
  for (;;) {
    const upper = Atomics.load(words, at + 1);
    const lower = Atomics.load(words, at);
    if (Atomics.load(words, at + 1) === upper) return upper * 2 ** 32 + (lower >>> 0);
  }
}
