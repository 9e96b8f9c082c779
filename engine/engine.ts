/**
 * Puts the data path together: tables, both directions and the loop over whatever `Io` it is
 * given. Everything that a run needs is allocated here, once.
 */
import { Reason } from '../parsers/reason.ts';
import type { Encapsulation } from '../tunnel/encapsulation.ts';
import type { Arena } from './arena.ts';
import { CarriedFlows } from './carried-flows.ts';
import type { Policy } from './classifier/lookup.ts';
import { openPublishedCounters, snapshot } from './counters.ts';
import { flowLogByteLength } from './flow-log.ts';
import { Flows, OnFailure } from './flows.ts';
import { Fragments } from './fragments.ts';
import type { Gate } from './gate.ts';
import { Handover, type HandoverOptions } from './handover.ts';
import type { Io } from './io.ts';
import { Loop } from './loop.ts';
import { GateView } from './path.ts';
import { type PeerOptions, Peers } from './peers.ts';
import { Tap, tapHeaderBytes } from './tap.ts';

/** Plain data: it crosses from the main thread to the data path as a message. */
export type EngineOptions = {
  /** Flows at most. */
  readonly flows: number;
  /** Limit of the outer packet in bytes, whatever the path allows. */
  readonly mtuLimit: number;
  readonly peers: PeerOptions;
  readonly policy: Policy;
  /** Whether the device takes UDP super-packets (TUN_F_USO4, Linux 6.2). */
  readonly joinUdp: boolean;
  /** How long to look for more before each sleep (engine/idle.ts), in milliseconds. */
  readonly pollMs?: number;
};

/** Other workers; absent where there is one. */
export type Others = HandoverOptions & {
  /** The firewalls' columns of the worker that probes, the first. */
  readonly probes: SharedArrayBuffer;
};

/** Datagrams whose fragments are on the way at once. */
const fragmentCapacity = 4096;

/** Packets read from a device queue, and datagrams from the tunnel, in one breath. */
export const deviceBatch = 64;
export const datagramBatch = 32;

/**
 * @param arena the one that the devices and the socket of `io` were opened with
 * @param shared memory of `countersByteLength` bytes for the published counters
 * @param gates the lease of each firewall of `options.peers`
 * @param firewallMemory memory of `firewallColumnsByteLength` bytes for what is known of each
 * @param flowMemory memory of `flowColumnsByteLength(options.flows)` bytes for the flows
 * @param flowLog memory of `flowLogByteLength` bytes for what becomes of them; none by default
 * @param others where this is one of several workers; `shared` has the counters of all of them
 * @param tap memory of `tapByteLength` bytes for what a capture sees; never switched on by default
 */
export function createEngine(
  io: Io,
  arena: Arena,
  encapsulation: Encapsulation,
  options: EngineOptions,
  gates: readonly Gate[],
  shared: SharedArrayBuffer,
  firewallMemory: SharedArrayBuffer,
  flowMemory: SharedArrayBuffer,
  flowLog = new SharedArrayBuffer(flowLogByteLength(0)),
  others?: Others,
  tap = new SharedArrayBuffer(tapHeaderBytes + 64),
): Loop {
  const self = others?.self ?? 0;
  const published = openPublishedCounters(shared, self);
  // A worker that takes over from a dead one goes on counting where it was.
  const counters = snapshot(published);
  const fragments = new Fragments(fragmentCapacity);
  const flows = new Flows(options.flows, flowMemory, flowLog);
  const probes = others?.probes;
  const peers = new Peers(options.peers, gates, firewallMemory, arena, encapsulation, io, probes);
  const path = {
    io,
    arena,
    counters,
    flows,
    carried: new CarriedFlows(io.carrier, flows, counters, peers.columns),
    fragments,
    handover: others && new Handover(others, arena, counters, fragments),
    policy: options.policy,
    encapsulation,
    devices: io.devices,
    joinUdp: options.joinUdp,
    peers,
    tap: new Tap(tap, arena),
    nowTick: 0,
    gate: GateView.Pass,
    onLoss: OnFailure.Pass,
    passedReason: Reason.PassedGateClosed,
    droppedReason: Reason.DroppedGateClosed,
  };
  return new Loop(path, published, options.mtuLimit, options.pollMs);
}
