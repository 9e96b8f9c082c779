/** CLOCK_MONOTONIC in milliseconds: the clock of the gate and of the data path. */
export function monotonicMs(): number {
  const [seconds, nanoseconds] = process.hrtime();
  return seconds * 1000 + nanoseconds / 1e6;
}
