/**
 * Rules to tables: services first (protocol, ports, opener: to classes), then the planes over
 * pairs of addresses, then the tries that lead from addresses to rows and columns.
 */
import { AddressTrie, type Column } from './addresses.ts';
import { firstShift, Lists } from './lists.ts';
import { Nodes } from './nodes.ts';
import { plan } from './plan.ts';
import { compilePlane, type Plane, planeRule } from './plane.ts';
import type { Rule } from './rules.ts';
import { compileServices } from './services.ts';
import { type CompileLimits, lastRule, type Tables } from './tables.ts';

/** A quarter of a gigabyte holds 100,000 rules of the kinds that people write. */
export const defaultLimits: CompileLimits = { bytes: 256 << 20, ms: 60_000 };

/**
 * @param rules the first that matches decides
 * @throws RulesTooLargeError before more than a few times `limits.bytes` are in use, or the time
 * is over
 */
export function compile(rules: readonly Rule[], limits: CompileLimits = defaultLimits): Tables {
  const nodes = new Nodes(limits);
  const services = compileServices(nodes, rules);
  const lists = new Lists(nodes, services, limits);
  const planes = plan(rules).map((chosen, number) =>
    chosen.length === 0
      ? undefined
      : compilePlane(
          nodes,
          lists,
          chosen.map((index) => planeRule(rules[index], index, number !== 1)),
        ),
  );
  const local = new AddressTrie(
    nodes,
    planes.map((plane, number) => valuesOf(plane, number !== 1)),
  );
  const remote = new AddressTrie(
    nodes,
    planes.map((plane, number) => valuesOf(plane, number === 1)),
  );
  const localRoot = local.root();
  const remoteRoot = remote.root();
  const shared = new Int32Array(new SharedArrayBuffer(nodes.length * 4));
  shared.set(nodes.words.subarray(0, nodes.length));
  return {
    words: shared,
    ruleCount: rules.length,
    localRoot,
    remoteRoot,
    localPortRoot: services.localPortRoot,
    remotePortRoot: services.remotePortRoot,
    serviceRoot: services.root,
    serviceShift: firstShift(services.remoteCount),
    localPortShift: firstShift(services.localCount),
    shift0: planes[0]?.shift ?? 0,
    shift1: planes[1]?.shift ?? 0,
    shift2: planes[2]?.shift ?? 0,
    first0: planes[0]?.first ?? lastRule,
    first1: planes[1]?.first ?? lastRule,
    first2: planes[2]?.first ?? lastRule,
  };
}

function valuesOf(plane: Plane | undefined, isRow: boolean): Column | undefined {
  if (plane === undefined) return undefined;
  return isRow
    ? { starts: plane.rowStarts, values: plane.rows }
    : { starts: plane.columnStarts, values: plane.columns };
}
