/** The sockets that lead to a firewall, and what waits to be sent by each of them. */
import type { Direction } from '../tunnel/pieces.ts';
import * as abi from './abi/net.ts';
import { type Address, allocate, type Fd, keepAddresses, type Region } from './syscall.ts';

/** A firewall, or its port of one direction, and the connected sockets that lead to it. */
export type Peer = {
  /** IPv4 address as int32 of its wire bytes. */
  readonly address: number;
  readonly port: number;
  /** What is sent there; absent: both directions. */
  readonly direction?: Direction | undefined;
  readonly senders: readonly Fd[];
};

/** One socket and the messages that wait for it. */
export type Row = {
  readonly fd: Fd;
  readonly peer: Peer;
  readonly messages: Region;
  /** Of each message. */
  readonly addresses: readonly Address[];
  /** Which queued send each message is; of several that were joined, the first. */
  readonly slots: Int32Array;
  count: number;
  /** Of the last message, while more may join: the last slot in it; -1 when nothing may. */
  openSlot: number;
  /** Its datagrams' length (but the last's), and their number, pieces, bytes and TOS. */
  openSize: number;
  openCount: number;
  openPieces: number;
  openLength: number;
  openTos: number;
};

export function createRow(fd: Fd, peer: Peer, capacity: number): Row {
  const messages = allocate(capacity * abi.mmsghdr.size);
  const addresses = keepAddresses(
    Array.from({ length: capacity }, (_, index) => messages.address + index * abi.mmsghdr.size),
  );
  return {
    fd,
    peer,
    messages,
    addresses,
    slots: new Int32Array(capacity),
    count: 0,
    openSlot: -1,
    openSize: 0,
    openCount: 0,
    openPieces: 0,
    openLength: 0,
    openTos: 0,
  };
}
