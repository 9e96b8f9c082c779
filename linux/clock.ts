/** CLOCK_MONOTONIC: the clock that eBPF programs read too (bpf_ktime_get_ns). */
import type { Clock } from '../engine/io.ts';
import { CLOCK_MONOTONIC, timespec } from './abi/net.ts';
import { allocate, clockGettime, LITTLE_ENDIAN } from './syscall.ts';

const millisecondsPerSecond = 1000;
const nanosecondsPerMillisecond = 1_000_000;

/** Each thread opens its own: the struct that the kernel fills is not shared. */
export function openClock(): Clock {
  const { view, address } = allocate(timespec.size);
  return {
    now(): number {
      clockGettime(CLOCK_MONOTONIC, address);
      // Seconds since boot fit in 32 bits for 136 years.
      const seconds = view.getUint32(timespec.tv_sec, LITTLE_ENDIAN);
      const nanoseconds = view.getUint32(timespec.tv_nsec, LITTLE_ENDIAN);
      return seconds * millisecondsPerSecond + nanoseconds / nanosecondsPerMillisecond;
    },
  };
}
