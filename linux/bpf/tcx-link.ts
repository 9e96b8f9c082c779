/**
 * TCX links (kernel 6.6): a program on a hook, held by a descriptor. Gone with the last descriptor
 * unless pinned.
 */
import { constants } from 'node:os';
import {
  BPF_F_BEFORE,
  BPF_LINK_CREATE,
  BPF_LINK_DETACH,
  BPF_LINK_TYPE_TCX,
  BPF_LINK_UPDATE,
  BPF_OBJ_GET_INFO_BY_FD,
  BPF_PROG_QUERY,
  BPF_TCX_EGRESS,
  BPF_TCX_INGRESS,
  infoByFd,
  linkCreate,
  linkDetach,
  linkInfo,
  linkUpdate,
  progQuery,
} from '../abi/bpf.ts';
import { callFailed, UnsupportedFeature } from '../errors.ts';
import { allocate, bpf, check, errno, type Fd, LITTLE_ENDIAN, setPointer } from '../syscall.ts';
import type { Hook } from './attach.ts';

const { EINVAL, ENOENT, ENOLINK } = constants.errno;

const attachTypes: Record<Hook, number> = { ingress: BPF_TCX_INGRESS, egress: BPF_TCX_EGRESS };

/**
 * Descriptor of a new link, first in line on its hook. UnsupportedFeature when the kernel has no
 * TCX.
 */
export function createLink(program: Fd, interfaceIndex: number, hook: Hook): Fd {
  const { address, view } = allocate(linkCreate.size);
  view.setUint32(linkCreate.prog_fd, program, LITTLE_ENDIAN);
  view.setUint32(linkCreate.target_ifindex, interfaceIndex, LITTLE_ENDIAN);
  view.setUint32(linkCreate.attach_type, attachTypes[hook], LITTLE_ENDIAN);
  view.setUint32(linkCreate.flags, BPF_F_BEFORE, LITTLE_ENDIAN);
  const fd = bpf(BPF_LINK_CREATE, address, linkCreate.size);
  if (fd >= 0) return fd;
  const cause = errno();
  if (!hasTcx()) throw new UnsupportedFeature('TCX', '6.6', cause);
  throw callFailed(`bpf(BPF_LINK_CREATE tcx ${hook} of interface ${interfaceIndex})`, cause);
}

/** Asked of the loopback, which every namespace has. Conclusive: EINVAL is an unknown hook. */
export function hasTcx(): boolean {
  return queryHook(1, 'ingress', 0).cause !== EINVAL;
}

/** Identifiers of the programs on a hook, in the order in which they run. Throws SystemError. */
export function programsOn(interfaceIndex: number, hook: Hook): number[] {
  const { ids, cause } = queryHook(interfaceIndex, hook, 64);
  if (cause === 0) return ids;
  // Nothing was ever attached there.
  if (cause === ENOENT) return [];
  throw callFailed(`bpf(BPF_PROG_QUERY tcx ${hook} of interface ${interfaceIndex})`, cause);
}

function queryHook(
  interfaceIndex: number,
  hook: Hook,
  capacity: number,
): { ids: number[]; cause: number } {
  const { address, view } = allocate(progQuery.size);
  const ids = allocate(Math.max(4 * capacity, 4));
  view.setUint32(progQuery.target_ifindex, interfaceIndex, LITTLE_ENDIAN);
  view.setUint32(progQuery.attach_type, attachTypes[hook], LITTLE_ENDIAN);
  view.setUint32(progQuery.count, capacity, LITTLE_ENDIAN);
  if (capacity > 0) setPointer(view, progQuery.prog_ids, ids.address);
  if (bpf(BPF_PROG_QUERY, address, progQuery.size) < 0) return { ids: [], cause: errno() };
  const count = Math.min(view.getUint32(progQuery.count, LITTLE_ENDIAN), capacity);
  const found = Array.from({ length: count }, (_, index) =>
    ids.view.getUint32(4 * index, LITTLE_ENDIAN),
  );
  return { ids: found, cause: 0 };
}

/** What a descriptor of a link says of itself; null when it is not a TCX link. */
export function describeTcxLink(
  link: Fd,
): { id: number; program: number; interfaceIndex: number } | null {
  const info = allocate(linkInfo.size);
  const { address, view } = allocate(infoByFd.size);
  view.setUint32(infoByFd.bpf_fd, link, LITTLE_ENDIAN);
  view.setUint32(infoByFd.info_len, linkInfo.size, LITTLE_ENDIAN);
  setPointer(view, infoByFd.info, info.address);
  check(bpf(BPF_OBJ_GET_INFO_BY_FD, address, infoByFd.size), 'bpf(BPF_OBJ_GET_INFO_BY_FD)');
  if (info.view.getUint32(linkInfo.type, LITTLE_ENDIAN) !== BPF_LINK_TYPE_TCX) return null;
  return {
    id: info.view.getUint32(linkInfo.id, LITTLE_ENDIAN),
    program: info.view.getUint32(linkInfo.prog_id, LITTLE_ENDIAN),
    interfaceIndex: info.view.getUint32(linkInfo.ifindex, LITTLE_ENDIAN),
  };
}

/** Puts another program in the place of a link's. */
export function updateLink(link: Fd, program: Fd): void {
  const { address, view } = allocate(linkUpdate.size);
  view.setUint32(linkUpdate.link_fd, link, LITTLE_ENDIAN);
  view.setUint32(linkUpdate.new_prog_fd, program, LITTLE_ENDIAN);
  check(bpf(BPF_LINK_UPDATE, address, linkUpdate.size), 'bpf(BPF_LINK_UPDATE)');
}

/** Takes the program of a link off its hook; fine when the interface went before. */
export function detachLink(link: Fd): void {
  const { address, view } = allocate(linkDetach.size);
  view.setUint32(linkDetach.link_fd, link, LITTLE_ENDIAN);
  const failed = bpf(BPF_LINK_DETACH, address, linkDetach.size) < 0;
  if (failed && errno() !== ENOLINK) throw callFailed('bpf(BPF_LINK_DETACH)', errno());
}
