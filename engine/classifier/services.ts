/**
 * What a rule says beside addresses: who opens, protocol and ports. Whatever no rule tells apart
 * is one class of services, and a rule is a set of classes.
 */
import { Protocol } from '../../parsers/ipv4.ts';
import { classesOf, cut, joined, Partition, pieceAfter, pieceOf, renumber } from './axis.ts';
import type { Nodes } from './nodes.ts';
import { tooLarge } from './nodes.ts';
import { Opener, type Range, type Rule } from './rules.ts';

const portLast = 0xffff;
const protocolCount = 256;
/** Cells of the grid of port classes: above it the rules' ports cross each other too much. */
const cellsMax = 1 << 22;
/** Cells written while the classes are found: a second's work. */
const writesMax = 1 << 27;

type Service = {
  readonly opener: Opener;
  readonly protocol: number;
  readonly localPort: readonly Range[];
  readonly remotePort: readonly Range[];
};

export type Services = {
  /** By rule: the number of its service. */
  readonly ofRule: Int32Array;
  readonly classCount: number;
  /** By service: its classes. */
  readonly members: readonly Int32Array[];
  readonly root: number;
  readonly localPortRoot: number;
  readonly remotePortRoot: number;
};

type PortAxis = { readonly starts: Float64Array; readonly classes: Int32Array; count: number };

/** The grid: two openers by TCP and UDP by classes of ports, then two openers by protocols. */
type Grid = { readonly local: PortAxis; readonly remote: PortAxis; readonly cells: Int32Array };

/** Writes the tries of ports and services into `nodes`. */
export function compileServices(nodes: Nodes, rules: readonly Rule[]): Services {
  const { services, ofRule } = distinct(rules);
  const local = portAxis(services.map((service) => service.localPort));
  const remote = portAxis(services.map((service) => service.remotePort));
  const size = 4 * local.count * remote.count + 2 * protocolCount;
  if (size > cellsMax) throw tooLarge(cellsMax * 4);
  const grid = { local, remote, cells: new Int32Array(size) };
  const partition = new Partition(grid.cells);
  let writes = 0;
  for (const service of services) {
    partition.begin();
    eachCell(grid, service, (cell) => partition.put(cell));
    writes += size;
    if (writes > writesMax * 64) throw tooLarge(cellsMax * 4);
  }
  const classCount = renumber(grid.cells);
  const seen = new Int32Array(classCount);
  const members = services.map((service, index) => {
    const classes: number[] = [];
    eachCell(grid, service, (cell) => {
      const number = grid.cells[cell];
      if (seen[number] === index + 1) return;
      seen[number] = index + 1;
      classes.push(number);
    });
    return Int32Array.from(classes);
  });
  return {
    ofRule,
    classCount,
    members,
    root: serviceTrie(nodes, grid),
    localPortRoot: portTrie(nodes, local),
    remotePortRoot: portTrie(nodes, remote),
  };
}

function distinct(rules: readonly Rule[]): { services: Service[]; ofRule: Int32Array } {
  const numbers = new Map<string, number>();
  const services: Service[] = [];
  const ofRule = new Int32Array(rules.length);
  rules.forEach(({ opener, protocol, localPort, remotePort }, index) => {
    const service = {
      opener,
      protocol,
      localPort: joined(localPort),
      remotePort: joined(remotePort),
    };
    const key = `${opener} ${protocol} ${text(service.localPort)} ${text(service.remotePort)}`;
    let number = numbers.get(key);
    if (number === undefined) {
      number = services.push(service) - 1;
      numbers.set(key, number);
    }
    ofRule[index] = number;
  });
  return { services, ofRule };
}

/** The same for equal lists, different for different ones. */
export function text(ranges: readonly Range[]): string {
  return ranges.map(({ first, last }) => `${first}-${last}`).join();
}

function portAxis(lists: readonly (readonly Range[])[]): PortAxis {
  const different = new Map(lists.map((ranges) => [text(ranges), ranges])).values();
  const all = [...different];
  const starts = cut(all, portLast);
  const classes = classesOf(starts, all);
  return {
    starts,
    classes,
    count: classes.reduce((most, number) => Math.max(most, number), 0) + 1,
  };
}

function eachCell(grid: Grid, service: Service, put: (cell: number) => void): void {
  const { protocol, localPort, remotePort } = service;
  const hasPorts = localPort.length > 0 || remotePort.length > 0;
  const { local, remote } = grid;
  const locals = classesIn(local, localPort);
  const remotes = classesIn(remote, remotePort);
  const others = 4 * local.count * remote.count;
  for (let ingress = 0; ingress < 2; ingress++) {
    if ((service.opener & (ingress === 1 ? Opener.Ingress : Opener.Egress)) === 0) continue;
    for (let udp = 0; udp < 2; udp++) {
      if (protocol !== -1 && protocol !== (udp === 1 ? Protocol.Udp : Protocol.Tcp)) continue;
      for (const localClass of locals) {
        const row = ((ingress * 2 + udp) * local.count + localClass) * remote.count;
        for (const remoteClass of remotes) put(row + remoteClass);
      }
    }
    if (hasPorts) continue;
    const first = others + ingress * protocolCount;
    if (protocol !== -1) put(first + protocol);
    else for (let number = 0; number < protocolCount; number++) put(first + number);
  }
}

function classesIn(axis: PortAxis, ranges: readonly Range[]): number[] {
  if (ranges.length === 0) return Array.from({ length: axis.count }, (_, index) => index);
  const found = new Set<number>();
  for (const range of ranges) {
    const end = pieceAfter(axis.starts, range.last);
    for (let i = pieceOf(axis.starts, range.first); i < end; i++) found.add(axis.classes[i]);
  }
  return [...found];
}

/** Levels: opener and protocol, class of the local port, class of the remote port. */
function serviceTrie(nodes: Nodes, { local, remote, cells }: Grid): number {
  const finals = cells.map((number) => ~number);
  const others = 4 * local.count * remote.count;
  const root = finals.slice(others);
  const level = new Int32Array(local.count);
  for (let ingress = 0; ingress < 2; ingress++) {
    for (let udp = 0; udp < 2; udp++) {
      for (let i = 0; i < local.count; i++) {
        const row = ((ingress * 2 + udp) * local.count + i) * remote.count;
        level[i] = nodes.internEntry(finals, row, remote.count);
      }
      const protocol = udp === 1 ? Protocol.Udp : Protocol.Tcp;
      root[ingress * protocolCount + protocol] = nodes.internEntry(level, 0, local.count);
    }
  }
  return nodes.intern(root, 0, root.length);
}

/** Levels: high byte, low byte. */
function portTrie(nodes: Nodes, { starts, classes }: PortAxis): number {
  const ports = new Int32Array(portLast + 1);
  for (let piece = 0; piece < starts.length; piece++) {
    ports.fill(~classes[piece], starts[piece], starts[piece + 1] ?? portLast + 1);
  }
  const root = new Int32Array(256);
  for (let high = 0; high < 256; high++) root[high] = nodes.internEntry(ports, high << 8, 256);
  return nodes.intern(root, 0, root.length);
}
