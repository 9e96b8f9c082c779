/** The micro benches, which need no root: `npm run bench` runs them as programs of their own. */
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';

/** By name; each takes `--smoke`, `--json` and `--record`. */
export const microBenches = ['classify', 'flows', 'flow-log'] as const;

export type MicroOptions = {
  /** A moment of each, to see that it works. */
  readonly quick: boolean;
  readonly record: boolean;
  /** Lines as in bench/results.ndjson on standard output, and words on standard error. */
  readonly json: boolean;
};

/** A process each, so that none finds the code warmed up by another. False: it failed. */
export function runMicroBench(name: string, { json, quick, record }: MicroOptions): boolean {
  const program = fileURLToPath(new URL(`./${name}.bench.js`, import.meta.url));
  const asked = { '--smoke': quick, '--record': record, '--json': json };
  const flags = Object.entries(asked).flatMap(([flag, wanted]) => (wanted ? [flag] : []));
  return spawnSync(process.execPath, [program, ...flags], { stdio: 'inherit' }).status === 0;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const smoke = { quick: true, record: false, json: false };
  const failed = microBenches.filter((name) => !runMicroBench(name, smoke));
  process.exit(failed.length);
}
