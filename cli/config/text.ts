/**
 * The small grammars of the configuration file, from text. Each returns undefined for what it does
 * not know.
 */

import { limits, type ManagementException, type Prefix } from '../../engine/config.ts';
import { formatAddress, parseAddress } from '../../parsers/text.ts';

const unitMs: Readonly<Record<string, number>> = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000 };

export const durationPattern = '^\\d{1,9}(\\.\\d{1,3})?(ms|s|m|h)$';

/** `500ms`, `10s`, `1.5s`, `2m`, `1h` to milliseconds. */
export function parseDuration(text: string): number | undefined {
  const match = /^(\d{1,9}(?:\.\d{1,3})?)(ms|s|m|h)$/.exec(text);
  if (match === null) return undefined;
  return Math.round(Number(match[1]) * unitMs[match[2]!]!);
}

/** A count of milliseconds in the largest unit that divides it. */
export function formatDuration(ms: number): string {
  if (ms !== 0 && ms % 60_000 === 0) return `${ms / 60_000}m`;
  return ms % 1_000 === 0 ? `${ms / 1_000}s` : `${ms}ms`;
}

/** `127.0.0.1:9469`; the address stays text, for whoever listens on it. */
export function parseEndpoint(text: string): { address: string; port: number } | undefined {
  const [address = '', digits = '', ...more] = text.split(':');
  const port = Number(digits);
  if (more.length > 0 || !/^\d{1,5}$/.test(digits) || port < 1 || port > 65535) return undefined;
  return parseAddress(address) === undefined ? undefined : { address, port };
}

export function formatPrefix(prefix: Prefix): string {
  return `${formatAddress(prefix.address)}/${prefix.length}`;
}

/** Ones for the network's bits. A shift by 32 is a shift by 0, hence the special case. */
function maskOf(length: number): number {
  return length === 0 ? 0 : -1 << (32 - length);
}

/** `10.1.0.0/16`, or an address as a /32. Host bits stay as written: `hasHostBits` tells. */
export function parsePrefix(text: string): Prefix | undefined {
  const [addressText, lengthText, ...rest] = text.split('/');
  const address = parseAddress(addressText!);
  if (address === undefined || rest.length > 0) return undefined;
  if (lengthText === undefined) return { address, length: 32 };
  if (!/^\d{1,2}$/.test(lengthText) || Number(lengthText) > 32) return undefined;
  return { address, length: Number(lengthText) };
}

export function hasHostBits(prefix: Prefix): boolean {
  return (prefix.address & ~maskOf(prefix.length)) !== 0;
}

export function withoutHostBits(prefix: Prefix): Prefix {
  return { address: prefix.address & maskOf(prefix.length), length: prefix.length };
}

export function contains(prefix: Prefix, address: number): boolean {
  return ((prefix.address ^ address) & maskOf(prefix.length)) === 0;
}

/** The last address of a prefix, unsigned. */
export function lastAddress(prefix: Prefix): number {
  return (prefix.address | ~maskOf(prefix.length)) >>> 0;
}

/** `any` (-1), a name of ours or a number; not the names of /etc/protocols. */
export function parseProtocol(value: unknown): number | undefined {
  if (value === 'any') return -1;
  if (typeof value === 'number') return isProtocolNumber(value) ? value : undefined;
  return typeof value === 'string' ? protocolNumbers.get(value) : undefined;
}

export function formatProtocol(protocol: number): string {
  if (protocol === -1) return 'any';
  for (const [name, number] of protocolNumbers) if (number === protocol) return name;
  return `protocol ${protocol}`;
}

function isProtocolNumber(value: number): boolean {
  const { min, max } = limits.protocol;
  return Number.isInteger(value) && value >= min && value <= max;
}

const protocolNumbers: ReadonlyMap<string, number> = new Map([
  ['icmp', 1],
  ['tcp', 6],
  ['udp', 17],
]);

/** `CIDR`, or `tcp:CIDR:PORT` and `udp:CIDR:PORT`. */
export function parseException(text: string): ManagementException | undefined {
  const parts = text.split(':');
  if (parts.length === 1) {
    const prefix = parsePrefix(text);
    return prefix && { prefix, protocol: 0, port: 0 };
  }
  const [protocolText, prefixText, portText, ...rest] = parts;
  const protocol = protocolText === 'icmp' ? undefined : protocolNumbers.get(protocolText!);
  const prefix = prefixText === undefined ? undefined : parsePrefix(prefixText);
  if (protocol === undefined || prefix === undefined || rest.length > 0) return undefined;
  if (portText === undefined || !/^\d{1,5}$/.test(portText)) return undefined;
  const port = Number(portText);
  return port >= 1 && port <= 65_535 ? { prefix, protocol, port } : undefined;
}

/** As `parseException` reads it. */
export function formatException({ port, prefix, protocol }: ManagementException): string {
  const { address, length } = prefix;
  const where = length === 32 ? formatAddress(address) : formatPrefix(prefix);
  return port === 0 ? where : `${formatProtocol(protocol)}:${where}:${port}`;
}

/** `02:00:00:00:00:01` to six bytes. */
export function parseMac(text: string): number[] | undefined {
  if (!/^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/i.test(text)) return undefined;
  return text.split(':').map((part) => Number.parseInt(part, 16));
}

/** A whole number, or `0x` and up to 16 hexadecimal digits, to 16 digits in lower case. */
export function parseIdentifier(value: unknown): string | undefined {
  if (typeof value === 'number') {
    const exact = Number.isSafeInteger(value) && value >= 0;
    return exact ? value.toString(16).padStart(16, '0') : undefined;
  }
  if (typeof value !== 'string' || !/^0x[0-9a-f]{1,16}$/i.test(value)) return undefined;
  return value.slice(2).toLowerCase().padStart(16, '0');
}

/** The candidate that differs from `word` in the fewest letters, if few enough to be a slip. */
export function closest(word: string, candidates: readonly string[]): string | undefined {
  const lower = word.toLowerCase();
  let best: string | undefined;
  let bestDistance = Math.max(1, Math.floor(word.length / 3)) + 1;
  for (const candidate of candidates) {
    const distance = editDistance(lower, candidate.toLowerCase());
    if (distance >= bestDistance) continue;
    best = candidate;
    bestDistance = distance;
  }
  return best;
}

/** Insertions, deletions, substitutions (Levenshtein); two swapped neighbours count as one. */
function editDistance(a: string, b: string): number {
  const table = Array.from({ length: a.length + 1 }, (_, i) =>
    Array.from({ length: b.length + 1 }, (_, j) => (i === 0 ? j : j === 0 ? i : 0)),
  );
  for (let i = 1; i <= a.length; i++) {
    for (let j = 1; j <= b.length; j++) {
      const substitution = a[i - 1] === b[j - 1] ? 0 : 1;
      let cost = Math.min(
        table[i - 1]![j]! + 1,
        table[i]![j - 1]! + 1,
        table[i - 1]![j - 1]! + substitution,
      );
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) {
        cost = Math.min(cost, table[i - 2]![j - 2]! + 1);
      }
      table[i]![j] = cost;
    }
  }
  return table[a.length]![b.length]!;
}
