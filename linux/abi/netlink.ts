/**
 * rtnetlink structs and constants, as in abi/net.ts: offsets and sizes in bytes, checked against
 * the C compiler. Everything is in host order except addresses, which are as on the wire.
 */

/** linux/netlink.h */
export const nlmsghdr = {
  size: 16,
  nlmsg_len: 0,
  nlmsg_type: 4,
  nlmsg_flags: 6,
  nlmsg_seq: 8,
  nlmsg_pid: 12,
} as const;
/** For bind: `nl_pid` 0 lets the kernel choose the port. */
export const sockaddr_nl = { size: 12, nl_family: 0, nl_groups: 8 } as const;
export const nlattr = { size: 4, nla_len: 0, nla_type: 2 } as const;
export const NETLINK_ROUTE = 0;
export const NLMSG_ERROR = 2;
export const NLMSG_DONE = 3;
export const NLM_F_REQUEST = 0x1;
export const NLM_F_ACK = 0x4;
export const NLM_F_DUMP_INTR = 0x10;
export const NLM_F_DUMP = 0x300;
export const NLM_F_REPLACE = 0x100;
export const NLM_F_EXCL = 0x200;
export const NLM_F_CREATE = 0x400;
export const NLA_F_NESTED = 0x8000;
export const NLA_TYPE_MASK = ~0xc000;

/** linux/rtnetlink.h */
export const ifinfomsg = {
  size: 16,
  ifi_family: 0,
  ifi_type: 2,
  ifi_index: 4,
  ifi_flags: 8,
  ifi_change: 12,
} as const;
/** Groups of a socket that is told of changes. */
export const RTMGRP_LINK = 0x1;
export const RTMGRP_TC = 0x8;
export const RTMGRP_IPV4_IFADDR = 0x10;
export const RTMGRP_IPV4_ROUTE = 0x40;
export const RTMGRP_IPV6_IFADDR = 0x100;
export const RTM_NEWLINK = 16;
export const RTM_GETLINK = 18;
export const RTM_GETADDR = 22;
export const RTM_GETROUTE = 26;
export const RTM_NEWQDISC = 36;
export const RTM_DELQDISC = 37;
export const RTM_GETQDISC = 38;
export const RTM_NEWTFILTER = 44;
export const RTM_DELTFILTER = 45;
export const RTM_GETTFILTER = 46;
/** `tcm_info` of a filter: priority in the upper half, Ethernet type (as on the wire) below. */
export const tcmsg = {
  size: 20,
  tcm_ifindex: 4,
  tcm_handle: 8,
  tcm_parent: 12,
  tcm_info: 16,
} as const;
export const TCA_KIND = 1;
export const TCA_OPTIONS = 2;
export const rtmsg = {
  size: 12,
  rtm_family: 0,
  rtm_dst_len: 1,
  rtm_table: 4,
  rtm_scope: 6,
  rtm_type: 7,
} as const;
export const rtnexthop = { size: 8, rtnh_len: 0, rtnh_ifindex: 4 } as const;
export const RTN_UNICAST = 1;
export const RTN_LOCAL = 2;
export const RT_TABLE_MAIN = 254;
export const RT_SCOPE_UNIVERSE = 0;
export const RTA_DST = 1;
export const RTA_OIF = 4;
export const RTA_GATEWAY = 5;
export const RTA_PRIORITY = 6;
export const RTA_PREFSRC = 7;
export const RTA_METRICS = 8;
export const RTA_MULTIPATH = 9;
export const RTAX_MTU = 2;

/** linux/if_addr.h */
export const ifaddrmsg = {
  size: 8,
  ifa_family: 0,
  ifa_prefixlen: 1,
  ifa_scope: 3,
  ifa_index: 4,
} as const;
export const IFA_ADDRESS = 1;
export const IFA_LOCAL = 2;
export const IFA_BROADCAST = 4;

/** linux/if_link.h */
export const rtnl_link_stats64 = { rx_dropped: 48, tx_dropped: 56 } as const;
export const IFLA_ADDRESS = 1;
export const IFLA_IFNAME = 3;
export const IFLA_MTU = 4;
export const IFLA_TXQLEN = 13;
export const IFLA_LINKINFO = 18;
export const IFLA_INFO_KIND = 1;
export const IFLA_STATS64 = 23;
export const IFLA_AF_SPEC = 26;
export const IFLA_INET6_ADDR_GEN_MODE = 8;
export const IN6_ADDR_GEN_MODE_NONE = 1;

/** linux/if_arp.h */
export const ARPHRD_ETHER = 1;

/** linux/if_ether.h */
export const ETH_P_ALL = 0x0003;

/** linux/pkt_sched.h. A hook is the parent TC_H_CLSACT with one of the minor numbers. */
export const TC_H_CLSACT = 0xffff_fff1;
export const TC_H_MIN_INGRESS = 0xfff2;
export const TC_H_MIN_EGRESS = 0xfff3;

/** linux/pkt_cls.h, of filters of the kind `bpf` */
export const TCA_BPF_FD = 6;
export const TCA_BPF_NAME = 7;
export const TCA_BPF_FLAGS = 8;
export const TCA_BPF_FLAG_ACT_DIRECT = 1;
