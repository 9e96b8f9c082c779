/**
 * What the main thread hands to the data-path worker: numbers and shared memory. Descriptors
 * belong to the process, so the worker only wraps them; the main thread opened them and closes
 * them after the worker has ended.
 */

import type { MessagePort } from 'node:worker_threads';
import type { Config } from '../engine/config.ts';
import type { EngineOptions, Others } from '../engine/engine.ts';
import type { Direction } from '../engine/io.ts';
import type { CarrierOptions } from '../linux/carrier.ts';
import type { TunnelDescriptors } from '../linux/udp.ts';
import type { Encapsulation } from '../tunnel/encapsulation.ts';
import { createGcp } from '../tunnel/gcp.ts';
import { createGeneve } from '../tunnel/geneve.ts';
import { createGwlb } from '../tunnel/gwlb.ts';
import { createVxlan } from '../tunnel/vxlan.ts';

/** A queue of the TUN device: which interface and which way. */
export type QueueData = {
  readonly fd: number;
  readonly direction: Direction;
  readonly interfaceIndex: number;
};

/** One of several workers, and how it meets the others. */
export type WorkerData = Omit<Others, 'wake'> & {
  /** What wakes each worker. */
  readonly wakeFds: readonly number[];
};

export type DataPathData = {
  /** Absent where there is one worker. */
  readonly others?: WorkerData | undefined;
  /** First those of each direction, then those of what opens a connection (linux/bpf/policy.ts). */
  readonly queues: readonly QueueData[];
  readonly sockets: TunnelDescriptors;
  readonly wakeFd: number;
  readonly controlFd: number;
  readonly verdictFd: number;
  /** How the kernel carries flows by itself; undefined: it does not. */
  readonly carrier: CarrierOptions | undefined;
  readonly tunnel: Config['tunnel'];
  readonly engine: EngineOptions;
  /** `Gate.shared`. */
  readonly gates: SharedArrayBuffer;
  /** `countersByteLength` bytes for each worker. */
  readonly counters: SharedArrayBuffer;
  /** `firewallColumnsByteLength` bytes. */
  readonly firewalls: SharedArrayBuffer;
  /** `flowColumnsByteLength(engine.flows)` bytes. */
  readonly flows: SharedArrayBuffer;
  /** `flowLogByteLength` bytes for what becomes of the flows. */
  readonly flowLog: SharedArrayBuffer;
  /** `tapByteLength` bytes for what a capture sees. */
  readonly tap: SharedArrayBuffer;
  /** Where policies that replace the present one come from, one message each. */
  readonly policies: MessagePort;
  /** One Int32: not 0 asks the loop to end. */
  readonly stop: SharedArrayBuffer;
};

export function createEncapsulation(tunnel: Config['tunnel']): Encapsulation {
  const { gcp, geneve, gwlb, port, vni } = tunnel;
  if (tunnel.encapsulation === 'geneve') return createGeneve({ port, vni, ...geneve });
  if (tunnel.encapsulation === 'gwlb') return createGwlb({ port, ...gwlb });
  if (tunnel.encapsulation === 'gcp') return createGcp({ port, ...gcp });
  const { egressVni, ingressVni, innerDestination, innerSource } = tunnel.vxlan;
  return createVxlan({
    port,
    egressVni,
    ingressVni,
    innerSource: formatMac(innerSource),
    innerDestination: formatMac(innerDestination),
  });
}

function formatMac(bytes: readonly number[]): string {
  return bytes.map((byte) => byte.toString(16).padStart(2, '0')).join(':');
}
