/**
 * The lookup: which rule decides, by walking the tables of tables.ts. It allocates nothing.
 */
import type { Direction } from '../../tunnel/pieces.ts';
import { noRule } from './rules.ts';
import { scan } from './scan.ts';
import { lastRule, type Tables } from './tables.ts';

/**
 * @param opener who opens the connection: egress is this host
 * @param local int32, as are the other address and the ports and the protocol
 * @returns the index of the first rule that matches, or `noRule`
 */
export function match(
  tables: Tables,
  opener: Direction,
  local: number,
  remote: number,
  localPort: number,
  remotePort: number,
  protocol: number,
): number {
  if (tables.scanRoot >= 0) {
    return scan(tables, opener, local, remote, localPort, remotePort, protocol);
  }
  const w = tables.words;
  let l = w[tables.localRoot + (local >>> 16)];
  if (l >= 0) {
    l = w[l + ((local >>> 10) & 63)];
    if (l >= 0) {
      l = w[l + ((local >>> 5) & 31)];
      if (l >= 0) l = w[l + (local & 31)];
    }
  }
  let r = w[tables.remoteRoot + (remote >>> 16)];
  if (r >= 0) {
    r = w[r + ((remote >>> 10) & 63)];
    if (r >= 0) {
      r = w[r + ((remote >>> 5) & 31)];
      if (r >= 0) r = w[r + (remote & 31)];
    }
  }
  l = ~l;
  r = ~r;
  let s = w[tables.serviceRoot + (((opener << 8) | protocol) & 511)];
  if (s >= 0) {
    let p = w[tables.remotePortRoot + ((remotePort >>> 8) & 255)];
    if (p >= 0) p = w[p + (remotePort & 255)];
    s = w[s + ~p];
  }
  s = ~s;
  let best = lastRule;
  if (tables.first0 < best) best = cell(tables, w, w[l], w[r], tables.shift0, localPort, s);
  if (tables.first1 < best) {
    const found = cell(tables, w, w[r + 1], w[l + 1], tables.shift1, localPort, s);
    if (found < best) best = found;
  }
  if (tables.first2 < best) {
    const found = cell(tables, w, w[l + 2], w[r + 2], tables.shift2, localPort, s);
    if (found < best) best = found;
  }
  return best === lastRule ? noRule : best;
}

/** From a row by a column, and then by what else the rules ask, to a rule or `lastRule`. */
function cell(
  tables: Tables,
  w: Int32Array,
  row: number,
  column: number,
  shift: number,
  localPort: number,
  service: number,
): number {
  while (row >= 0) {
    row = w[row + ((column >>> shift) & 15)];
    shift -= 4;
  }
  row = ~row;
  if ((row & 1) === 0) return row >>> 1;
  if ((row & 2) !== 0) {
    let p = w[tables.localPortRoot + ((localPort >>> 8) & 255)];
    if (p >= 0) p = w[p + (localPort & 255)];
    row >>>= 2;
    shift = tables.localPortShift;
    do {
      row = w[row + ((~p >>> shift) & 15)];
      shift -= 4;
    } while (row >= 0);
    row = ~row;
    if ((row & 1) === 0) return row >>> 1;
  }
  row >>>= 2;
  shift = tables.serviceShift;
  do {
    row = w[row + ((service >>> shift) & 15)];
    shift -= 4;
  } while (row >= 0);
  return ~row >>> 1;
}
