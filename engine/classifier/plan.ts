/**
 * Which rules go to which plane. A rule costs a plane what it covers of the columns, once for each
 * of its rows' ranges. So rules that are narrow at the remote end go where columns are remote
 * addresses, the others where they are local; and rules that are wide at both ends go to a plane
 * of their own, where the axes are cut by wide rules only and have few pieces.
 */
import { cut, isPossible, joined, pieceAfter, pieceOf } from './axis.ts';
import { addressLast } from './plane.ts';
import type { Range, Rule } from './rules.ts';

export type Plan = {
  /** By plane, the rules in it. Rows are local addresses, but in plane 1. */
  readonly planes: readonly (readonly number[])[];
  /** Cells that change from one row to the next, in all planes. */
  readonly cells: number;
};

/** A single plane is faster than two; below this many changed cells it is also small. */
const onePlaneMax = 60_000;
const twoPlanesMax = 600_000;

type Ends = { readonly local: readonly Range[]; readonly remote: readonly Range[] };

export function plan(rules: readonly Rule[]): Plan {
  const ends = rules.map(({ local, remote }) => ({ local: joined(local), remote: joined(remote) }));
  const all = ends.map((_, index) => index).filter((index) => isPossible(rules[index]));
  const { rowsLocal, rowsRemote } = costs(ends, all);
  const sum = (of: Float64Array) => of.reduce((total, cost) => total + cost, 0);
  if (Math.min(sum(rowsLocal), sum(rowsRemote)) <= onePlaneMax) {
    return sum(rowsLocal) <= sum(rowsRemote)
      ? { planes: [all], cells: sum(rowsLocal) }
      : { planes: [[], all], cells: sum(rowsRemote) };
  }
  const cheaper = rowsLocal.map((cost, index) => Math.min(cost, rowsRemote[index]));
  let best: Plan = { planes: [], cells: Infinity };
  for (let limit = 2 ** 40; limit >= 1; limit /= 2) {
    const wide = all.filter((index) => cheaper[index] > limit);
    const narrow = all.filter((index) => cheaper[index] <= limit);
    const wideCosts = costs(ends, wide);
    const cost =
      narrow.reduce((total, index) => total + cheaper[index], 0) + sum(wideCosts.rowsLocal);
    if (cost >= best.cells) continue;
    const planes = [
      narrow.filter((index) => rowsLocal[index] <= rowsRemote[index]),
      narrow.filter((index) => rowsLocal[index] > rowsRemote[index]),
      wide,
    ];
    best = { planes, cells: cost };
    if (wide.length === 0 && cost <= twoPlanesMax) break;
  }
  return best;
}

/** Changed cells for each rule, if rows were local addresses, and if they were remote ones. */
function costs(ends: readonly Ends[], chosen: readonly number[]) {
  const localStarts = cut(
    chosen.map((index) => ends[index].local),
    addressLast,
  );
  const remoteStarts = cut(
    chosen.map((index) => ends[index].remote),
    addressLast,
  );
  const rowsLocal = new Float64Array(ends.length);
  const rowsRemote = new Float64Array(ends.length);
  chosen.forEach((index) => {
    const { local, remote } = ends[index];
    const changes = (ranges: readonly Range[]) => Math.max(1, ranges.length);
    rowsLocal[index] = changes(local) * pieces(remoteStarts, remote);
    rowsRemote[index] = changes(remote) * pieces(localStarts, local);
  });
  return { rowsLocal, rowsRemote };
}

function pieces(starts: Float64Array, ranges: readonly Range[]): number {
  if (ranges.length === 0) return starts.length;
  return ranges.reduce(
    (total, { first, last }) => total + pieceAfter(starts, last) - pieceOf(starts, first),
    0,
  );
}
