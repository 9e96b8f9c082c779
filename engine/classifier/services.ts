/**
 * What a rule says beside addresses: who opens, protocol and ports. Local ports that no rule tells
 * apart are one class, and so are (opener, protocol, remote port) that none tells apart: a service
 * is a set of the former by a set of the latter. Taken apart like this because few rules speak of
 * the port at both ends, and where some do the product of both has many classes.
 */
import { Protocol } from '../../parsers/ipv4.ts';
import { classesOf, cut, joined, Partition, pieceAfter, pieceOf, renumber } from './axis.ts';
import type { Nodes } from './nodes.ts';
import { Opener, type Range, type Rule } from './rules.ts';

const portLast = 0xffff;
const protocolCount = 256;

type Service = {
  readonly opener: Opener;
  readonly protocol: number;
  readonly localPort: readonly Range[];
  readonly remotePort: readonly Range[];
};

export type Services = {
  /** By rule: the number of its service. */
  readonly ofRule: Int32Array;
  /** By service: the classes of local ports; undefined: any. */
  readonly locals: readonly (Int32Array | undefined)[];
  readonly localCount: number;
  /** By service: the classes of opener, protocol and remote port. */
  readonly remotes: readonly Int32Array[];
  readonly remoteCount: number;
  readonly root: number;
  readonly localPortRoot: number;
  readonly remotePortRoot: number;
};

type PortAxis = {
  readonly starts: Float64Array;
  readonly classes: Int32Array;
  readonly count: number;
};

/** Two openers by TCP and UDP by classes of remote ports, then two openers by protocols. */
type Grid = { readonly ports: PortAxis; readonly cells: Int32Array };

/** Writes the tries of ports and services into `nodes`. */
export function compileServices(nodes: Nodes, rules: readonly Rule[]): Services {
  const { services, ofRule } = distinct(rules);
  const local = portAxis(
    nodes,
    services.map((service) => service.localPort),
  );
  const ports = portAxis(
    nodes,
    services.map((service) => service.remotePort),
  );
  const grid = { ports, cells: new Int32Array(4 * ports.count + 2 * protocolCount) };
  nodes.expect(services.reduce((sum, service) => sum + cellCount(ports, service), 0));
  const partition = new Partition(grid.cells);
  for (const service of services) {
    const cells = cellsOf(grid, service);
    nodes.spend(cells.length);
    partition.begin();
    for (const cell of cells) partition.put(cell);
  }
  const remoteCount = renumber(grid.cells);
  const remotes = services.map((service) => {
    const cells = cellsOf(grid, service);
    nodes.spend(cells.length);
    const classes = Int32Array.from(new Set(cells.map((cell) => grid.cells[cell])));
    nodes.hold(classes.length);
    return classes;
  });
  return {
    ofRule,
    locals: services.map(({ localPort }) => {
      if (localPort.length === 0) return undefined;
      const classes = Int32Array.from(classesIn(local, localPort));
      nodes.hold(classes.length);
      return classes;
    }),
    localCount: local.count,
    remotes,
    remoteCount,
    root: serviceTrie(nodes, grid),
    localPortRoot: portTrie(nodes, local),
    remotePortRoot: portTrie(nodes, ports),
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

function portAxis(nodes: Nodes, lists: readonly (readonly Range[])[]): PortAxis {
  const different = [...new Map(lists.map((ranges) => [text(ranges), ranges])).values()];
  const starts = cut(different, portLast);
  const classes = classesOf(starts, different, (writes) => nodes.spend(writes));
  return { starts, classes, count: countOf(classes) };
}

/** @returns how many classes there are, numbered from 0 */
export function countOf(classes: Int32Array): number {
  return classes.reduce((most, number) => Math.max(most, number), 0) + 1;
}

function cellsOf({ ports }: Grid, service: Service): number[] {
  const { protocol, localPort, remotePort } = service;
  const hasPorts = localPort.length > 0 || remotePort.length > 0;
  const classes = classesIn(ports, remotePort);
  const cells: number[] = [];
  for (let ingress = 0; ingress < 2; ingress++) {
    if ((service.opener & (ingress === 1 ? Opener.Ingress : Opener.Egress)) === 0) continue;
    for (let udp = 0; udp < 2; udp++) {
      if (protocol !== -1 && protocol !== (udp === 1 ? Protocol.Udp : Protocol.Tcp)) continue;
      const row = (ingress * 2 + udp) * ports.count;
      for (const number of classes) cells.push(row + number);
    }
    if (hasPorts) continue;
    const first = 4 * ports.count + ingress * protocolCount;
    if (protocol !== -1) cells.push(first + protocol);
    else for (let number = 0; number < protocolCount; number++) cells.push(first + number);
  }
  return cells;
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

/** At most how many cells `cellsOf` has, but for those of other protocols. */
function cellCount(ports: PortAxis, { opener, protocol, remotePort }: Service): number {
  const pieces = remotePort.reduce(
    (sum, { first, last }) => sum + pieceAfter(ports.starts, last) - pieceOf(ports.starts, first),
    0,
  );
  const rows = (opener === Opener.Both ? 2 : 1) * (protocol === -1 ? 2 : 1);
  return rows * Math.min(remotePort.length === 0 ? ports.count : pieces, ports.count);
}

/** Levels: opener and protocol, class of the remote port. */
function serviceTrie(nodes: Nodes, { ports, cells }: Grid): number {
  const finals = cells.map((number) => ~number);
  const root = finals.slice(4 * ports.count);
  for (let ingress = 0; ingress < 2; ingress++) {
    for (let udp = 0; udp < 2; udp++) {
      const protocol = udp === 1 ? Protocol.Udp : Protocol.Tcp;
      const row = (ingress * 2 + udp) * ports.count;
      root[ingress * protocolCount + protocol] = nodes.internEntry(finals, row, ports.count);
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
