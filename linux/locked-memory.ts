/** Kernels before 5.11 count maps and programs of eBPF as locked memory, by a limit of 64 KiB. */
import { allocate, LITTLE_ENDIAN, setrlimit } from './syscall.ts';

/** include/uapi/asm-generic/resource.h */
const RLIMIT_MEMLOCK = 8;
const RLIM_INFINITY = 0xffff_ffff_ffff_ffffn;

/** @returns whether there is no limit now: raising it takes CAP_SYS_RESOURCE */
export function liftMemoryLimit(): boolean {
  const limit = allocate(16);
  limit.view.setBigUint64(0, RLIM_INFINITY, LITTLE_ENDIAN);
  limit.view.setBigUint64(8, RLIM_INFINITY, LITTLE_ENDIAN);
  return setrlimit(RLIMIT_MEMLOCK, limit.address) === 0;
}
