/** When a silent flow is over: by protocol and, for TCP, by state. In ticks of 100 ms. */
import { Protocol } from '../parsers/ipv4.ts';
import type { FlowState } from './flow-progress.ts';

export const ticksPerSecond = 10;
const second = ticksPerSecond;

/**
 * By FlowState. A handshake is over in the kernel's own SYN retries' first half minute; 2 hours and
 * a bit is the default keepalive (RFC 9293 3.8.4, so an idle but living connection shows itself); a
 * half-closed one may still send.
 */
const tcpTimeouts = Int32Array.of(30 * second, 7500 * second, 300 * second, 10 * second);
const udpTimeout = 120 * second;
const icmpTimeout = 30 * second;
const otherTimeout = 600 * second;

/** Idle ticks after which a flow is gone (semantics: UDP 120 s, ICMP 30 s). */
export function idleLimit(protocol: number, state: FlowState): number {
  switch (protocol) {
    case Protocol.Tcp:
      return tcpTimeouts[state];
    case Protocol.Udp:
      return udpTimeout;
    case Protocol.Icmp:
      return icmpTimeout;
    default:
      return otherTimeout;
  }
}
