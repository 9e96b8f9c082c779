/** A connection as a person writes it: `tcp 10.1.0.9:41000 -> 10.2.0.7:5432`. */
import { Protocol } from '../../parsers/ipv4.ts';
import { parseAddress } from '../../parsers/text.ts';
import { formatProtocol, parseProtocol } from '../config/text.ts';
import { UsageError } from '../usage-error.ts';

/** Addresses are int32; `source` opens the connection. Ports are 0 where there are none. */
export type Tuple = {
  readonly protocol: number;
  readonly source: number;
  readonly sourcePort: number;
  readonly destination: number;
  readonly destinationPort: number;
};

const example = 'such as tcp 10.1.0.9:41000 to 10.2.0.7:5432, or icmp 10.1.0.9 to 10.2.0.7';

/** `->`, `to` or nothing between the ends. Throws a UsageError that says what is wrong. */
export function parseTuple(words: readonly string[]): Tuple {
  const parts = words
    .join(' ')
    .replaceAll(/->|→/g, ' to ')
    .split(/\s+/)
    .filter((word) => word !== '');
  // A shell takes `> ADDRESS` for a file to write to; what is left of the arrow is its dash.
  if (parts.at(-1) === '-') {
    throw new UsageError('the shell took the > of -> for itself: quote it, or write to');
  }
  const ends = parts.slice(1).filter((word) => word !== 'to');
  if (ends.length !== 2) throw new UsageError(`a connection is needed, ${example}`);
  const protocol = parseProtocol(/^\d{1,3}$/.test(parts[0]!) ? Number(parts[0]) : parts[0]);
  if (protocol === undefined || protocol < 0) {
    throw new UsageError(`${parts[0]} is no protocol: tcp, udp, icmp or a number, ${example}`);
  }
  const [from, to] = ends.map((end) => parseEnd(end, protocol));
  return {
    protocol,
    source: from!.address,
    sourcePort: from!.port,
    destination: to!.address,
    destinationPort: to!.port,
  };
}

export function hasPorts(protocol: number): boolean {
  return protocol === Protocol.Tcp || protocol === Protocol.Udp;
}

function parseEnd(text: string, protocol: number): { address: number; port: number } {
  const [addressText, portText, ...rest] = text.split(':');
  const address = parseAddress(addressText!);
  if (address === undefined || rest.length > 0) {
    throw new UsageError(`${text} is no IPv4 address${hasPorts(protocol) ? ' and port' : ''}`);
  }
  if (!hasPorts(protocol)) {
    if (portText === undefined) return { address, port: 0 };
    throw new UsageError(`${text} has a port, and ${formatProtocol(protocol)} has none`);
  }
  if (portText === undefined) {
    throw new UsageError(`${text} has no port: write ${text}:PORT`);
  }
  const port = /^\d{1,5}$/.test(portText) ? Number(portText) : -1;
  if (port < 0 || port > 65_535) throw new UsageError(`${portText} is no port: 0 to 65535`);
  return { address, port };
}
