/**
 * bpf(2) as bytes: commands, types, and `union bpf_attr` command by command. From
 * include/uapi/linux/bpf.h; names are the kernel's, offsets are in bytes, fields in native order.
 */

export const BPF_MAP_CREATE = 0;
export const BPF_MAP_LOOKUP_ELEM = 1;
export const BPF_MAP_UPDATE_ELEM = 2;
export const BPF_MAP_DELETE_ELEM = 3;
export const BPF_PROG_LOAD = 5;
export const BPF_OBJ_PIN = 6;
export const BPF_OBJ_GET = 7;
export const BPF_OBJ_GET_INFO_BY_FD = 15;
export const BPF_PROG_QUERY = 16;
export const BPF_LINK_CREATE = 28;
export const BPF_LINK_UPDATE = 29;
export const BPF_LINK_DETACH = 34;

/** enum bpf_map_type */
export const BPF_MAP_TYPE_ARRAY = 2;
export const BPF_MAP_TYPE_PERCPU_ARRAY = 6;
export const BPF_MAP_TYPE_LRU_HASH = 9;
export const BPF_MAP_TYPE_LPM_TRIE = 11;
/** Map flag: the values can be mapped into memory. */
export const BPF_F_NO_PREALLOC = 1;
export const BPF_F_MMAPABLE = 1 << 10;

/** enum bpf_prog_type */
export const BPF_PROG_TYPE_SOCKET_FILTER = 1;
export const BPF_PROG_TYPE_SCHED_CLS = 3;

/** enum bpf_attach_type */
export const BPF_TCX_INGRESS = 46;
export const BPF_TCX_EGRESS = 47;
/** Attach flag: before the program named, or before all when none is named. */
export const BPF_F_BEFORE = 1 << 3;

/** enum bpf_link_type */
export const BPF_LINK_TYPE_TCX = 11;

/** enum bpf_func_id, those that our programs call. */
export const helper = {
  map_lookup_elem: 1,
  map_delete_elem: 3,
  ktime_get_ns: 5,
  skb_store_bytes: 9,
  redirect: 23,
  skb_load_bytes: 26,
  skb_change_tail: 38,
  skb_pull_data: 39,
  skb_change_head: 43,
  skb_adjust_room: 50,
  redirect_neigh: 152,
} as const;

/** bpf_redirect flag: into the receive path of the device instead of out of it. */
export const BPF_F_INGRESS = 1;

/** enum bpf_adj_room_mode: the room is behind the Ethernet header. */
export const BPF_ADJ_ROOM_MAC = 1;
/** Flags of bpf_skb_adjust_room. */
export const BPF_F_ADJ_ROOM_FIXED_GSO = 1 << 0;
export const BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 = 1 << 1;
export const BPF_F_ADJ_ROOM_ENCAP_L4_UDP = 1 << 4;
/** BPF_F_ADJ_ROOM_ENCAP_L2(length): where in the upper word of the flags the length stands. */
export const BPF_ADJ_ROOM_ENCAP_L2_SHIFT_HIGH = 56 - 32;

/** struct __sk_buff */
export const skb = {
  len: 0,
  pkt_type: 4,
  mark: 8,
  queue_mapping: 12,
  protocol: 16,
  vlan_present: 20,
  gso_size: 176,
} as const;

/** include/uapi/linux/if_packet.h, values of `pkt_type`. */
export const PACKET_OTHERHOST = 3;
export const PACKET_LOOPBACK = 5;

/** include/uapi/linux/pkt_cls.h. UNSPEC: the next program or filter decides. */
export const TC_ACT_UNSPEC = -1;
export const TC_ACT_SHOT = 2;

/** Names of maps and programs, with the terminating zero. */
export const BPF_OBJ_NAME_LEN = 16;

/** union bpf_attr for BPF_MAP_CREATE */
export const mapCreate = {
  size: 72,
  map_type: 0,
  key_size: 4,
  value_size: 8,
  max_entries: 12,
  map_flags: 16,
  map_name: 28,
} as const;

/** union bpf_attr for BPF_MAP_*_ELEM */
export const mapElem = { size: 32, map_fd: 0, key: 8, value: 16, flags: 24 } as const;

/** union bpf_attr for BPF_PROG_LOAD */
export const progLoad = {
  size: 72,
  prog_type: 0,
  insn_cnt: 4,
  insns: 8,
  license: 16,
  log_level: 24,
  log_size: 28,
  log_buf: 32,
  prog_name: 48,
} as const;

/** union bpf_attr for BPF_OBJ_PIN and BPF_OBJ_GET */
export const objPin = { size: 16, pathname: 0, bpf_fd: 8, file_flags: 12 } as const;

/** union bpf_attr for BPF_OBJ_GET_INFO_BY_FD */
export const infoByFd = { size: 16, bpf_fd: 0, info_len: 4, info: 8 } as const;

/** struct bpf_link_info of a TCX link */
export const linkInfo = {
  size: 24,
  type: 0,
  id: 4,
  prog_id: 8,
  ifindex: 16,
  attach_type: 20,
} as const;

/** union bpf_attr for BPF_PROG_QUERY */
export const progQuery = {
  size: 64,
  target_ifindex: 0,
  attach_type: 4,
  prog_ids: 16,
  count: 24,
} as const;

/** union bpf_attr for BPF_LINK_CREATE of a TCX link */
export const linkCreate = {
  size: 32,
  prog_fd: 0,
  target_ifindex: 4,
  attach_type: 8,
  flags: 12,
  relative_fd: 16,
  expected_revision: 24,
} as const;

/** union bpf_attr for BPF_LINK_UPDATE */
export const linkUpdate = {
  size: 16,
  link_fd: 0,
  new_prog_fd: 4,
  flags: 8,
  old_prog_fd: 12,
} as const;

/** union bpf_attr for BPF_LINK_DETACH */
export const linkDetach = { size: 4, link_fd: 0 } as const;

/** include/uapi/linux/if_tun.h: _IOR('T', 224, int) and _IOR('T', 225, int). */
export const TUNSETSTEERINGEBPF = 0x8004_54e0;
export const TUNSETFILTEREBPF = 0x8004_54e1;
