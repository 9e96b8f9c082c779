/**
 * Asks the C compiler for offsets, sizes and constants of the kernel structs that linux/abi/net.ts
 * and linux/abi/netlink.ts state, and writes them to test/golden/abi.json. Needs gcc and the
 * kernel's user headers; the test that compares needs neither.
 *
 *     node dist/scripts/abi-golden.js
 */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { arch } from 'node:process';

const headers = [
  'sys/socket.h',
  'netinet/in.h',
  'netinet/udp.h',
  'sys/epoll.h',
  'sys/eventfd.h',
  'sys/ioctl.h',
  'sys/uio.h',
  'sys/un.h',
  'fcntl.h',
  'sched.h',
  'time.h',
  'linux/errqueue.h',
  'linux/if.h',
  'linux/if_arp.h',
  'linux/if_ether.h',
  'linux/if_link.h',
  'linux/if_tun.h',
  'linux/netlink.h',
  'linux/pkt_cls.h',
  'linux/pkt_sched.h',
  'linux/rtnetlink.h',
  'linux/virtio_net.h',
];

/** Kernel name, then its fields. `linux/if_tun.h` and the others name them so. */
const structs: Record<string, string> = {
  ifreq: 'ifr_name ifr_flags',
  virtio_net_hdr: 'flags gso_type hdr_len gso_size csum_start csum_offset',
  sockaddr_in: 'sin_family sin_port sin_addr',
  sockaddr_nl: 'nl_family nl_groups',
  sockaddr_un: 'sun_family sun_path',
  iovec: 'iov_base iov_len',
  msghdr: 'msg_name msg_namelen msg_iov msg_iovlen msg_control msg_controllen msg_flags',
  mmsghdr: 'msg_hdr msg_len',
  cmsghdr: 'cmsg_len cmsg_level cmsg_type',
  sock_extended_err: 'ee_errno ee_origin ee_type ee_code ee_info',
  epoll_event: 'events data',
  timespec: 'tv_sec tv_nsec',
  nlmsghdr: 'nlmsg_len nlmsg_type nlmsg_flags nlmsg_seq nlmsg_pid',
  nlattr: 'nla_len nla_type',
  ifinfomsg: 'ifi_family ifi_type ifi_index ifi_flags ifi_change',
  ifaddrmsg: 'ifa_family ifa_prefixlen ifa_scope ifa_index',
  tcmsg: 'tcm_ifindex tcm_handle tcm_parent tcm_info',
  rtmsg: 'rtm_family rtm_dst_len rtm_table rtm_scope rtm_type',
  rtnexthop: 'rtnh_len rtnh_ifindex',
  rtnl_link_stats64: 'rx_dropped tx_dropped',
};

const constants = `
IFNAMSIZ IFF_UP IFF_TUN IFF_MULTI_QUEUE IFF_NO_PI IFF_VNET_HDR IFF_TUN_EXCL TUNSETIFF
TUNGETFEATURES TUNSETOFFLOAD TUN_F_CSUM TUN_F_TSO4 TUN_F_USO4 TUN_F_USO6
VIRTIO_NET_HDR_F_NEEDS_CSUM VIRTIO_NET_HDR_GSO_NONE VIRTIO_NET_HDR_GSO_TCPV4
VIRTIO_NET_HDR_GSO_UDP_L4 VIRTIO_NET_HDR_GSO_ECN AF_UNIX AF_INET AF_INET6 AF_UNSPEC AF_NETLINK
SOCK_DGRAM SOCK_RAW SOCK_NONBLOCK SOCK_CLOEXEC MSG_ERRQUEUE MSG_TRUNC MSG_DONTWAIT MSG_NOSIGNAL
SOL_SOCKET SO_SNDBUF SO_RCVBUF SO_SNDBUFFORCE SO_RCVBUFFORCE SO_REUSEPORT
SO_ATTACH_REUSEPORT_EBPF IPPROTO_IP IP_TOS IP_TTL IP_MTU_DISCOVER IP_RECVERR IP_MTU
IP_PMTUDISC_DO IP_PMTUDISC_PROBE SO_EE_ORIGIN_ICMP SOL_UDP UDP_SEGMENT UDP_GRO EPOLL_CLOEXEC
EPOLL_CTL_ADD EPOLL_CTL_DEL EPOLLIN EFD_NONBLOCK EFD_CLOEXEC CLOCK_MONOTONIC O_RDONLY O_RDWR
O_NONBLOCK O_CLOEXEC CLONE_NEWNET NETLINK_ROUTE NLMSG_ERROR NLMSG_DONE NLM_F_REQUEST NLM_F_ACK
NLM_F_DUMP_INTR NLM_F_DUMP NLA_F_NESTED NLA_TYPE_MASK RTMGRP_LINK RTMGRP_TC RTMGRP_IPV4_IFADDR
RTMGRP_IPV4_ROUTE RTMGRP_IPV6_IFADDR RTM_NEWLINK RTM_GETLINK RTM_GETADDR RTM_GETROUTE
RTN_UNICAST RTN_LOCAL RT_TABLE_MAIN RT_SCOPE_UNIVERSE RTA_DST RTA_OIF RTA_GATEWAY RTA_PRIORITY
RTA_PREFSRC RTA_METRICS RTA_MULTIPATH RTAX_MTU IFA_ADDRESS IFA_LOCAL IFA_BROADCAST IFLA_ADDRESS
IFLA_IFNAME IFLA_MTU IFLA_TXQLEN IFLA_LINKINFO IFLA_INFO_KIND IFLA_STATS64 IFLA_AF_SPEC IFLA_INET6_ADDR_GEN_MODE
IN6_ADDR_GEN_MODE_NONE ARPHRD_ETHER NLM_F_REPLACE NLM_F_EXCL NLM_F_CREATE RTM_NEWQDISC
RTM_DELQDISC RTM_GETQDISC RTM_NEWTFILTER RTM_DELTFILTER RTM_GETTFILTER TCA_KIND TCA_OPTIONS
ETH_P_ALL TC_H_CLSACT TC_H_MIN_INGRESS TC_H_MIN_EGRESS TCA_BPF_FD TCA_BPF_NAME TCA_BPF_FLAGS
TCA_BPF_FLAG_ACT_DIRECT`
  .trim()
  .split(/\s+/);

/** Newer than the oldest headers in use; values from the header of Linux 6.2. */
const recent = '#ifndef TUN_F_USO4\n#define TUN_F_USO4 0x20\n#define TUN_F_USO6 0x40\n#endif\n';
const recentVirtio =
  '#ifndef VIRTIO_NET_HDR_GSO_UDP_L4\n#define VIRTIO_NET_HDR_GSO_UDP_L4 5\n#endif\n';

function program(): string {
  const lines: string[] = [];
  for (const [name, fields] of Object.entries(structs)) {
    lines.push(`  printf("struct ${name} size %zu\\n", sizeof(struct ${name}));`);
    for (const field of fields.split(' ')) {
      const offset = `offsetof(struct ${name}, ${field})`;
      lines.push(`  printf("struct ${name} ${field} %zu\\n", ${offset});`);
    }
  }
  for (const name of constants) {
    lines.push(`  printf("constant ${name} - %lld\\n", (long long)(${name}));`);
  }
  return [
    '#define _GNU_SOURCE',
    '#include <stddef.h>',
    '#include <stdio.h>',
    ...headers.map((header) => `#include <${header}>`),
    recent,
    recentVirtio,
    'int main(void) {',
    ...lines,
    '  return 0;',
    '}',
    '',
  ].join('\n');
}

type Golden = {
  arch: string;
  structs: Record<string, Record<string, number>>;
  constants: Record<string, number>;
};

function ask(): Golden {
  const directory = mkdtempSync(join(tmpdir(), 'abi-golden-'));
  try {
    const source = join(directory, 'abi.c');
    const binary = join(directory, 'abi');
    writeFileSync(source, program());
    execFileSync('gcc', ['-o', binary, source]);
    const golden: Golden = { arch, structs: {}, constants: {} };
    for (const line of execFileSync(binary, { encoding: 'utf8' }).trim().split('\n')) {
      const [kind, name, field, value] = line.split(' ') as [string, string, string, string];
      if (kind === 'constant') {
        golden.constants[name] = Number(value);
        continue;
      }
      golden.structs[name] ??= {};
      golden.structs[name][field] = Number(value);
    }
    return golden;
  } finally {
    rmSync(directory, { recursive: true });
  }
}

writeFileSync('test/golden/abi.json', `${JSON.stringify(ask(), null, 2)}\n`);
