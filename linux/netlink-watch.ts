/**
 * Being told that the network configuration of this thread's namespace has changed: interfaces,
 * addresses, IPv4 routes, qdiscs and filters. What has changed is asked for by linux/netlink.ts.
 */
import { constants } from 'node:os';
import { AF_NETLINK, MSG_DONTWAIT, SOCK_CLOEXEC, SOCK_RAW } from './abi/net.ts';
import * as abi from './abi/netlink.ts';
import { Closers } from './fd.ts';
import { allocate, bind, check, errno, type Fd, LITTLE_ENDIAN, recv, socket } from './syscall.ts';

const groups =
  abi.RTMGRP_LINK |
  abi.RTMGRP_TC |
  abi.RTMGRP_IPV4_IFADDR |
  abi.RTMGRP_IPV4_ROUTE |
  abi.RTMGRP_IPV6_IFADDR;
/** A message that is longer is cut: none is read. */
const messageLength = 64;
/** A flood of news is one piece of news; what is left is there at the next question. */
const messagesAtOnce = 1_000;

export class NetlinkWatch {
  private readonly fd: Fd;
  private readonly closers = new Closers();
  private readonly region = allocate(messageLength);

  /** @throws SystemError */
  constructor() {
    const fd = check(
      socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, abi.NETLINK_ROUTE),
      'socket(AF_NETLINK)',
    );
    this.fd = this.closers.own(fd);
    const { view, address } = allocate(abi.sockaddr_nl.size);
    view.setUint16(abi.sockaddr_nl.nl_family, AF_NETLINK, LITTLE_ENDIAN);
    view.setUint32(abi.sockaddr_nl.nl_groups, groups, LITTLE_ENDIAN);
    try {
      check(bind(fd, address, abi.sockaddr_nl.size), 'bind(AF_NETLINK)');
    } catch (error) {
      this.close();
      throw error;
    }
  }

  /** Whether something has changed since the last question, or may have. Never blocks. */
  hasChanged(): boolean {
    let count = 0;
    while (count < messagesAtOnce) {
      const { address } = this.region;
      if (recv(this.fd, address, messageLength, MSG_DONTWAIT) >= 0) count++;
      // Not told all: there was more than the socket holds.
      else if (errno() === constants.errno.ENOBUFS) count++;
      else break;
    }
    return count > 0;
  }

  /** Idempotent. */
  close(): void {
    this.closers.closeAll();
  }
}
