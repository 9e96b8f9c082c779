/**
 * Self time by function, from V8's .cpuprofile format (Chrome DevTools protocol, Profiler). Pure.
 */

export type Profile = {
  readonly nodes: readonly {
    readonly id: number;
    readonly callFrame: {
      readonly functionName: string;
      readonly url: string;
      readonly lineNumber: number;
    };
  }[];
  readonly samples: readonly number[];
  /** Microseconds before each sample. */
  readonly timeDeltas: readonly number[];
};

export type SelfTime = { readonly name: string; readonly share: number };

/** Highest first. A share is of the time in which the thread did anything but idle. */
export function selfTimes(profile: Profile): SelfTime[] {
  const names = new Map(profile.nodes.map(({ id, callFrame }) => [id, nameOf(callFrame)]));
  const times = new Map<string, number>();
  let total = 0;
  profile.samples.forEach((id, index) => {
    const name = names.get(id) ?? 'unknown';
    const time = Math.max(0, profile.timeDeltas[index] ?? 0);
    if (name === '(idle)') return;
    times.set(name, (times.get(name) ?? 0) + time);
    total += time;
  });
  return [...times]
    .map(([name, time]) => ({ name, share: total === 0 ? 0 : time / total }))
    .sort((a, b) => b.share - a.share);
}

function nameOf(frame: { functionName: string; url: string; lineNumber: number }): string {
  const name = frame.functionName === '' ? '(anonymous)' : frame.functionName;
  if (frame.url === '') return name;
  const file = frame.url.replace(/^.*\/dist\//, '').replace(/^.*\/node_modules\//, '');
  return `${name} ${file}:${frame.lineNumber + 1}`;
}

/** System calls of the data path, as the kernel's functions, and what they are for. */
const calls: readonly (readonly [symbol: RegExp, name: string])[] = [
  [/_sys_sendm?msg/, 'send to the tunnel'],
  [/\b(do_writev|vfs_writev|tun_chr_write_iter)\b/, 'write to the TUN'],
  [/_sys_recvm?msg/, 'receive from the tunnel'],
  [/\b(ksys_read|vfs_read|tun_chr_read_iter)\b/, 'read from the TUN'],
  [/_sys_epoll|\bdo_epoll_wait\b/, 'sleep and wake'],
];
/** The rest of the network runs in the thread that sends. */
const softirq = /\b(do_softirq|handle_softirqs|__do_softirq)/;

/**
 * Shares of a thread's time by what it was doing, from `perf script -F sym,dso` with call chains
 * (leaf first, a blank line after each sample). What is foreign is the other hosts' work.
 */
export function partsOf(script: string): SelfTime[] {
  const times = new Map<string, number>();
  const samples = script.split('\n\n').filter((sample) => sample.trim() !== '');
  for (const sample of samples) {
    const name = partOf(sample);
    times.set(name, (times.get(name) ?? 0) + 1);
  }
  return [...times]
    .map(([name, count]) => ({ name, share: count / samples.length }))
    .sort((a, b) => b.share - a.share);
}

function partOf(sample: string): string {
  const call = calls.find(([symbol]) => symbol.test(sample))?.[1];
  if (softirq.test(sample)) return `other hosts, within: ${call ?? 'an interrupt'}`;
  if (call !== undefined) return call;
  const leaf = sample.trim().split('\n')[0] ?? '';
  if (/wasm-function/.test(leaf)) return 'checksums in WebAssembly';
  if (/JS:/.test(leaf)) return 'TypeScript';
  if (/koffi/.test(leaf)) return 'koffi';
  if (/kernel/.test(leaf)) return 'entering the kernel, interrupts';
  if (/libc|vdso/.test(leaf)) return 'libc';
  return 'node';
}
