/**
 * Sending into the tunnel. Each firewall has several sockets, one source port each; the entropy of
 * a send chooses among them, so that one flow keeps one port and one order. What is queued for a
 * socket goes by one sendmmsg.
 *
 *  1. `queue` copies pieces into iovecs and a message into its socket's row of mmsghdrs. Datagrams
 *     of one size that follow each other become one message, cut by the kernel.
 *  2. `flush` sends row by row; the kernel cuts super-datagrams (UDP_SEGMENT).
 *  3. What the kernel refuses gets a reason. An error may belong to an earlier datagram (ICMP,
 *     which a connected socket reports at its next call): those are tried once more.
 */
import { constants } from 'node:os';
import type { Arena } from '../engine/arena.ts';
import { Reason } from '../parsers/reason.ts';
import {
  maximumDatagramLength,
  maximumPieces,
  maximumSegments,
  type Pieces,
  totalLength,
} from '../tunnel/pieces.ts';
import * as abi from './abi/net.ts';
import {
  type Address,
  addressOf,
  allocate,
  connect,
  errno,
  type Fd,
  getsockopt,
  LITTLE_ENDIAN,
  type Region,
  sendmmsg,
  sendmsg,
  setPointer,
} from './syscall.ts';
import { mayBePending, socketReason } from './udp-errors.ts';
import {
  controlLength,
  getPointer,
  writeControlHeaders,
  writeControlValues,
  writeSocketAddress,
} from './udp-message.ts';
import { createRow, type Peer, type Row } from './udp-row.ts';

const { EAGAIN, EINVAL, EIO, EMSGSIZE } = constants.errno;
const controlsLength = 2 * controlLength;
const outerHeaderLength = 20 + 8;

/** The calls that may fail in the data path; a test has others to fail on demand. */
export type SendCalls = Pick<typeof syscalls, 'errno' | 'sendmmsg' | 'sendmsg'>;
const syscalls = { errno, sendmmsg, sendmsg };

export class DatagramSender {
  readonly results: Int32Array;
  /** Turns false, for good, when a device cannot cut for us (EIO); we then send piece by piece. */
  segmentation: boolean;
  private readonly calls: SendCalls;
  private readonly base: Address;
  private readonly capacity: number;
  private readonly peers: readonly Peer[];
  private readonly rows: readonly Row[];
  /** First row of each peer. */
  private readonly firstRows: Int32Array;
  private readonly vectors: Region;
  private readonly controls: Region;
  private readonly segmentSizes: Uint16Array;
  /** The next slot in the same message; -1 at its end. */
  private readonly nextSlots: Int32Array;
  /** Rows that have something to send. */
  private readonly active: Int32Array;
  private activeCount = 0;
  private queued = 0;
  /** For one datagram sent by itself. */
  private readonly single = allocate(abi.msghdr.size);
  private readonly singleVectors = allocate(maximumPieces * abi.iovec.size);
  private readonly scratch = allocate(abi.sockaddr_in.size + 8);

  constructor(
    peers: readonly Peer[],
    arena: Arena,
    capacity: number,
    segmentation: boolean,
    calls: SendCalls = syscalls,
  ) {
    this.calls = calls;
    this.base = addressOf(arena.bytes);
    this.capacity = capacity;
    this.segmentation = segmentation;
    this.peers = peers;
    this.rows = peers.flatMap((peer) => peer.senders.map((fd) => createRow(fd, peer, capacity)));
    this.firstRows = new Int32Array(peers.length);
    for (let index = 1; index < peers.length; index++) {
      this.firstRows[index] = this.firstRows[index - 1] + peers[index - 1].senders.length;
    }
    this.results = new Int32Array(capacity);
    this.segmentSizes = new Uint16Array(capacity);
    this.nextSlots = new Int32Array(capacity);
    this.active = new Int32Array(this.rows.length);
    this.vectors = allocate(capacity * maximumPieces * abi.iovec.size);
    this.controls = allocate(capacity * controlsLength);
    for (let slot = 0; slot < capacity; slot++) {
      writeControlHeaders(this.controls.view, slot * controlsLength);
    }
  }

  queue(pieces: Pieces, segmentSize: number, peer: number, entropy: number, tos: number): boolean {
    if (this.queued === this.capacity) return false;
    const slot = this.queued++;
    const rowIndex = this.chooseRow(peer, entropy);
    if (rowIndex < 0) {
      this.results[slot] = Reason.SocketUnreachable;
      return true;
    }
    this.results[slot] = Reason.Ok;
    this.nextSlots[slot] = -1;
    const row = this.rows[rowIndex];
    const length = segmentSize === 0 ? totalLength(pieces) : 0;
    if (row.openSlot >= 0 && this.join(row, pieces, length, slot, tos)) return true;
    this.segmentSizes[slot] = segmentSize;
    if (row.count === 0) this.active[this.activeCount++] = rowIndex;
    row.slots[row.count] = slot;
    const at = row.count * abi.mmsghdr.size;
    row.count++;
    this.writeVectors(pieces, slot, 0);
    this.writeMessage(row.messages.view, at, slot, pieces.count, segmentSize, tos);
    row.openSlot = segmentSize === 0 && this.segmentation ? slot : -1;
    row.openSize = length;
    row.openCount = 1;
    row.openPieces = pieces.count;
    row.openLength = length;
    row.openTos = tos;
    return true;
  }

  /**
   * One more datagram for the last message of the row, if it has the size of those before; a
   * shorter one may be the last. The way through the kernel's stack is then paid once for all.
   */
  private join(row: Row, pieces: Pieces, length: number, slot: number, tos: number): boolean {
    if (length === 0 || length > row.openSize || tos !== row.openTos) return false;
    const pieceCount = row.openPieces + pieces.count;
    if (pieceCount > maximumPieces || row.openCount === maximumSegments) return false;
    if (row.openLength + length > maximumDatagramLength) return false;
    const first = row.slots[row.count - 1];
    const at = (row.count - 1) * abi.mmsghdr.size;
    this.segmentSizes[first] = row.openSize;
    this.writeVectors(pieces, first, row.openPieces);
    this.writeMessage(row.messages.view, at, first, pieceCount, row.openSize, tos);
    this.nextSlots[row.openSlot] = slot;
    row.openSlot = length === row.openSize ? slot : -1;
    row.openCount++;
    row.openPieces = pieceCount;
    row.openLength += length;
    return true;
  }

  flush(): number {
    for (let index = 0; index < this.activeCount; index++) {
      const row = this.rows[this.active[index]];
      this.flushRow(row);
      row.count = 0;
      row.openSlot = -1;
    }
    this.activeCount = 0;
    const count = this.queued;
    this.queued = 0;
    return count;
  }

  /**
   * Connects a sender anew, so that the route is looked up now and not remembered from before an
   * ICMP told another socket of a narrower path. 0 when there is no route.
   */
  pathMtu(address: number): number {
    const peer = this.peers.find((candidate) => candidate.address === address);
    const fd = peer?.senders[0];
    if (peer === undefined || fd === undefined) return 0;
    const { view, address: scratchAddress } = this.scratch;
    const lengthAt = abi.sockaddr_in.size + 4;
    writeSocketAddress(view, peer.address, peer.port);
    if (connect(fd, scratchAddress, abi.sockaddr_in.size) < 0) return 0;
    view.setUint32(lengthAt, 4, LITTLE_ENDIAN);
    const valueAt = abi.sockaddr_in.size;
    const result = getsockopt(
      fd,
      abi.IPPROTO_IP,
      abi.IP_MTU,
      scratchAddress + valueAt,
      scratchAddress + lengthAt,
    );
    return result < 0 ? 0 : view.getInt32(valueAt, LITTLE_ENDIAN);
  }

  private chooseRow(address: number, entropy: number): number {
    for (let index = 0; index < this.peers.length; index++) {
      const peer = this.peers[index];
      if (peer.address === address) {
        return this.firstRows[index] + ((entropy >>> 0) % peer.senders.length);
      }
    }
    return -1;
  }

  /** From the `index`-th vector of the slot's message on. */
  private writeVectors(pieces: Pieces, slot: number, index: number): void {
    const { count, at, length } = pieces;
    const view = this.vectors.view;
    let entry = (slot * maximumPieces + index) * abi.iovec.size;
    for (let piece = 0; piece < count; piece++) {
      setPointer(view, entry + abi.iovec.iov_base, this.base + at[piece]);
      view.setUint32(entry + abi.iovec.iov_len, length[piece], LITTLE_ENDIAN);
      entry += abi.iovec.size;
    }
  }

  private writeMessage(
    view: DataView,
    at: number,
    slot: number,
    vectorCount: number,
    segmentSize: number,
    tos: number,
  ): void {
    const vectors = this.vectors.address + slot * maximumPieces * abi.iovec.size;
    setPointer(view, at + abi.msghdr.msg_iov, vectors);
    view.setUint32(at + abi.msghdr.msg_iovlen, vectorCount, LITTLE_ENDIAN);
    const controlAt = slot * controlsLength;
    const length = writeControlValues(this.controls.view, controlAt, segmentSize, tos);
    // TOS alone: skip the first of the two control messages.
    const first = segmentSize === 0 ? controlAt + controlLength : controlAt;
    setPointer(view, at + abi.msghdr.msg_control, this.controls.address + first);
    view.setUint32(at + abi.msghdr.msg_controllen, length, LITTLE_ENDIAN);
  }

  private flushRow(row: Row): void {
    let done = 0;
    let retried = false;
    while (done < row.count) {
      const slot = row.slots[done];
      const segmented = this.segmentSizes[slot] > 0;
      if (segmented && !this.segmentation) {
        this.sendPieceByPiece(row, done);
        done++;
        continue;
      }
      const run = this.segmentation ? row.count - done : this.unsegmentedRun(row, done);
      const sent = this.calls.sendmmsg(row.fd, row.addresses[done], run, abi.MSG_DONTWAIT);
      if (sent > 0) {
        done += sent;
        retried = false;
        continue;
      }
      const code = this.calls.errno();
      if (code === EIO && segmented) {
        this.segmentation = false;
        continue;
      }
      if (!retried && mayBePending(code)) {
        retried = true;
        continue;
      }
      retried = false;
      // Joined ones that are too big must not take one with them that is not.
      if (this.nextSlots[slot] >= 0 && (code === EMSGSIZE || code === EINVAL)) {
        this.sendPieceByPiece(row, done);
      } else {
        this.settle(slot, this.reasonOf(code, slot, row.peer));
      }
      done++;
      if (code === EAGAIN) {
        while (done < row.count) this.settle(row.slots[done++], Reason.SocketFull);
      }
    }
  }

  /** The fate of all sends in a message, of which `first` is the first. */
  private settle(first: number, reason: Reason): void {
    for (let slot = first; slot >= 0; slot = this.nextSlots[slot]) this.results[slot] = reason;
  }

  private unsegmentedRun(row: Row, from: number): number {
    let end = from;
    while (end < row.count && this.segmentSizes[row.slots[end]] === 0) end++;
    return end - from;
  }

  private reasonOf(code: number, slot: number, peer: Peer): Reason {
    const size = this.segmentSizes[slot];
    // Before Linux 6.12 a segment larger than the path was EINVAL, like any other bad argument.
    if (code === EINVAL && size > 0 && size + outerHeaderLength > this.pathMtu(peer.address)) {
      return Reason.SocketTooBig;
    }
    return socketReason(code);
  }

  /**
   * Cut a super-datagram ourselves: one sendmsg for each segment. Those that were joined have a
   * fate each; of one send, the first refusal is the end.
   */
  private sendPieceByPiece(row: Row, index: number): void {
    let slot = row.slots[index];
    const joined = this.nextSlots[slot] >= 0;
    const size = this.segmentSizes[slot];
    const messageAt = index * abi.mmsghdr.size;
    const pieceCount = row.messages.view.getUint32(
      messageAt + abi.msghdr.msg_iovlen,
      LITTLE_ENDIAN,
    );
    this.prepareSingle(row.messages.view, messageAt, slot);
    const source = this.vectors.view;
    const target = this.singleVectors.view;
    let entry = slot * maximumPieces * abi.iovec.size;
    const end = entry + pieceCount * abi.iovec.size;
    let taken = 0;
    while (entry < end) {
      let room = size;
      let parts = 0;
      while (room > 0 && entry < end) {
        const length = source.getUint32(entry + abi.iovec.iov_len, LITTLE_ENDIAN) - taken;
        const part = Math.min(length, room);
        const partAt = parts * abi.iovec.size;
        const address = getPointer(source, entry + abi.iovec.iov_base) + taken;
        setPointer(target, partAt + abi.iovec.iov_base, address);
        target.setUint32(partAt + abi.iovec.iov_len, part, LITTLE_ENDIAN);
        parts++;
        room -= part;
        taken += part;
        if (part === length) {
          entry += abi.iovec.size;
          taken = 0;
        }
      }
      this.results[slot] = this.sendSingle(row.fd, parts);
      if (joined) slot = this.nextSlots[slot];
      else if (this.results[slot] !== Reason.Ok) return;
    }
  }

  /** A message like the queued one, but without UDP_SEGMENT. */
  private prepareSingle(view: DataView, messageAt: number, slot: number): void {
    const queuedLength = view.getUint32(messageAt + abi.msghdr.msg_controllen, LITTLE_ENDIAN);
    const control = this.controls.address + slot * controlsLength + controlLength;
    setPointer(this.single.view, abi.msghdr.msg_iov, this.singleVectors.address);
    setPointer(this.single.view, abi.msghdr.msg_control, control);
    this.single.view.setUint32(
      abi.msghdr.msg_controllen,
      queuedLength - controlLength,
      LITTLE_ENDIAN,
    );
  }

  private sendSingle(fd: Fd, parts: number): Reason {
    this.single.view.setUint32(abi.msghdr.msg_iovlen, parts, LITTLE_ENDIAN);
    if (this.calls.sendmsg(fd, this.single.address, abi.MSG_DONTWAIT) >= 0) return Reason.Ok;
    if (
      mayBePending(this.calls.errno()) &&
      this.calls.sendmsg(fd, this.single.address, abi.MSG_DONTWAIT) >= 0
    ) {
      return Reason.Ok;
    }
    return socketReason(this.calls.errno());
  }
}
