/**
 * The rtnetlink messages of clsact.ts; pure. The queueing discipline `clsact` gives an interface
 * two hooks on which filters hang; one of the kind `bpf` with "direct action" is a program whose
 * return value is the verdict, as on a TCX hook.
 */
import * as abi from '../abi/netlink.ts';
import { attributeText, NetlinkRequest, parseAttributes } from '../netlink-message.ts';
import { dumpFlags } from '../netlink-socket.ts';
import { type Fd, LITTLE_ENDIAN } from '../syscall.ts';
import type { Hook } from './attach.ts';

/** Before all others: the kernel takes no smaller number. */
export const firstPriority = 1;

const changeFlags = abi.NLM_F_REQUEST | abi.NLM_F_ACK;
const newFlags = changeFlags | abi.NLM_F_CREATE | abi.NLM_F_EXCL;
/** Creates as well: what somebody removed comes back. */
const replaceFlags = changeFlags | abi.NLM_F_CREATE | abi.NLM_F_REPLACE;

/** The handle and the parent that the kernel wants of clsact. */
const clsactMajor = 0xffff_0000;
const minors: Record<Hook, number> = {
  ingress: abi.TC_H_MIN_INGRESS,
  egress: abi.TC_H_MIN_EGRESS,
};

export type FilterPlace = {
  readonly interfaceIndex: number;
  readonly hook: Hook;
  readonly handle: number;
};

type Tcmsg = { interfaceIndex?: number; handle?: number; parent?: number; info?: number };

function request(type: number, flags: number, tcmsg: Tcmsg): NetlinkRequest {
  const message = new NetlinkRequest(type, flags, abi.tcmsg.size);
  const { interfaceIndex = 0, handle = 0, parent = 0, info = 0 } = tcmsg;
  message.body.setInt32(abi.tcmsg.tcm_ifindex, interfaceIndex, LITTLE_ENDIAN);
  message.body.setUint32(abi.tcmsg.tcm_handle, handle, LITTLE_ENDIAN);
  message.body.setUint32(abi.tcmsg.tcm_parent, parent, LITTLE_ENDIAN);
  message.body.setUint32(abi.tcmsg.tcm_info, info, LITTLE_ENDIAN);
  return message;
}

/** EEXIST when it is there, or the older `ingress`, which has the same handle. */
export function createQdisc(interfaceIndex: number): NetlinkRequest {
  const place = { interfaceIndex, handle: clsactMajor, parent: abi.TC_H_CLSACT };
  return request(abi.RTM_NEWQDISC, newFlags, place).text(abi.TCA_KIND, 'clsact');
}

/** With everything that hangs on it. */
export function deleteQdisc(interfaceIndex: number): NetlinkRequest {
  const place = { interfaceIndex, handle: clsactMajor, parent: abi.TC_H_CLSACT };
  return request(abi.RTM_DELQDISC, changeFlags, place);
}

/** Of all interfaces; the kernel does not filter them. */
export function listQdiscs(): NetlinkRequest {
  return request(abi.RTM_GETQDISC, dumpFlags, {});
}

export type Qdisc = { readonly interfaceIndex: number; readonly kind: string };

/** The one with the hooks; null for what queues packets. */
export function readHookQdisc(payload: DataView): Qdisc | null {
  if (payload.getUint32(abi.tcmsg.tcm_parent, LITTLE_ENDIAN) !== abi.TC_H_CLSACT) return null;
  return {
    interfaceIndex: payload.getInt32(abi.tcmsg.tcm_ifindex, LITTLE_ENDIAN),
    kind: attributeText(parseAttributes(payload, abi.tcmsg.size).get(abi.TCA_KIND)),
  };
}

function ofFilter({ interfaceIndex, hook, handle }: FilterPlace): Tcmsg {
  const protocol = ((abi.ETH_P_ALL & 0xff) << 8) | (abi.ETH_P_ALL >> 8);
  const parent = (clsactMajor | minors[hook]) >>> 0;
  return { interfaceIndex, handle, parent, info: ((firstPriority << 16) | protocol) >>> 0 };
}

/** `new` is refused with EEXIST when the handle is taken. */
export function putFilter(
  place: FilterPlace,
  how: 'new' | 'replace',
  program: Fd,
  name: string,
): NetlinkRequest {
  const flags = how === 'new' ? newFlags : replaceFlags;
  const message = request(abi.RTM_NEWTFILTER, flags, ofFilter(place)).text(abi.TCA_KIND, 'bpf');
  return message.nest(abi.TCA_OPTIONS, () => {
    message.number32(abi.TCA_BPF_FD, program);
    message.text(abi.TCA_BPF_NAME, name);
    message.number32(abi.TCA_BPF_FLAGS, abi.TCA_BPF_FLAG_ACT_DIRECT);
  });
}

export function deleteFilter(place: FilterPlace): NetlinkRequest {
  const message = request(abi.RTM_DELTFILTER, changeFlags, ofFilter(place));
  return message.text(abi.TCA_KIND, 'bpf');
}

/** Of all priorities. */
export function listFilters(interfaceIndex: number, hook: Hook): NetlinkRequest {
  const parent = (clsactMajor | minors[hook]) >>> 0;
  return request(abi.RTM_GETTFILTER, dumpFlags, { interfaceIndex, parent });
}

export type Filter = {
  readonly priority: number;
  readonly handle: number;
  /** Of a bpf filter that has one, else empty. */
  readonly name: string;
};

/** A message without a handle speaks of the filters of one priority together. */
export function readFilter(payload: DataView): Filter {
  const attributes = parseAttributes(payload, abi.tcmsg.size);
  const isBpf = attributeText(attributes.get(abi.TCA_KIND)) === 'bpf';
  const options = isBpf ? attributes.get(abi.TCA_OPTIONS) : undefined;
  return {
    priority: payload.getUint32(abi.tcmsg.tcm_info, LITTLE_ENDIAN) >>> 16,
    handle: payload.getUint32(abi.tcmsg.tcm_handle, LITTLE_ENDIAN),
    name: options ? attributeText(parseAttributes(options, 0).get(abi.TCA_BPF_NAME)) : '',
  };
}
