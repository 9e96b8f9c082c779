/** Numbers, times and colours as the terminal shows them. */
import pc from 'picocolors';

export type Colors = ReturnType<typeof pc.createColors>;

/** Colours only on a terminal that has them and whose user wants them (no-color.org). */
export function colorsFor(stream: { readonly isTTY?: boolean }): Colors {
  const { NO_COLOR, TERM } = process.env;
  return pc.createColors(stream.isTTY === true && !NO_COLOR && TERM !== 'dumb');
}

/** `1,234,567`. */
export function formatCount(value: number): string {
  return value.toLocaleString('en-US');
}

const units = [
  [86_400, 'd'],
  [3_600, 'h'],
  [60, 'min'],
  [1, 's'],
] as const;

/** The two largest units: `3 h 12 min`, `41 s`. */
export function formatAge(ms: number): string {
  let left = Math.max(0, Math.floor(ms / 1000));
  const first = units.findIndex(([seconds]) => left >= seconds);
  if (first < 0) return '0 s';
  return units
    .slice(first, first + 2)
    .map(([seconds, unit]) => {
      const count = Math.floor(left / seconds);
      left -= count * seconds;
      return count === 0 ? '' : `${count} ${unit}`;
    })
    .filter((part) => part !== '')
    .join(' ');
}

/** Lines of at most `width` characters; a longer word stands alone. */
export function wrap(text: string, width: number): string[] {
  const lines: string[] = [];
  for (const word of text.split(' ')) {
    const line = lines.at(-1);
    if (line !== undefined && line.length + 1 + word.length <= width) {
      lines[lines.length - 1] = `${line} ${word}`;
    } else {
      lines.push(word);
    }
  }
  return lines;
}

/** Cut to `width` characters, with an ellipsis in the place of the last when something is gone. */
export function cut(text: string, width: number): string {
  return text.length <= width ? text : `${text.slice(0, Math.max(0, width - 1))}…`;
}

/** What the kernel programs count, in words (linux/bpf/policy.ts). */
export const kernelWords: Readonly<Record<string, string>> = {
  excluded: 'went on: never redirected, such as the tunnel itself',
  passedVerdict: 'went on: their connection passes',
  passedNetwork: 'went on: their network passes',
  droppedStarting: 'dropped until the agent runs (onBoot)',
  passedMode: 'went on: traffic passes (the gate is closed, or was)',
  passedAgentDead: 'went on: the agent did not move',
  droppedVerdict: 'dropped: their connection is dropped',
  droppedMode: 'dropped: the gate was closed, and its policy is drop',
  droppedAgentDead: 'dropped: the agent did not move',
  droppedIpv6: 'dropped: IPv6',
  redirected: 'given to the agent',
  reinjected: 'put on the network for the agent',
  droppedQueue: 'dropped: came back for no interface',
  carriedOut: 'carried to the firewall',
  carriedBack: 'carried back from the firewall',
  droppedCarried: 'dropped: could not be written to',
};
