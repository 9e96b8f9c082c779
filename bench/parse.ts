/**
 * What the measuring tools and /proc print, as numbers. Pure; throws where the text is not theirs.
 */

export type IperfResult = {
  /** Payload that arrived. */
  readonly bytes: number;
  readonly bitsPerSecond: number;
};

/** Output of `iperf3 --json`, of a TCP client. */
export function parseIperf(text: string): IperfResult {
  const result = JSON.parse(text) as {
    error?: string;
    end?: { sum_received?: { bytes?: number; bits_per_second?: number } };
  };
  if (result.error !== undefined) throw new Error(`iperf3: ${result.error}`);
  const { bytes, bits_per_second: bitsPerSecond } = result.end?.sum_received ?? {};
  if (bytes === undefined || bitsPerSecond === undefined) {
    throw new Error('iperf3: its report names no received bytes');
  }
  return { bytes, bitsPerSecond };
}

export type SockperfResult = {
  /** Messages that were answered. */
  readonly answered: number;
  /** Whole round trips, microseconds. */
  readonly p50: number;
  readonly p99: number;
};

/** Output of `sockperf ping-pong --full-rtt`. */
export function parseSockperf(text: string): SockperfResult {
  const number = (pattern: RegExp, what: string) => {
    const found = pattern.exec(text)?.[1];
    if (found === undefined) throw new Error(`sockperf: its report names no ${what}`);
    return Number(found);
  };
  return {
    answered: number(/\[Valid Duration\][^\n]*ReceivedMessages=(\d+)/, 'received messages'),
    p50: number(/percentile 50\.0+ = +([\d.]+)/, 'median'),
    p99: number(/percentile 99\.0+ = +([\d.]+)/, '99th percentile'),
  };
}

/**
 * Clock ticks in which some processor had nothing to do, or was with another virtual machine, from
 * /proc/stat. Idle time is measured by the clock; what work is split into is sampled by the tick.
 */
export function parseIdleTicks(text: string): number {
  const fields = /^cpu +(.*)$/m.exec(text)?.[1]?.split(' ').map(Number);
  if (fields === undefined || fields.length < 8) throw new Error('/proc/stat: no line "cpu"');
  // user nice system idle iowait irq softirq steal
  const [, , , idle = 0, iowait = 0, , , steal = 0] = fields;
  return idle + iowait + steal;
}

/** Clock ticks of one process with all its threads, from /proc/PID/stat. */
export function parseProcessTicks(text: string): number {
  // The name, in parentheses, may hold anything; the fields after it count from 3 (state).
  const fields = text
    .slice(text.lastIndexOf(')') + 2)
    .split(' ')
    .map(Number);
  const [user, system] = [fields[11], fields[12]];
  if (user === undefined || system === undefined) throw new Error('/proc/PID/stat: too short');
  return user + system;
}

/** Resident memory in bytes, from /proc/PID/status. */
export function parseResident(text: string): number {
  const kibibytes = /^VmRSS:\s+(\d+) kB$/m.exec(text)?.[1];
  if (kibibytes === undefined) throw new Error('/proc/PID/status: no VmRSS');
  return Number(kibibytes) * 1024;
}

export type LinkBytes = { readonly received: number; readonly sent: number };

/** Of one interface, from /proc/net/dev. */
export function parseLinkBytes(text: string, name: string): LinkBytes {
  const line = text.split('\n').find((one) => one.trim().startsWith(`${name}:`));
  const fields = line
    ?.slice(line.indexOf(':') + 1)
    .trim()
    .split(/\s+/)
    .map(Number);
  const [received, sent] = [fields?.[0], fields?.[8]];
  if (received === undefined || sent === undefined) throw new Error(`no interface ${name}`);
  return { received, sent };
}
