/** CLOCK_MONOTONIC: the clock that eBPF programs read too (bpf_ktime_get_ns). */
import type { Clock } from '../engine/io.ts';
import { CLOCK_MONOTONIC, timespec } from './abi/net.ts';
import { adjtimex, allocate, clockGettime, LITTLE_ENDIAN } from './syscall.ts';

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

/** sys/timex.h: struct timex has 208 bytes on 64-bit machines; modes 0 changes nothing. */
const timexLength = 208;
/** sys/timex.h: the clock is not synchronised. */
const TIME_ERROR = 5;

/** Whether a time service has told the kernel that the wall clock is right (adjtimex(2)). */
export function isClockSynchronised(): boolean {
  const state = adjtimex(allocate(timexLength).address);
  return state >= 0 && state !== TIME_ERROR;
}
