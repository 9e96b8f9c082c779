/**
 * The agent as its user sees it: a configuration file, a command, a control socket. The lab knows
 * nothing else of it.
 */
import { writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { stringify } from 'yaml';
import type { AgentSettings, Encapsulation } from './firewalls.ts';
import type { Namespace } from './namespace.ts';
import { type Program, start, until } from './program.ts';

export type Amount = { readonly packets: number; readonly bytes: number };

/** What `GET /status` on the control socket tells. */
export type AgentStatus = {
  readonly version: string;
  readonly state: 'starting' | 'redirecting' | 'closed';
  /** Why, when it is not redirecting. */
  readonly cause: string;
  readonly gate: {
    readonly open: boolean;
    readonly leaseMs: number;
    readonly cause: string;
  };
  readonly firewalls: readonly {
    readonly name: string;
    readonly address: string;
    readonly active: boolean;
  }[];
  readonly interfaces: readonly {
    readonly name: string;
    readonly index: number;
    readonly drift: readonly string[];
  }[];
  readonly drift: readonly string[];
  /** `TCX` or `clsact`. */
  readonly attachedBy: string;
  readonly repairs: { readonly latest: readonly { readonly words: string }[] };
  readonly innerMtu: number;
  /** By fate of the packet, such as `redirected`. */
  readonly counters: Readonly<Record<string, Amount>>;
  /** What the kernel programs did by themselves. */
  readonly kernel: Readonly<Record<string, Amount>>;
  readonly flows: { readonly count: number; readonly capacity: number };
};

/** A connection in the agent's table, as `GET /flows` tells it. */
export type AgentFlow = {
  readonly protocol: string;
  readonly local: string;
  readonly localPort: number;
  readonly remote: string;
  readonly remotePort: number;
  readonly opener: 'egress' | 'ingress';
  readonly egress: Amount;
  readonly ingress: Amount;
};

/** Short, so that the story is: the gate closes within `gateBoundMs` of the telemetry's end. */
const telemetryTimes = { intervalMs: 1000, timeoutMs: 500, retries: 2 } as const;
const { intervalMs, timeoutMs, retries } = telemetryTimes;
/** Interval + timeout x retries, and a second. */
export const gateBoundMs = intervalMs + timeoutMs * retries + 1000;

export type AgentOptions = {
  /** Where the configuration and the control socket go; mode 0700. */
  readonly directory: string;
  /** The authority that signed the telemetry endpoint's certificate. */
  readonly ca: string;
  readonly firewall: string;
  readonly encapsulation: Encapsulation;
  readonly interfaces?: readonly string[];
  /** Sections or keys to add or to replace, for tests: merged section by section. */
  readonly settings?: AgentSettings;
  /** Keys of the top level that are not sections: rules, sets, default. */
  readonly top?: Readonly<Record<string, unknown>>;
  /** What to start instead of `agentCommand`: a program, and arguments before the agent's own. */
  readonly command?: readonly [string, ...string[]];
  readonly environment?: Record<string, string>;
  /** Lines of the agent's log; collected when nobody takes them. */
  readonly onLine?: (line: string) => void;
};

const here = dirname(fileURLToPath(import.meta.url));
/** Seen from dist/lab. */
export const agentCommand = resolve(here, '../../bin/microperimeter');

/** How long the agent may take to stop by itself when the lab ends. */
const graceMs = 3000;
const statusLimitMs = 1000;
/** More than a story has connections. */
const flowsAsked = 10_000;

export class Agent {
  readonly program: Program;
  readonly socketPath: string;
  readonly configPath: string;

  constructor(program: Program, configPath: string, socketPath: string) {
    this.program = program;
    this.configPath = configPath;
    this.socketPath = socketPath;
  }

  /** Undefined while it does not answer. */
  status(): Promise<AgentStatus | undefined> {
    return ask<AgentStatus>(this.socketPath, '/status');
  }

  /** Empty while it does not answer. */
  async flows(): Promise<readonly AgentFlow[]> {
    const path = `/flows?limit=${flowsAsked}`;
    return (await ask<{ flows: AgentFlow[] }>(this.socketPath, path))?.flows ?? [];
  }

  /** Waits until it says so; throws, with its last words, when it ended or took longer. */
  async reach(state: AgentStatus['state'], limitMs: number): Promise<AgentStatus> {
    let status: AgentStatus | undefined;
    let seen = 'nothing';
    await until(`the agent is ${state}`, limitMs, async () => {
      if (this.program.exitCode !== undefined) throw new Error(`the agent ended: ${this.words}`);
      status = await this.status();
      seen = status?.state ?? seen;
      return seen === state;
    }).catch((error: Error) => {
      throw new Error(`${error.message} (last seen: ${seen})`);
    });
    return status!;
  }

  /** Its last lines, for messages. */
  get words(): string {
    const text = `${this.program.output}\n${this.program.errors}`.trim();
    return text.split('\n').slice(-3).join(' | ') || `exit code ${this.program.exitCode}`;
  }
}

/** Writes the configuration and starts the agent in the host; does not wait for it. */
export function startAgent(host: Namespace, options: AgentOptions): Agent {
  const configPath = writeAgentConfig(options);
  const [command, ...before] = options.command ?? [agentCommand];
  const program = start(host, command, [...before, 'run', '--config', configPath], {
    graceMs,
    environment: options.environment ?? {},
    ...(options.onLine === undefined ? {} : { onLine: options.onLine }),
  });
  program.child.stdin?.end();
  return new Agent(program, configPath, socketIn(options.directory));
}

/** Returns the path of the file. */
export function writeAgentConfig(options: AgentOptions): string {
  const path = join(options.directory, 'agent.yaml');
  const url = `https://${options.firewall}:443/v1/metrics`;
  const sections: Record<string, Record<string, unknown>> = {
    workload: { interfaces: options.interfaces ?? ['eth0'] },
    tunnel: { encapsulation: options.encapsulation },
    telemetry: { interval: `${intervalMs}ms`, timeout: `${timeoutMs}ms`, retries },
    control: { socket: socketIn(options.directory) },
    log: { format: 'json' },
  };
  for (const [name, keys] of Object.entries(options.settings ?? {})) {
    sections[name] = { ...sections[name], ...keys };
  }
  const telemetry = { url, ca: options.ca };
  const firewalls = [{ name: 'lab-firewall', address: options.firewall, telemetry }];
  writeFileSync(path, stringify({ version: 1, firewalls, ...sections, ...options.top }));
  return path;
}

function socketIn(directory: string): string {
  return join(directory, 'control.sock');
}

function ask<T>(socketPath: string, path: string): Promise<T | undefined> {
  return new Promise((resolve) => {
    const signal = AbortSignal.timeout(statusLimitMs);
    const options = { socketPath, path, agent: false as const, signal };
    const sent = request(options, (response) => {
      const chunks: Buffer[] = [];
      response.on('data', (chunk: Buffer) => chunks.push(chunk));
      response.on('error', () => resolve(undefined));
      response.on('end', () => resolve(JSON.parse(Buffer.concat(chunks).toString())));
    });
    sent.on('error', () => resolve(undefined));
    sent.end();
  });
}
