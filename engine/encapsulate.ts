/**
 * A packet whose flow is redirected, into the tunnel. In the order of the functions below:
 *
 *  1. send      clamp the MSS of a SYN, finish a partial checksum, then one of:
 *     wrap      it fits: one datagram
 *     segment   a super-packet, or TCP that is too big: many datagrams in one send
 *     fragment  too big and may be fragmented
 *     refuse    too big and may not: ICMP 3/4 to its sender
 *  2. flush     hand everything queued to the kernel and count what became of it
 */
import { finishPartial, transportChecksumOk } from '../parsers/checksum.ts';
import { KeyKind } from '../parsers/flow-key.ts';
import { mayAnswerWithIcmp, writeFragmentationNeeded } from '../parsers/icmp.ts';
import {
  ipv4Destination,
  ipv4DontFragment,
  ipv4HeaderLength,
  ipv4Source,
  ipv4Tos,
  Protocol,
} from '../parsers/ipv4.ts';
import { Reason } from '../parsers/reason.ts';
import { clampMss, TcpFlag } from '../parsers/tcp.ts';
import { addPiece, createPieces } from '../tunnel/pieces.ts';
import {
  type Cursor,
  createCursor,
  fragmentPacket,
  scratchPerCall,
  segmentPacket,
  wrapPacket,
} from '../tunnel/segment.ts';
import { count } from './counters.ts';
import { type Direction, Gso } from './io.ts';
import { headersLength, isPartial, mssOverhead, type Packet, wirePackets } from './packet.ts';
import { opposite, type Path, rememberFragments } from './path.ts';
import { TapPoint } from './tap.ts';

/** Sends that may be queued before a flush; the socket's own queue may be shorter. */
const maximumQueued = 1024;
/** DSCP without ECN (RFC 6040 compatibility mode): the outer path's marks are not read back. */
const dscpMask = 0xfc;

export class Encapsulator {
  /** The kernel said that the path to a firewall became narrower; the loop asks and clears it. */
  narrowed = false;

  private readonly path: Path;
  private readonly pieces = createPieces();
  private readonly cursor: Cursor;
  private readonly scratchStep: number;
  private readonly queuedPackets = new Int32Array(maximumQueued);
  private readonly queuedBytes = new Float64Array(maximumQueued);
  private readonly queuedFor = new Uint8Array(maximumQueued);
  /** Where a capture has the records of each. */
  private readonly shownFrom = new Int32Array(maximumQueued);
  private readonly shownTo = new Int32Array(maximumQueued);
  private queued = 0;
  /** Where the packet at hand goes, and how large it may be for it. */
  private firewall = 0;
  private innerMtu = 0;

  constructor(path: Path) {
    this.path = path;
    this.cursor = createCursor(path.encapsulation);
    this.scratchStep = scratchPerCall(path.encapsulation);
    this.cursor.scratchAt = path.arena.scratchAt;
  }

  /**
   * @param flags TCP flags of the packet, 0 when it has none
   * @param firewall where it goes, as its place in the configuration
   */
  send(
    packet: Packet,
    flow: number,
    flags: number,
    direction: Direction,
    link: number,
    firewall: number,
  ): void {
    const { arena, peers } = this.path;
    const { bytes, view } = arena;
    this.firewall = firewall;
    this.innerMtu = peers.innerMtu[firewall];
    const { innerMtu } = this;
    const { at, checksumStart, key } = packet;
    const isTcp = key.protocol === Protocol.Tcp && key.kind === KeyKind.Plain;
    if (isTcp && (flags & TcpFlag.Syn) !== 0) {
      // Its flow may move to another firewall.
      clampMss(view, key.transportAt, peers.smallestMtu - mssOverhead, checksumStart !== 0);
    }
    this.aim(packet, flow, direction);
    if (packet.gso !== Gso.None) return this.sendSuper(packet, flow, direction, link);
    if (checksumStart !== 0) {
      finishPartial(bytes, view, at + checksumStart, packet.checksumOffset, at + packet.length);
    }
    if (packet.length <= innerMtu) return this.wrap(packet, flow);
    if (isTcp) return this.segment(packet, flow, Gso.Tcp4, this.segmentPayload(packet));
    // A fragmented ICMP error would be refused on its way back: its quote cannot be read.
    if (ipv4DontFragment(view, at) || key.kind === KeyKind.IcmpError) {
      return this.refuse(packet, direction, link);
    }
    this.fragment(packet, flow);
  }

  /** The cursor starts at the packet's first byte of payload. */
  private aim(packet: Packet, flow: number, direction: Direction): void {
    const { cursor } = this;
    cursor.at = packet.at;
    cursor.length = packet.length;
    cursor.direction = direction;
    cursor.cookie = this.path.flows.cookie[flow];
    cursor.nextPayload = 0;
  }

  private sendSuper(packet: Packet, flow: number, direction: Direction, link: number): void {
    const { innerMtu } = this;
    const { arena } = this.path;
    const { gso, gsoSize, key } = packet;
    // Neither a fragment nor an ICMP error, whose key is of the protocol that it quotes.
    if (key.kind !== KeyKind.Plain) return this.drop(packet, Reason.GsoUnsupported);
    if (packet.checksumStart !== 0 && !isPartial(packet)) {
      return this.drop(packet, Reason.VirtioBadChecksum);
    }
    if (gso === Gso.Tcp4 && key.protocol === Protocol.Tcp) {
      return this.segment(packet, flow, gso, Math.min(gsoSize, this.segmentPayload(packet)));
    }
    if (gso !== Gso.Udp || key.protocol !== Protocol.Udp) {
      return this.drop(packet, Reason.GsoUnsupported);
    }
    const largest = headersLength(arena.view, packet, gso) + gsoSize;
    if (largest <= innerMtu) return this.segment(packet, flow, gso, gsoSize);
    this.refuse(packet, direction, link);
  }

  /** Payload bytes of the largest TCP segment that the tunnel carries, by this packet's headers. */
  private segmentPayload(packet: Packet): number {
    return this.innerMtu - headersLength(this.path.arena.view, packet, Gso.Tcp4);
  }

  private wrap(packet: Packet, flow: number): void {
    this.reserveScratch();
    wrapPacket(this.path.arena.view, this.cursor, this.pieces);
    this.queue(packet, flow, 1, packet.length);
  }

  private segment(packet: Packet, flow: number, gso: Gso, payload: number): void {
    const { bytes, view } = this.path.arena;
    const { cursor, pieces } = this;
    const headers = headersLength(view, packet, gso);
    // A tunnel too narrow for a byte of payload carries nothing.
    if (payload <= 0) return this.drop(packet, Reason.TooBigSilent);
    if (packet.length <= headers) return this.drop(packet, Reason.VirtioBadGso);
    if (!this.mayCompute(packet)) return this.drop(packet, Reason.ChecksumWrong);
    cursor.gso = gso;
    cursor.payloadPerSegment = payload;
    for (;;) {
      this.reserveScratch();
      const from = cursor.nextPayload;
      const segments = segmentPacket(bytes, view, cursor, pieces);
      if (segments === 0) return;
      this.queue(packet, flow, segments, cursor.nextPayload - from + segments * headers);
    }
  }

  /**
   * Segments get checksums of their own: a packet that was corrupted on its way would be repaired.
   * A partial checksum is the host's own packet, or one that the kernel has verified and joined.
   */
  private mayCompute(packet: Packet): boolean {
    const { bytes, view } = this.path.arena;
    return isPartial(packet) || transportChecksumOk(bytes, view, packet.at);
  }

  private fragment(packet: Packet, flow: number): void {
    const { cursor, path, pieces } = this;
    const { view } = path.arena;
    const headerLength = ipv4HeaderLength(view, packet.at);
    if (this.innerMtu < headerLength + 8) return this.drop(packet, Reason.TooBigSilent);
    const total = packet.length - headerLength;
    // The firewall will return fragments of what we read as a whole.
    rememberFragments(path, packet, flow);
    for (;;) {
      this.reserveScratch();
      if (!fragmentPacket(view, cursor, this.innerMtu, pieces)) return;
      // One packet, one count: its last fragment carries it.
      const last = cursor.nextPayload >= total;
      this.queue(packet, flow, last ? 1 : 0, last ? packet.length : 0);
    }
  }

  /** Tell the sender the tunnel's MTU (RFC 1191), from the address it was talking to. */
  private refuse(packet: Packet, direction: Direction, link: number): void {
    const { path, pieces } = this;
    const { bytes, view } = path.arena;
    const { at, length } = packet;
    if (!mayAnswerWithIcmp(view, at)) return this.drop(packet, Reason.TooBigSilent);
    const to = ipv4Source(view, at);
    const from = ipv4Destination(view, at);
    const { answerAt } = path.arena;
    const mtu = this.innerMtu;
    pieces.count = 0;
    addPiece(
      pieces,
      answerAt,
      writeFragmentationNeeded(bytes, view, answerAt, at, length, mtu, from, to, 0),
    );
    opposite(path, link, direction).write(pieces, Gso.None, 0, 0, 0);
    this.drop(packet, Reason.TooBig);
  }

  private drop(packet: Packet, reason: Reason): void {
    const { arena, counters, tap } = this.path;
    count(counters, reason, wirePackets(arena.view, packet), packet.length);
    if (tap.isOn(TapPoint.Before)) tap.amend(reason);
  }

  private queue(packet: Packet, flow: number, packets: number, bytes: number): void {
    const { path, pieces } = this;
    const { datagramSize, direction } = this.cursor;
    const entropy = path.flows.entropy(flow);
    const tos = ipv4Tos(path.arena.view, packet.at) & dscpMask;
    const { socket } = path.io;
    const peer = path.peers.address[this.firewall];
    if (
      this.queued === maximumQueued ||
      !socket.queue(pieces, datagramSize, peer, entropy, tos, direction)
    ) {
      this.sendQueued();
      socket.queue(pieces, datagramSize, peer, entropy, tos, direction);
    }
    if (path.tap.isOn(TapPoint.Tunnel)) this.show(flow, peer);
    this.queuedFor[this.queued] = this.firewall;
    this.queuedPackets[this.queued] = packets;
    this.queuedBytes[this.queued] = bytes;
    this.queued++;
  }

  /** To whoever captures: what has just been queued. */
  private show(flow: number, peer: number): void {
    const { cursor, path, pieces } = this;
    const { encapsulation, flows, tap } = path;
    const { generation, rule } = flows.columns;
    this.shownFrom[this.queued] = tap.mark();
    tap.sent(
      pieces,
      cursor.datagramSize,
      encapsulation.headerLength,
      cursor.direction,
      Reason.Redirected,
      peer,
      rule[flow],
      generation[flow],
      this.firewall,
    );
    this.shownTo[this.queued] = tap.mark();
  }

  private reserveScratch(): void {
    if (this.cursor.scratchAt + this.scratchStep > this.path.arena.scratchEnd) this.flush();
  }

  /** Send what is queued; the scratch area is free again. */
  flush(): void {
    this.sendQueued();
    this.cursor.scratchAt = this.path.arena.scratchAt;
  }

  private sendQueued(): void {
    if (this.queued === 0) return;
    const { counters, io, peers, tap } = this.path;
    const { sentBytes, sentPackets } = peers.columns;
    io.socket.flush();
    const { results } = io.socket;
    for (let i = 0; i < this.queued; i++) {
      const reason = results[i] === Reason.Ok ? Reason.Redirected : results[i];
      count(counters, reason, this.queuedPackets[i], this.queuedBytes[i]);
      if (results[i] === Reason.SocketTooBig) this.narrowed = true;
      if (results[i] !== Reason.Ok) {
        if (tap.isOn(TapPoint.Tunnel)) {
          tap.amendBetween(this.shownFrom[i], this.shownTo[i], results[i]);
        }
        continue;
      }
      sentPackets[this.queuedFor[i]] += this.queuedPackets[i];
      sentBytes[this.queuedFor[i]] += this.queuedBytes[i];
    }
    this.queued = 0;
  }
}
