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
