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
import { writeScan } from './scan.ts';
import { compileServices } from './services.ts';
import { type CompileLimits, lastRule, RulesTooLargeError, type Tables } from './tables.ts';

/** So many may be scanned when a trie is out of proportion: some 10 us a new connection. */
const scannedMax = 4096;
/** And this is the proportion, in cells written: rules of people need a tenth of it. */
const workMax = 2 ** 26;
/** What a cell that changes costs at least, in cells written: its list, and the nodes above it. */
const workPerCell = 8;

/** A quarter of a gigabyte holds 100,000 rules of the kinds that people write. */
export const defaultLimits: CompileLimits = { bytes: 256 << 20, ms: 60_000 };

/**
 * @param rules the first that matches decides
 * @throws RulesTooLargeError before more than a few times `limits.bytes` are in use, or the time
 * is over
 */
export function compile(rules: readonly Rule[], limits: CompileLimits = defaultLimits): Tables {
  if (rules.length > scannedMax) return compileTrie(rules, limits, Infinity);
  try {
    return compileTrie(rules, limits, workMax);
  } catch (error) {
    if (!(error instanceof RulesTooLargeError)) throw error;
    return compileScan(rules, limits);
  }
}

function compileTrie(rules: readonly Rule[], limits: CompileLimits, work: number): Tables {
  const nodes = new Nodes(limits, work);
  const chosen = plan(rules);
  nodes.expect(chosen.cells * workPerCell);
  const services = compileServices(nodes, rules);
  const lists = new Lists(nodes, services, limits);
  const planes = chosen.planes.map((indexes, number) =>
    indexes.length === 0
      ? undefined
      : compilePlane(
          nodes,
          lists,
          indexes.map((index) => planeRule(rules[index], index, number !== 1)),
        ),
  );
  const valuesFor = (rowsOf: (number: number) => boolean) =>
    planes.map((plane, number) => valuesOf(plane, rowsOf(number)));
  const local = new AddressTrie(
    nodes,
    valuesFor((number) => number !== 1),
  );
  const remote = new AddressTrie(
    nodes,
    valuesFor((number) => number === 1),
  );
  return {
    ...emptyTables(rules),
    localRoot: local.root(),
    remoteRoot: remote.root(),
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
    words: shared(nodes),
  };
}

function compileScan(rules: readonly Rule[], limits: CompileLimits): Tables {
  const nodes = new Nodes(limits);
  const scanRoot = writeScan(nodes, rules);
  return { ...emptyTables(rules), scanRoot, words: shared(nodes) };
}

function shared(nodes: Nodes): Int32Array {
  const words = new Int32Array(new SharedArrayBuffer(nodes.length * 4));
  words.set(nodes.words.subarray(0, nodes.length));
  return words;
}

/** All fields, so that every Tables has one shape for the JIT. */
function emptyTables(rules: readonly Rule[]): Tables {
  return {
    words: new Int32Array(0),
    ruleCount: rules.length,
    scanRoot: -1,
    localRoot: 0,
    remoteRoot: 0,
    localPortRoot: 0,
    remotePortRoot: 0,
    serviceRoot: 0,
    serviceShift: 0,
    localPortShift: 0,
    shift0: 0,
    shift1: 0,
    shift2: 0,
    first0: lastRule,
    first1: lastRule,
    first2: lastRule,
  };
}

function valuesOf(plane: Plane | undefined, isRow: boolean): Column | undefined {
  if (plane === undefined) return undefined;
  return isRow
    ? { starts: plane.rowStarts, values: plane.rows }
    : { starts: plane.columnStarts, values: plane.columns };
}
