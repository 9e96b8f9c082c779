/** The clock of the gate and of the flows: CLOCK_MONOTONIC, in ticks where 32 bits must do. */

export const tickMs = 100;

/** CLOCK_MONOTONIC in milliseconds; cold path, the data path asks its own Clock (engine/io.ts). */
export function monotonicMs(): number {
  const [seconds, nanoseconds] = process.hrtime();
  return seconds * 1000 + nanoseconds / 1e6;
}
