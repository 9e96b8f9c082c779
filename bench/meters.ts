/** What a measurement cost: processor time of the machine and of a program, memory. */
import { readFileSync } from 'node:fs';
import { cpus } from 'node:os';
import { parseIdleTicks, parseProcessTicks, parseResident } from './parse.ts';

/** USER_HZ, the unit of /proc: 100 on every architecture we run on (Linux asm-generic/param.h). */
const ticksPerSecond = 100;

export type Cost = {
  readonly seconds: number;
  /** Processor seconds of everything on the machine. */
  readonly machine: number;
  /** Processor seconds of the program; 0 without one. */
  readonly program: number;
};

const processors = cpus().length;

/** Starts measuring; the function it returns tells what was spent since. */
export function startMeter(pid: number | undefined): () => Cost {
  const begun = read(pid);
  return () => {
    const now = read(pid);
    const seconds = (now.ms - begun.ms) / 1000;
    return {
      seconds,
      machine: Math.max(0, seconds * processors - (now.idle - begun.idle) / ticksPerSecond),
      program: (now.program - begun.program) / ticksPerSecond,
    };
  };
}

export function residentBytes(pid: number): number {
  return parseResident(readFileSync(`/proc/${pid}/status`, 'utf8'));
}

function read(pid: number | undefined): { ms: number; idle: number; program: number } {
  return {
    ms: performance.now(),
    idle: parseIdleTicks(readFileSync('/proc/stat', 'utf8')),
    program: pid === undefined ? 0 : parseProcessTicks(readFileSync(`/proc/${pid}/stat`, 'utf8')),
  };
}
