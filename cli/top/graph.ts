/** A history as a bar graph of block characters, eight steps to a line of the terminal. */

const steps = ' ▁▂▃▄▅▆▇█';

/**
 * The last `width` values, the newest at the right, as `height` lines from the top.
 *
 * @param top the value that fills the graph; what is more is cut
 */
export function drawGraph(
  values: readonly number[],
  width: number,
  height: number,
  top: number,
): string[] {
  const shown = values.slice(-width);
  const eighths = shown.map((value) => {
    const share = top > 0 ? Math.min(1, value / top) : 0;
    // What is not nothing must be seen.
    return value > 0 ? Math.max(1, Math.round(share * height * 8)) : 0;
  });
  return Array.from({ length: height }, (_, line) => {
    const below = (height - 1 - line) * 8;
    const row = eighths.map((level) => steps[Math.min(8, Math.max(0, level - below))]).join('');
    return row.padStart(width);
  });
}
