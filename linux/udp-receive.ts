/**
 * Receiving from the tunnel: many datagrams in one call (recvmmsg), each of them possibly several
 * that the kernel joined (UDP_GRO), written straight into the arena's datagram slots.
 */
import { type Arena, headroom, slotLength } from '../engine/arena.ts';
import type { DatagramBatch } from '../engine/io.ts';
import { Reason } from '../parsers/reason.ts';
import * as abi from './abi/net.ts';
import {
  type Address,
  addressOf,
  allocate,
  type Fd,
  keepAddresses,
  LITTLE_ENDIAN,
  type Region,
  recvmmsg,
  setPointer,
} from './syscall.ts';

/** Room for one control message with an int (UDP_GRO), padded to 8. */
const receiveControlLength = abi.cmsghdr.size + 8;

export class DatagramReceiver {
  private readonly fd: Fd;
  private readonly base: Address;
  private readonly capacity: number;
  private readonly messages: Region;
  private readonly messagesAddress: readonly Address[];
  private readonly vectors: Region;
  private readonly names: Region;
  private readonly controls: Region;
  /** The batch whose slots the vectors point to. */
  private prepared: DatagramBatch | null = null;

  constructor(fd: Fd, arena: Arena, capacity: number) {
    this.fd = fd;
    this.base = addressOf(arena.bytes);
    this.capacity = capacity;
    this.messages = allocate(capacity * abi.mmsghdr.size);
    this.messagesAddress = keepAddresses([this.messages.address]);
    this.vectors = allocate(capacity * abi.iovec.size);
    this.names = allocate(capacity * abi.sockaddr_in.size);
    this.controls = allocate(capacity * receiveControlLength);
    for (let index = 0; index < capacity; index++) this.link(index);
  }

  receive(batch: DatagramBatch): number {
    if (batch !== this.prepared) this.prepare(batch);
    const wanted = Math.min(batch.capacity, this.capacity);
    const received = recvmmsg(this.fd, this.messagesAddress[0], wanted, abi.MSG_DONTWAIT, 0);
    // Nothing there, or the error of an earlier datagram, which this call has cleared.
    const count = Math.max(received, 0);
    for (let index = 0; index < count; index++) this.take(batch, index);
    batch.count = count;
    return count;
  }

  /** One datagram to its row; its message made ready for the next call. */
  private take(batch: DatagramBatch, index: number): void {
    const view = this.messages.view;
    const at = index * abi.mmsghdr.size;
    const length = view.getUint32(at + abi.mmsghdr.msg_len, LITTLE_ENDIAN);
    const truncated =
      (view.getUint32(at + abi.msghdr.msg_flags, LITTLE_ENDIAN) & abi.MSG_TRUNC) !== 0;
    batch.length[index] = length;
    batch.reason[index] = truncated ? Reason.TunnelTruncated : Reason.Ok;
    batch.source[index] = this.names.view.getInt32(
      index * abi.sockaddr_in.size + abi.sockaddr_in.sin_addr,
    );
    const controlLength = view.getUint32(at + abi.msghdr.msg_controllen, LITTLE_ENDIAN);
    batch.segmentSize[index] = decodeSegmentSize(
      this.controls.view,
      index * receiveControlLength,
      controlLength,
      length,
    );
    view.setUint32(at + abi.msghdr.msg_namelen, abi.sockaddr_in.size, LITTLE_ENDIAN);
    view.setUint32(at + abi.msghdr.msg_controllen, receiveControlLength, LITTLE_ENDIAN);
  }

  private link(index: number): void {
    const view = this.messages.view;
    const at = index * abi.mmsghdr.size;
    const vectorAt = index * abi.iovec.size;
    setPointer(view, at + abi.msghdr.msg_name, this.names.address + index * abi.sockaddr_in.size);
    view.setUint32(at + abi.msghdr.msg_namelen, abi.sockaddr_in.size, LITTLE_ENDIAN);
    setPointer(view, at + abi.msghdr.msg_iov, this.vectors.address + vectorAt);
    view.setUint32(at + abi.msghdr.msg_iovlen, 1, LITTLE_ENDIAN);
    const control = this.controls.address + index * receiveControlLength;
    setPointer(view, at + abi.msghdr.msg_control, control);
    view.setUint32(at + abi.msghdr.msg_controllen, receiveControlLength, LITTLE_ENDIAN);
    this.vectors.view.setUint32(vectorAt + abi.iovec.iov_len, datagramRoom, LITTLE_ENDIAN);
  }

  private prepare(batch: DatagramBatch): void {
    const count = Math.min(batch.capacity, this.capacity);
    for (let index = 0; index < count; index++) {
      const vectorAt = index * abi.iovec.size + abi.iovec.iov_base;
      setPointer(this.vectors.view, vectorAt, this.base + batch.at[index]);
    }
    this.prepared = batch;
  }
}

/** More than any IPv4 datagram has, joined ones included; the slot keeps it clear of the next. */
const datagramRoom = slotLength - headroom;

/**
 * The size of each datagram but the last among those that the kernel joined, from the control
 * message at `at`; `length` when there is none or when it makes no sense.
 */
export function decodeSegmentSize(
  view: DataView,
  at: number,
  controlLength: number,
  length: number,
): number {
  if (controlLength < abi.cmsghdr.size + 4) return length;
  if (view.getUint32(at + abi.cmsghdr.cmsg_len, LITTLE_ENDIAN) < abi.cmsghdr.size + 4)
    return length;
  if (view.getInt32(at + abi.cmsghdr.cmsg_level, LITTLE_ENDIAN) !== abi.SOL_UDP) return length;
  if (view.getInt32(at + abi.cmsghdr.cmsg_type, LITTLE_ENDIAN) !== abi.UDP_GRO) return length;
  const size = view.getInt32(at + abi.cmsghdr.size, LITTLE_ENDIAN);
  return size > 0 && size < length ? size : length;
}
