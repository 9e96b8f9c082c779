/**
 * Kernel structs of sockets, TUN and rtnetlink as offsets and sizes in bytes, named as in the
 * kernel; 64-bit little-endian machines (x86-64, arm64). `test/golden/abi.json` is what the C
 * compiler says of them (`scripts/abi-golden.ts`); a unit test compares.
 */
import { arch } from 'node:process';

/** linux/if.h */
export const ifreq = { size: 40, ifr_name: 0, ifr_flags: 16 } as const;
export const IFNAMSIZ = 16;
export const IFF_UP = 0x1;

/** linux/if_tun.h */
export const IFF_TUN = 0x0001;
export const IFF_MULTI_QUEUE = 0x0100;
export const IFF_NO_PI = 0x1000;
export const IFF_VNET_HDR = 0x4000;
export const IFF_TUN_EXCL = 0x8000;
export const TUNSETIFF = 0x400454ca;
export const TUNGETFEATURES = 0x800454cf;
export const TUNSETOFFLOAD = 0x400454d0;
export const TUN_F_CSUM = 0x01;
export const TUN_F_TSO4 = 0x02;
export const TUN_F_USO4 = 0x20;
export const TUN_F_USO6 = 0x40;

/** linux/virtio_net.h, the legacy header: what a TUN uses unless TUNSETVNETHDRSZ says otherwise. */
export const virtio_net_hdr = {
  size: 10,
  flags: 0,
  gso_type: 1,
  hdr_len: 2,
  gso_size: 4,
  csum_start: 6,
  csum_offset: 8,
} as const;
export const VIRTIO_NET_HDR_F_NEEDS_CSUM = 1;
export const VIRTIO_NET_HDR_GSO_NONE = 0;
export const VIRTIO_NET_HDR_GSO_TCPV4 = 1;
export const VIRTIO_NET_HDR_GSO_UDP_L4 = 5;
export const VIRTIO_NET_HDR_GSO_ECN = 0x80;

/** netinet/in.h; sin_port and sin_addr are big endian. */
export const sockaddr_in = { size: 16, sin_family: 0, sin_port: 2, sin_addr: 4 } as const;
/** sys/un.h */
export const sockaddr_un = { size: 110, sun_family: 0, sun_path: 2 } as const;
/** bits/types/struct_iovec.h */
export const iovec = { size: 16, iov_base: 0, iov_len: 8 } as const;
/** bits/socket.h */
export const msghdr = {
  size: 56,
  msg_name: 0,
  msg_namelen: 8,
  msg_iov: 16,
  msg_iovlen: 24,
  msg_control: 32,
  msg_controllen: 40,
  msg_flags: 48,
} as const;
/** bits/socket.h */
export const mmsghdr = { size: 64, msg_hdr: 0, msg_len: 56 } as const;
/** bits/socket.h; the data follows at `size`, each message is padded to 8 bytes. */
export const cmsghdr = { size: 16, cmsg_len: 0, cmsg_level: 8, cmsg_type: 12 } as const;

/** linux/errqueue.h; the sockaddr_in of whoever reports it follows (SO_EE_OFFENDER). */
export const sock_extended_err = {
  size: 16,
  ee_errno: 0,
  ee_origin: 4,
  ee_type: 5,
  ee_code: 6,
  ee_info: 8,
} as const;
export const SO_EE_ORIGIN_ICMP = 2;

/** bits/socket.h, asm-generic/socket.h, netinet/in.h, linux/in.h, linux/udp.h */
export const AF_UNSPEC = 0;
export const AF_UNIX = 1;
export const AF_INET = 2;
export const AF_INET6 = 10;
export const AF_NETLINK = 16;
export const SOCK_DGRAM = 2;
export const SOCK_RAW = 3;
export const SOCK_NONBLOCK = 0o4000;
export const SOCK_CLOEXEC = 0o2000000;
export const MSG_TRUNC = 0x20;
export const MSG_DONTWAIT = 0x40;
export const MSG_NOSIGNAL = 0x4000;
export const MSG_ERRQUEUE = 0x2000;
export const SOL_SOCKET = 1;
export const SO_SNDBUF = 7;
export const SO_RCVBUF = 8;
export const SO_SNDBUFFORCE = 32;
export const SO_RCVBUFFORCE = 33;
export const IPPROTO_IP = 0;
export const IP_TOS = 1;
export const IP_TTL = 2;
export const IP_MTU_DISCOVER = 10;
export const IP_RECVERR = 11;
export const IP_MTU = 14;
export const IP_PMTUDISC_DO = 2;
export const IP_PMTUDISC_PROBE = 3;
export const SOL_UDP = 17;
export const UDP_SEGMENT = 103;
export const UDP_GRO = 104;

/** linux/eventpoll.h: packed on x86-64 alone. */
export function epollEventLayout(machine: string): { size: number; events: number; data: number } {
  return machine === 'x64' ? { size: 12, events: 0, data: 4 } : { size: 16, events: 0, data: 8 };
}
export const epoll_event = epollEventLayout(arch);
export const EPOLL_CLOEXEC = 0o2000000;
export const EPOLL_CTL_ADD = 1;
export const EPOLL_CTL_DEL = 2;
export const EPOLLIN = 0x1;
export const EFD_NONBLOCK = 0o4000;
export const EFD_CLOEXEC = 0o2000000;

/** time.h */
export const timespec = { size: 16, tv_sec: 0, tv_nsec: 8 } as const;
export const CLOCK_MONOTONIC = 1;

/** fcntl.h */
export const O_RDONLY = 0;
export const O_RDWR = 2;
export const O_NONBLOCK = 0o4000;
export const O_CLOEXEC = 0o2000000;
/** sched.h */
export const CLONE_NEWNET = 0x40000000;
