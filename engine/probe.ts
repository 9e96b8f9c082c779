/**
 * The probe through the tunnel: an inner UDP packet that a firewall must return as it returns
 * traffic. From 169.254.1.1 to 169.254.1.2, port 45000 to port 45000, which is what the reference
 * agent sends; link-local addresses, so that it can never be somebody's traffic.
 *
 * Its payload is its name, for whoever finds it in a log or a capture, the number of the probe, the
 * number of the firewall, and 64 random bits; the tunnel header carries a random cookie, where it
 * has room for one. An answer counts once, and only from a sender that counts as the firewall:
 * whoever forges one must guess all of it.
 *
 *     20 bytes  "microperimeter probe"
 *     Int32     number of the probe
 *     Int32     number of the firewall
 *     Int32     nonce, first half
 *     Int32     nonce, second half
 */
import { fold, pseudoHeaderSum, sum } from '../parsers/checksum.ts';
import { ipv4MinimumHeaderLength, ipv4TotalLength, Protocol, writeIpv4 } from '../parsers/ipv4.ts';
import { Reason } from '../parsers/reason.ts';
import { setUdpChecksum, udpHeaderLength, writeUdp } from '../parsers/udp.ts';
import type { Encapsulation, TunnelHeader } from '../tunnel/encapsulation.ts';
import type { ProbeHealth } from '../tunnel/firewalls.ts';
import { addPiece, createPieces } from '../tunnel/pieces.ts';
import type { Arena } from './arena.ts';
import { type FirewallColumns, noteRoundTrip } from './firewall-columns.ts';
import { RandomWords } from './flow-hash.ts';
import { type Clock, Direction, type TunnelSocket } from './io.ts';

/** 169.254.1.1 and 169.254.1.2, as int32. */
export const probeSource = 0xa9fe0101 | 0;
export const probeTarget = 0xa9fe0102 | 0;
const probePort = 45000;
const name = new TextEncoder().encode('microperimeter probe');
const payloadLength = name.length + 16;
const nameOffset = ipv4MinimumHeaderLength + udpHeaderLength;
const payloadOffset = nameOffset + name.length;
const probeLength = nameOffset + payloadLength;
const timeToLive = 64;

/** Probes of one firewall that may be on the way: more than two intervals' worth. */
const remembered = 16;

export class Prober {
  private readonly arena: Arena;
  private readonly encapsulation: Encapsulation;
  private readonly socket: TunnelSocket;
  private readonly clock: Clock;
  private readonly addresses: Int32Array;
  private readonly health: readonly ProbeHealth[];
  private readonly columns: FirewallColumns;
  private readonly random = new RandomWords();
  private readonly pieces = createPieces();
  private readonly next: Int32Array;
  // By firewall and number of the probe, modulo `remembered`. Sent at 0: none, or answered.
  private readonly sentMs: Float64Array;
  private readonly number: Int32Array;
  private readonly nonce: Int32Array;
  private readonly cookie: Int32Array;

  constructor(
    arena: Arena,
    encapsulation: Encapsulation,
    socket: TunnelSocket,
    clock: Clock,
    addresses: Int32Array,
    health: readonly ProbeHealth[],
    columns: FirewallColumns,
  ) {
    this.arena = arena;
    this.encapsulation = encapsulation;
    this.socket = socket;
    this.clock = clock;
    this.addresses = addresses;
    this.health = health;
    this.columns = columns;
    const rows = addresses.length * remembered;
    this.next = new Int32Array(addresses.length);
    this.sentMs = new Float64Array(rows);
    this.number = new Int32Array(rows);
    this.nonce = new Int32Array(2 * rows);
    this.cookie = new Int32Array(rows);
  }

  /** Send what is due. Whatever was queued on the socket before has been flushed. */
  run(nowMs: number): void {
    for (let firewall = 0; firewall < this.health.length; firewall++) {
      if (nowMs >= this.health[firewall].nextAtMs) this.send(firewall);
    }
  }

  private send(firewall: number): void {
    const { arena, encapsulation, pieces, socket } = this;
    const { answerAt, bytes, view } = arena;
    const number = this.next[firewall]++;
    const row = firewall * remembered + (number & (remembered - 1));
    const nowMs = this.clock.now();
    this.number[row] = number;
    this.sentMs[row] = nowMs;
    this.cookie[row] = this.random.next();
    this.nonce[2 * row] = this.random.next();
    this.nonce[2 * row + 1] = this.random.next();
    encapsulation.write(view, answerAt, Direction.Egress, this.cookie[row]);
    this.write(bytes, view, answerAt + encapsulation.headerLength, firewall, row);
    pieces.count = 0;
    addPiece(pieces, answerAt, encapsulation.headerLength + probeLength);
    // Its number spreads probes over the source ports, and so over the paths that flows take.
    socket.queue(pieces, 0, this.addresses[firewall], number, 0);
    socket.flush();
    this.health[firewall].sent(nowMs);
    this.columns.probesSent[firewall]++;
  }

  private write(
    bytes: Uint8Array,
    view: DataView,
    at: number,
    firewall: number,
    row: number,
  ): void {
    const id = this.number[row] & 0xffff;
    const udp = Protocol.Udp;
    writeIpv4(view, at, 0, probeLength, id, true, timeToLive, udp, probeSource, probeTarget);
    const udpAt = at + ipv4MinimumHeaderLength;
    const udpLength = udpHeaderLength + payloadLength;
    writeUdp(view, udpAt, probePort, probePort, udpLength, 0);
    bytes.set(name, at + nameOffset);
    const payloadAt = at + payloadOffset;
    view.setInt32(payloadAt, this.number[row]);
    view.setInt32(payloadAt + 4, firewall);
    view.setInt32(payloadAt + 8, this.nonce[2 * row]);
    view.setInt32(payloadAt + 12, this.nonce[2 * row + 1]);
    const pseudo = pseudoHeaderSum(view, at, udp, udpLength);
    const checksum = fold(sum(bytes, view, udpAt, udpLength, pseudo));
    // RFC 768: a computed 0 is sent as all ones.
    setUdpChecksum(view, udpAt, checksum === 0 ? 0xffff : checksum);
  }

  /**
   * A sound IPv4 packet from the tunnel between the probe's addresses.
   * @param senders the firewalls that its sender may be
   */
  take(innerAt: number, header: TunnelHeader, senders: number): Reason {
    const { view } = this.arena;
    if (ipv4TotalLength(view, innerAt) !== probeLength) return Reason.ProbeUnknown;
    const payloadAt = innerAt + payloadOffset;
    const number = view.getInt32(payloadAt);
    const firewall = view.getInt32(payloadAt + 4);
    if (firewall < 0 || firewall >= this.addresses.length) return Reason.ProbeUnknown;
    const row = firewall * remembered + (number & (remembered - 1));
    const sentMs = this.sentMs[row];
    const isOurs =
      sentMs > 0 &&
      this.number[row] === number &&
      this.nonce[2 * row] === view.getInt32(payloadAt + 8) &&
      this.nonce[2 * row + 1] === view.getInt32(payloadAt + 12) &&
      ((header.cookie ^ this.cookie[row]) & this.encapsulation.cookieMask) === 0 &&
      ((senders >> firewall) & 1) === 1;
    if (!isOurs) return Reason.ProbeUnknown;
    this.sentMs[row] = 0;
    const nowMs = this.clock.now();
    this.health[firewall].answered(sentMs);
    noteRoundTrip(this.columns, firewall, nowMs - sentMs, nowMs);
    return Reason.ProbeAnswered;
  }
}
