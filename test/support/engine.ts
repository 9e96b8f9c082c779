/**
 * The engine over a world in memory, with the lab's addresses and a firewall that speaks geneve.
 */
import { createArena } from '../../engine/arena.ts';
import type { BuiltIns } from '../../engine/classifier/built-in.ts';
import { compile } from '../../engine/classifier/compile.ts';
import { Established, type Policy } from '../../engine/classifier/lookup.ts';
import { Opener, type Rule } from '../../engine/classifier/rules.ts';
import { countersByteLength, openPublishedCounters, snapshot } from '../../engine/counters.ts';
import { createEngine, type Others } from '../../engine/engine.ts';
import { firewallColumnsByteLength, openFirewallColumns } from '../../engine/firewall-columns.ts';
import { flowColumnsByteLength, openFlowColumns } from '../../engine/flow-columns.ts';
import { OnFailure, Verdict } from '../../engine/flows.ts';
import { createGates } from '../../engine/gate.ts';
import { OnLoss, type PeerOptions } from '../../engine/peers.ts';
import { reasonNames } from '../../parsers/reason.ts';
import type { Encapsulation } from '../../tunnel/encapsulation.ts';
import { createGeneve } from '../../tunnel/geneve.ts';
import { createFakeIo } from '../fakes/io.ts';
import { address, type Ip, mssOption, TCP, tcp } from './packets.ts';

export const workload = '10.1.0.10';
export const server = '10.2.0.20';
export const firewall = '10.9.0.4';
export const out: Ip = { source: workload, target: server };
export const back: Ip = { source: server, target: workload };
/** Our GENEVE header: 8 and an option of 12. */
export const headerLength = 20;
/** And outer IPv4 and UDP. */
export const overhead = 48;

const builtIns: BuiltIns = {
  tunnelPorts: [6081],
  tunnelPeers: [{ address: address(firewall), length: 32 }],
  telemetry: [{ address: address(firewall), port: 443 }],
  management: [{ protocol: 6, remote: { address: address('192.0.2.0'), length: 24 }, port: 22 }],
  broadcasts: [address('10.1.0.255')],
};
const failures = { inherit: OnFailure.Inherit, pass: OnFailure.Pass, drop: OnFailure.Drop };

/** A rule that matches everything, but for what is given. */
export function rule(parts: Partial<Rule>): Rule {
  return {
    name: 'rule',
    line: 0,
    opener: Opener.Both,
    protocol: -1,
    local: [],
    remote: [],
    localPort: [],
    remotePort: [],
    verdict: Verdict.Pass,
    onFailure: 'inherit',
    firewalls: -1,
    log: false,
    ...parts,
  };
}

export function createPolicy(parts: Partial<Policy>, rules: readonly Rule[]): Policy {
  const { allFirewalls = 1 } = parts;
  return {
    generation: 1,
    reclassifyBefore: 0,
    builtIns,
    tables: compile(rules),
    verdicts: Uint8Array.from(rules, ({ verdict }) => verdict),
    onFailure: Uint8Array.from(rules, ({ onFailure }) => failures[onFailure]),
    firewalls: Uint16Array.from(rules, ({ firewalls }) => firewalls & allFirewalls),
    allFirewalls,
    logged: new Uint8Array(rules.length + 1).fill(1),
    hits: new Float64Array(rules.length + 1),
    default: Verdict.Redirect,
    established: Established.Pass,
    onTelemetryLoss: OnFailure.Pass,
    onBoot: OnFailure.Pass,
    onFirewallDown: OnFailure.Pass,
    observe: false,
    rolloutPercent: 100,
    ...parts,
  };
}

/** One firewall and no probe, but for what is given. */
export function peerOptions(parts: Partial<PeerOptions>): PeerOptions {
  return {
    firewalls: [peer(firewall)],
    spread: false,
    onLoss: OnLoss.Move,
    follow: true,
    preempt: false,
    holdDownMs: 10_000,
    graceMs: 0,
    probe: 'off',
    probeIntervalMs: 1000,
    probeFailures: 3,
    ...parts,
  };
}

function peer(text: string): PeerOptions['firewalls'][number] {
  return { address: address(text), returnFrom: { address: address(text), length: 32 } };
}

const geneve = {
  port: 6081,
  vni: 48813,
  optionClass: 0xfff1,
  optionType: 0x20,
  inner: 'ipv4',
} as const;

/** @param parts what differs from: redirect everything, pass what was open before */
export function startEngine(
  parts: Partial<Policy> = {},
  rules: readonly Rule[] = [],
  encapsulation: Encapsulation = createGeneve(geneve),
  peers: Partial<PeerOptions> = {},
  shared = new SharedArrayBuffer(countersByteLength),
  others?: Others,
) {
  const options = peerOptions(peers);
  const count = options.firewalls.length;
  const policy = createPolicy({ allFirewalls: (1 << count) - 1, ...parts }, rules);
  const arena = createArena(64, 32);
  const io = createFakeIo(arena);
  const gates = createGates(count);
  for (const gate of gates) gate.renew(io.clock.nowMs + 10_000_000);
  const firewallMemory = new SharedArrayBuffer(firewallColumnsByteLength(count));
  const flowMemory = new SharedArrayBuffer(flowColumnsByteLength(1024));
  const create = () =>
    createEngine(
      io,
      arena,
      encapsulation,
      { flows: 1024, mtuLimit: 9216, peers: options, policy, joinUdp: true },
      gates,
      shared,
      firewallMemory,
      flowMemory,
      undefined,
      others,
    );
  const loop = create();
  let put = 0;
  return {
    io,
    gate: gates[0],
    gates,
    firewalls: openFirewallColumns(firewallMemory),
    flows: openFlowColumns(flowMemory, 1024),
    loop,
    /** Another data path over the same memory, as after the death of its worker. */
    restart: create,
    policy,
    replace(next: Partial<Policy>, nextRules: readonly Rule[] = []) {
      loop.replacePolicy(createPolicy({ allFirewalls: (1 << count) - 1, ...next }, nextRules));
    },
    egress(packet: Uint8Array, extra = {}) {
      put++;
      io.egress.inbox.push({ bytes: packet, ...extra });
      loop.breathe();
    },
    ingress(packet: Uint8Array, extra = {}) {
      put++;
      io.ingress.inbox.push({ bytes: packet, ...extra });
      loop.breathe();
    },
    /** The firewall returns these datagrams, joined into one when equal but the last (UDP_GRO). */
    answer(datagrams: Uint8Array[], source = firewall) {
      put += datagrams.length;
      io.socket.inbox.push({
        bytes: Buffer.concat(datagrams),
        segmentSize: datagrams[0].length,
        source: address(source),
      });
      loop.breathe();
    },
    inner(index: number) {
      return io.socket.sent[index].bytes.subarray(headerLength);
    },
    /** Packets by reason, those that happened. */
    counts(): Record<string, number> {
      io.clock.nowMs += 100;
      loop.breathe();
      const { packets } = snapshot(openPublishedCounters(shared));
      return Object.fromEntries(
        [...packets].map((n, reason) => [reasonNames[reason], n] as const).filter(([, n]) => n > 0),
      );
    },
    /** Packets and bytes by reason, a tick later. */
    amounts() {
      io.clock.nowMs += 100;
      loop.breathe();
      return snapshot(openPublishedCounters(shared));
    },
    put: () => put,
  };
}

export const syn = (options: Uint8Array = mssOption(1460)) =>
  tcp(out, { from: 40000, to: 80, flags: TCP.SYN, options });
