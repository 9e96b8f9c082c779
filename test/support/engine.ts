/**
 * The engine over a world in memory, with the lab's addresses and a firewall that speaks geneve.
 */
import { createArena } from '../../engine/arena.ts';
import { countersByteLength, openPublishedCounters, snapshot } from '../../engine/counters.ts';
import { createEngine, type EngineOptions } from '../../engine/engine.ts';
import { Verdict } from '../../engine/flows.ts';
import { createGate } from '../../engine/gate.ts';
import { SteeringMode } from '../../engine/io.ts';
import { reasonNames } from '../../parsers/reason.ts';
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

export function startEngine(options: Partial<EngineOptions> = {}) {
  const arena = createArena(64, 32);
  const io = createFakeIo(arena);
  const gate = createGate();
  gate.renew(io.clock.nowMs + 10_000_000);
  const shared = new SharedArrayBuffer(countersByteLength);
  const loop = createEngine(
    io,
    arena,
    createGeneve({ port: 6081, vni: 48813, optionClass: 0xfff1, optionType: 0x20, inner: 'ipv4' }),
    {
      flows: 1024,
      mtuLimit: 9216,
      peer: address(firewall),
      policy: {
        default: Verdict.Redirect,
        builtIns: {
          tunnelPort: 6081,
          tunnelPeers: [{ address: address(firewall), length: 32 }],
          telemetry: [{ address: address(firewall), port: 443 }],
          management: [
            { protocol: 6, remote: { address: address('192.0.2.0'), length: 24 }, port: 22 },
          ],
          broadcasts: [address('10.1.0.255')],
        },
      },
      established: Verdict.PassEstablished,
      joinUdp: true,
      closedMode: SteeringMode.Pass,
      ...options,
    },
    gate,
    shared,
  );
  let put = 0;
  return {
    io,
    gate,
    loop,
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
    put: () => put,
  };
}

export const syn = (options: Uint8Array = mssOption(1460)) =>
  tcp(out, { from: 40000, to: 80, flags: TCP.SYN, options });
