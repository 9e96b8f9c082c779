/**
 * The SSH session that this process was started from: whoever starts an agent by SSH must not lose
 * the way to stop it. sudo takes SSH_CONNECTION out of the environment and tmux keeps an old one:
 * every ancestor is asked, and what they say counts only while such a connection is established.
 */
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import type { ManagementException } from '../engine/config.ts';
import { Protocol } from '../parsers/ipv4.ts';
import { formatAddress, parseAddress } from '../parsers/text.ts';

/** Addresses are int32. */
export type SshSession = { readonly client: number; readonly serverPort: number };

/** proc(5): TCP_ESTABLISHED in the column `st` of net/tcp. */
const established = '01';
/** Deeper than shells within shells; a loop cannot be, but a race can look like one. */
const ancestorsMax = 64;

/**
 * Undefined when there is none, or it comes by IPv6.
 *
 * @param proc where proc(5) is
 * @param pid whose ancestors are asked
 */
export function findSshSession(proc = '/proc', pid = process.pid): SshSession | undefined {
  const connections = readConnections(proc);
  let current = pid;
  for (let depth = 0; depth < ancestorsMax && current > 1; depth++) {
    const session = sessionOf(proc, current, connections);
    if (session !== undefined) return session;
    current = parentOf(proc, current);
  }
  return undefined;
}

/** As `SSH_CONNECTION` says it, for a process that cannot ask its ancestors. */
export function sshConnectionOf({ client, serverPort }: SshSession): string {
  return `${formatAddress(client)} 0 0.0.0.0 ${serverPort}`;
}

/**
 * `SSH_CONNECTION` of a session that comes by IPv6; undefined when there is none. Which one, among
 * several, is not told by the kernel's table: one that is established to its port will do.
 */
export function findIpv6Session(proc = '/proc', pid = process.pid): string | undefined {
  const ports = new Set(
    rowsOf(proc, 'tcp6')
      .filter(([, , remote = '']) => addressOf(remote.split(':')[0] ?? '') === undefined)
      .map(([, local = '']) => Number.parseInt(local.split(':')[1] ?? '', 16)),
  );
  let current = pid;
  for (let depth = 0; depth < ancestorsMax && current > 1; depth++) {
    const value = /(?:^|\0)SSH_CONNECTION=([^\0]*)/.exec(read(`${proc}/${current}/environ`))?.[1];
    const [client = '', , , port = ''] = value?.split(' ') ?? [];
    const isIpv6 = client.includes(':') && !/^::ffff:/i.test(client);
    if (isIpv6 && ports.has(Number(port))) return value;
    current = parentOf(proc, current);
  }
  return undefined;
}

/** For the time of an agent's life: its port on this side, from that client. */
export function exceptionFor({ client, serverPort }: SshSession): ManagementException {
  return {
    prefix: { address: client, length: 32 },
    protocol: Protocol.Tcp,
    port: serverPort,
  };
}

export function describeSession({ client, serverPort }: SshSession): string {
  return `from ${formatAddress(client)} to port ${serverPort}`;
}

type Connection = SshSession & { readonly clientPort: number; readonly inode: string };

function sessionOf(
  proc: string,
  pid: number,
  connections: readonly Connection[],
): SshSession | undefined {
  const said = saidBy(proc, pid);
  const found =
    connections.find((one) => one.client === said?.client && one.serverPort === said.serverPort) ??
    // Its environment may be anything; a session's sshd holds the connection itself.
    (nameOf(proc, pid).startsWith('sshd') ? heldBy(proc, pid, connections) : undefined);
  return found && { client: found.client, serverPort: found.serverPort };
}

/** `SSH_CONNECTION`: client, its port, server, its port (ssh(1)). */
function saidBy(proc: string, pid: number): SshSession | undefined {
  const text = read(`${proc}/${pid}/environ`);
  const value = /(?:^|\0)SSH_CONNECTION=([^\0]*)/.exec(text)?.[1] ?? '';
  const [clientText = '', , , portText = ''] = value.split(' ');
  const client = parseAddress(clientText.replace(/^::ffff:/i, ''));
  const serverPort = Number(portText);
  return client === undefined || !(serverPort > 0) ? undefined : { client, serverPort };
}

function heldBy(
  proc: string,
  pid: number,
  connections: readonly Connection[],
): Connection | undefined {
  const inodes = new Set<string>();
  try {
    for (const fd of readdirSync(`${proc}/${pid}/fd`)) {
      const inode = /^socket:\[(\d+)\]$/.exec(readlinkSync(`${proc}/${pid}/fd/${fd}`))?.[1];
      if (inode !== undefined) inodes.add(inode);
    }
  } catch {
    // Another user's process, or one that has just ended.
  }
  return connections.find(({ inode }) => inodes.has(inode));
}

/** Established TCP connections over IPv4 in this network namespace, also those of IPv6 sockets. */
function readConnections(proc: string): Connection[] {
  return ['tcp', 'tcp6'].flatMap((name) =>
    rowsOf(proc, name).flatMap((columns) => {
      const [, local = '', remote = ''] = columns;
      const [clientHex = '', clientPort = ''] = remote.split(':');
      const client = addressOf(clientHex);
      const serverPort = Number.parseInt(local.split(':')[1] ?? '', 16);
      const inode = columns[9] ?? '';
      if (client === undefined) return [];
      return { client, serverPort, clientPort: Number.parseInt(clientPort, 16), inode };
    }),
  );
}

/** Columns of established connections, as proc(5) has them. */
function rowsOf(proc: string, name: string): string[][] {
  return read(`${proc}/self/net/${name}`)
    .split('\n')
    .map((line) => line.trim().split(/\s+/))
    .filter((columns) => columns[3] === established);
}

/** As the kernel prints it: words in the host's order, which is little-endian. */
function addressOf(hex: string): number | undefined {
  if (hex.length === 32 && !hex.startsWith('0000000000000000FFFF0000')) return undefined;
  const word = hex.slice(-8);
  return word.length === 8 ? Buffer.from(word, 'hex').readInt32LE(0) : undefined;
}

function nameOf(proc: string, pid: number): string {
  return read(`${proc}/${pid}/comm`).trim();
}

/** The name may hold anything, also parentheses. */
function parentOf(proc: string, pid: number): number {
  const text = read(`${proc}/${pid}/stat`);
  return Number(text.slice(text.lastIndexOf(')') + 2).split(' ')[1] ?? 0);
}

/** Empty when it cannot be read: what is not known is not there. */
function read(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}
