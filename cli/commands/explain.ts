/**
 * `microperimeter explain`: what the policy makes of a connection, or of every connection in a
 * capture file, and why. Works on any host and needs no root; what only this host knows (its
 * addresses, a running agent's MTU) is used when it is there.
 */
import { request } from '../../control/client.ts';
import { verdictNames } from '../../control/flows.ts';
import type { Config, Prefix } from '../../engine/config.ts';
import { Verdict } from '../../engine/flows.ts';
import { Direction } from '../../tunnel/pieces.ts';
import { readConfigFile } from '../config/file.ts';
import { contains, parsePrefix } from '../config/text.ts';
import { ExitCode } from '../exit-codes.ts';
import { openCapture } from '../explain/capture-file.ts';
import { type CapturedFlow, groupFlows } from '../explain/capture-flows.ts';
import { type DecidedBy, Decider, formatConnection } from '../explain/decide.ts';
import { drawExplanation, shortDecidedBy } from '../explain/draw.ts';
import { type Connection, directionNames } from '../explain/misses.ts';
import { parseTuple, type Tuple } from '../explain/tuple.ts';
import { findLinksIfAny, ownAddresses } from '../links.ts';
import { formatBytes, formatTable } from '../table.ts';
import { UsageError } from '../usage-error.ts';

export type ExplainOptions = {
  readonly config: string;
  readonly direction?: string;
  /** Addresses that count as this host's, instead of its own. */
  readonly local?: string;
  readonly pcap?: string;
  readonly all: boolean;
  readonly json: boolean;
};

export const defaultConfigFile = '/etc/microperimeter/config.yaml';

export async function explain(words: readonly string[], options: ExplainOptions): Promise<number> {
  if (words.length > 0 === (options.pcap !== undefined)) {
    throw new UsageError('explain takes a connection or --pcap FILE, one of the two');
  }
  const sides = sidesOf(options);
  const tuple = options.pcap === undefined ? parseTuple(words) : undefined;
  const source = readConfigFile(options.config);
  const decider = new Decider(source, findLinksIfAny(source.config));
  const text = tuple
    ? await explainTuple(decider, tuple, sides, options)
    : explainCapture(decider, options.pcap!, sides, options);
  process.stdout.write(text);
  return ExitCode.Ok;
}

type Sides = {
  readonly direction: Direction | undefined;
  isLocal(address: number): boolean;
};

function sidesOf({ direction, local }: ExplainOptions): Sides {
  const index = directionNames.indexOf(direction as 'egress');
  if (direction !== undefined && index < 0) {
    throw new UsageError(`--direction is egress or ingress, not ${direction}`);
  }
  const own = local === undefined ? ownAddresses() : [];
  const prefixes = (local?.split(',') ?? []).map((text): Prefix => {
    const prefix = parsePrefix(text.trim());
    if (prefix === undefined) throw new UsageError(`--local: ${text} is no address and no CIDR`);
    return prefix;
  });
  return {
    direction: direction === undefined ? undefined : (index as Direction),
    isLocal: (address) =>
      own.includes(address) || prefixes.some((prefix) => contains(prefix, address)),
  };
}

/** Undefined when both ends, or neither, are this host's. */
function openerOf({ source, destination }: Tuple, sides: Sides): Direction | undefined {
  if (sides.direction !== undefined) return sides.direction;
  if (sides.isLocal(source) === sides.isLocal(destination)) return undefined;
  return sides.isLocal(source) ? Direction.Egress : Direction.Ingress;
}

function connectionOf(tuple: Tuple, opener: Direction): Connection {
  const { destination, destinationPort, protocol, source, sourcePort } = tuple;
  return opener === Direction.Egress
    ? {
        opener,
        protocol,
        local: source,
        localPort: sourcePort,
        remote: destination,
        remotePort: destinationPort,
      }
    : {
        opener,
        protocol,
        local: destination,
        localPort: destinationPort,
        remote: source,
        remotePort: sourcePort,
      };
}

async function explainTuple(
  decider: Decider,
  tuple: Tuple,
  sides: Sides,
  { all, json }: ExplainOptions,
): Promise<string> {
  const opener = openerOf(tuple, sides);
  if (opener === undefined) {
    throw new UsageError(
      'which end is this host? Say --direction egress when it is the first, ingress when the second',
    );
  }
  const agentMtu = await innerMtuOfAgent(decider.config);
  const explanation = decider.explain(connectionOf(tuple, opener), agentMtu);
  return json ? `${JSON.stringify(explanation, null, 2)}\n` : drawExplanation(explanation, all);
}

/** Undefined when no agent of this configuration runs here, or none that we may ask. */
async function innerMtuOfAgent(config: Config): Promise<number | undefined> {
  try {
    const { body } = await request(config.control.socket, 'GET', '/status');
    const mtu = (body as { innerMtu?: unknown }).innerMtu;
    return typeof mtu === 'number' ? mtu : undefined;
  } catch {
    return undefined;
  }
}

type CaptureRow = {
  readonly connection: string;
  readonly direction: string;
  readonly packets: number;
  readonly bytes: number;
  readonly verdict: string;
  readonly decidedBy: DecidedBy;
};

function explainCapture(
  decider: Decider,
  file: string,
  sides: Sides,
  { json }: ExplainOptions,
): string {
  const { flows, leftOut } = groupFlows(openCapture(file));
  const rows = flows.flatMap((flow) => captureRows(decider, flow, sides));
  if (json) {
    return `${JSON.stringify({ flows: rows, leftOut: Object.fromEntries(leftOut) }, null, 2)}\n`;
  }
  const head = ['connection', 'direction', 'packets', 'bytes', 'verdict', 'decided by'];
  const table = rows.map((row) => [
    row.connection,
    row.direction,
    String(row.packets),
    formatBytes(row.bytes),
    row.verdict,
    shortDecidedBy(row.decidedBy),
  ]);
  const others = [...leftOut].map(([why, count]) => `${count} packets: ${why}\n`);
  const { rolloutPercent } = decider.config.policy;
  if (rolloutPercent < 100) {
    others.push(`of what says redirect, ${rolloutPercent}% of new flows are (policy.rollout)\n`);
  }
  return `${formatTable(head, table)}${others.join('')}`;
}

/** Undecided is a connection to be reset; a share of flows is told below the table. */
const captureVerdicts: Partial<Record<Verdict, string>> = {
  [Verdict.Undecided]: 'reset',
  [Verdict.PassRollout]: 'redirect',
};

/** Two rows where it is not known which end is this host. */
function captureRows(decider: Decider, flow: CapturedFlow, sides: Sides): CaptureRow[] {
  const known = openerOf(flow.tuple, sides);
  const openers = known === undefined ? [Direction.Egress, Direction.Ingress] : [known];
  return openers.map((opener) => {
    const connection = connectionOf(flow.tuple, opener);
    const { rule, verdict } = decider.decide(connection, !flow.startSeen);
    return {
      connection: formatConnection(connection),
      direction: `${directionNames[opener]}${known === undefined ? '?' : ''}`,
      packets: flow.packets,
      bytes: flow.bytes,
      verdict: captureVerdicts[verdict] ?? verdictNames[verdict],
      decidedBy: decider.nameOf(rule, connection),
    };
  });
}
