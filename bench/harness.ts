/**
 * Runs measurements over peers, interleaved: every repeat goes through all cells before the next
 * one begins, each time from another one on, so that what the machine does meanwhile falls on all
 * alike. A cell is a peer on a wire; each time it gets new hosts. A cell that fails, or whose
 * traffic did not take the path it claims, has no figures and says why.
 */
import { cpus, release, totalmem } from 'node:os';
import type { Effort, Figures, Measurement } from './measure.ts';
import { type Path, type Peer, type Wire, withPath } from './peer.ts';
import { median, summarize } from './statistics.ts';
import type { CellFigures } from './table.ts';

export type Cell = { readonly peer: Peer; readonly wire: Wire };

export type CellResult = CellFigures & {
  /** What went wrong, each once. */
  readonly failures: readonly string[];
};

export type Plan = {
  readonly cells: readonly Cell[];
  readonly measurements: readonly Measurement[];
  readonly repeats: number;
  readonly effort: Effort;
  readonly onProgress: (words: string) => void;
};

type Collected = { cell: Cell; values: Record<string, number[]>; failures: Set<string> };

export async function runPlan(plan: Plan): Promise<CellResult[]> {
  const collected: Collected[] = plan.cells.map((cell) => ({
    cell,
    values: {},
    failures: new Set<string>(),
  }));
  const total = plan.cells.length * plan.repeats;
  let done = 0;
  for (let repeat = 0; repeat < plan.repeats; repeat++) {
    for (let index = 0; index < collected.length; index++) {
      const one = collected[(index + repeat) % collected.length]!;
      const { peer, wire } = one.cell;
      done++;
      plan.onProgress(`${done}/${total} ${peer.name}, ${wire}, repeat ${repeat + 1}`);
      await runCell(one, plan);
    }
  }
  return collected.map(({ cell, values, failures }) => ({
    peer: cell.peer.name,
    wire: cell.wire,
    figures: Object.fromEntries(
      Object.entries(values).map(([name, all]) => [name, summarize(all)] as const),
    ),
    failures: [...failures],
  }));
}

async function runCell(one: Collected, plan: Plan): Promise<void> {
  const { peer, wire } = one.cell;
  const fail = (what: string, error: unknown) => {
    const words = `${what}: ${(error as Error).message}`;
    one.failures.add(words);
    plan.onProgress(`  failed: ${peer.name}, ${wire}: ${words}`);
  };
  try {
    await withPath(peer, wire, async (path: Path) => {
      const measure = async (measurement: Measurement) => {
        try {
          keep(one.values, await measurement.run(path, plan.effort, hints(one.values)));
        } catch (error) {
          fail(measurement.name, error);
        }
      };
      const together = plan.measurements.filter((one) => plan.effort.quick && !one.alone);
      await Promise.all(together.map(measure));
      for (const measurement of plan.measurements) {
        if (!together.includes(measurement)) await measure(measurement);
      }
    });
  } catch (error) {
    fail('start', error);
  }
}

function keep(values: Record<string, number[]>, figures: Figures): void {
  for (const [name, value] of Object.entries(figures)) {
    values[name] ??= [];
    values[name].push(value);
  }
}

function hints(values: Record<string, number[]>): Figures {
  return Object.fromEntries(
    Object.entries(values).map(([name, all]) => [name, median(all)] as const),
  );
}

export type Machine = {
  readonly cpu: string;
  readonly processors: number;
  readonly memoryGib: number;
  readonly kernel: string;
  readonly node: string;
};

export function describeMachine(): Machine {
  const all = cpus();
  return {
    cpu: all[0]?.model.trim() ?? 'unknown',
    processors: all.length,
    memoryGib: Math.round(totalmem() / 2 ** 30),
    kernel: release(),
    node: process.version,
  };
}
