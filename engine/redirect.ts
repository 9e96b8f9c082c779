/**
 * Workload to firewall. In the order of the functions below:
 *
 *  1. process   one batch from one device queue; the gate first, then packet by packet
 *  2. decide    check, key, find the flow or classify a new one
 *  3. forward   pass, drop or redirect, by the flow's verdict
 *  4. redirect  clamp, finish checksums, then one of:
 *     wrap      it fits: one datagram
 *     segment   a super-packet, or TCP that is too big: many datagrams in one send
 *     fragment  too big and may be fragmented
 *     refuse    too big and may not: ICMP 3/4 to its sender
 *  5. flush     hand everything queued to the kernel and count what became of it
 *
 * Every packet of the batch ends under exactly one reason.
 */
import { finishPartial } from '../parsers/checksum.ts';
import { createFlowKey, type FlowKey, KeyKind, readFlowKey } from '../parsers/flow-key.ts';
import { mayAnswerWithIcmp, writeFragmentationNeeded } from '../parsers/icmp.ts';
import {
  checkIpv4,
  ipv4ChecksumOk,
  ipv4Destination,
  ipv4DontFragment,
  ipv4HeaderLength,
  ipv4Id,
  ipv4Protocol,
  ipv4Source,
  ipv4Tos,
  ipv4TotalLength,
  Protocol,
} from '../parsers/ipv4.ts';
import { Reason } from '../parsers/reason.ts';
import { clampMss, TcpFlag, tcpFlags, tcpHeaderLength } from '../parsers/tcp.ts';
import { udpHeaderLength } from '../parsers/udp.ts';
import { addPiece, createPieces } from '../tunnel/pieces.ts';
import {
  type Cursor,
  createCursor,
  fragmentPacket,
  scratchPerCall,
  segmentPacket,
  wrapPacket,
} from '../tunnel/segment.ts';
import { classify } from './classifier/lookup.ts';
import { count } from './counters.ts';
import { FlowState, noFlow, Verdict } from './flows.ts';
import {
  Direction,
  Gso,
  KernelVerdict,
  type PacketBatch,
  type PacketDevice,
  SteeringMode,
} from './io.ts';
import { opposite, type Path } from './path.ts';

/** Sends that may be queued before a flush; the socket's own queue may be shorter. */
const maximumQueued = 1024;
/** IPv4 and TCP headers without options: what an MSS does not count (RFC 9293 3.7.1). */
const mssOverhead = 40;
/** DSCP without ECN: RFC 6040 compatibility mode, since marks of the outer path are not read back. */
const dscpMask = 0xfc;

export class Redirect {
  private readonly path: Path;
  private readonly key: FlowKey = createFlowKey();
  private readonly pieces = createPieces();
  private readonly cursor: Cursor;
  private readonly scratchStep: number;
  private readonly queuedPackets = new Int32Array(maximumQueued);
  private readonly queuedBytes = new Float64Array(maximumQueued);
  private queued = 0;

  /** The kernel said that the path to the firewall became narrower; the loop asks and clears it. */
  narrowed = false;

  // The packet at hand; set by process, read by the steps.
  private at = 0;
  private length = 0;
  private gso: Gso = Gso.None;
  private gsoSize = 0;
  private checksumStart = 0;
  private checksumOffset = 0;

  constructor(path: Path) {
    this.path = path;
    this.cursor = createCursor(path.encapsulation);
    this.scratchStep = scratchPerCall(path.encapsulation);
    this.cursor.scratchAt = path.arena.scratchAt;
  }

  /** Decide and forward all packets of a batch that was read from `device`. Does not flush. */
  process(batch: PacketBatch, device: PacketDevice, link: number): void {
    const { counters, mode } = this.path;
    for (let i = 0; i < batch.count; i++) {
      this.at = batch.at[i];
      this.length = batch.length[i];
      this.gso = batch.gso[i] as Gso;
      this.gsoSize = batch.gsoSize[i];
      this.checksumStart = batch.checksumStart[i];
      this.checksumOffset = batch.checksumOffset[i];
      if (batch.reason[i] !== Reason.Ok) count(counters, batch.reason[i], 1, this.length);
      else if (mode === SteeringMode.Pass) this.pass(device, Reason.PassedGateClosed);
      else this.decide(device, link, mode);
    }
  }

  private decide(device: PacketDevice, link: number, mode: SteeringMode): void {
    const { arena, flows, fragments, nowTick } = this.path;
    const { view } = arena;
    const { at, key } = this;
    const direction = device.direction;
    const malformed = this.read();
    if (malformed !== Reason.Ok) return this.drop(malformed);
    let flow: number;
    let flags = 0;
    if (key.kind === KeyKind.LaterFragment) {
      flow = fragments.find(key.source, key.destination, ipv4Id(view, at), key.protocol, nowTick);
      if (flow < 0 || !flows.select(flow, key.source, key.destination))
        return this.drop(Reason.FragmentUnmatched);
    } else {
      flow = flows.find(
        key.source,
        key.destination,
        key.sourcePort,
        key.destinationPort,
        key.protocol,
      );
      if (key.kind === KeyKind.IcmpError) {
        if (flow === noFlow) return this.passError(device, mode);
      } else {
        if (key.protocol === Protocol.Tcp) flags = tcpFlags(view, key.transportAt);
        flow = this.admit(flow, flags, direction, link);
        if (flow === noFlow) return this.drop(Reason.FlowsFull);
      }
      if (key.kind === KeyKind.FirstFragment) this.rememberFragments(flow);
    }
    flows.touch(flow, flags, nowTick);
    if (mode === SteeringMode.Drop && flows.verdict[flow] !== Verdict.PassBuiltIn) {
      return this.drop(Reason.DroppedGateClosed);
    }
    this.forward(flow, flags, device, link);
  }

  /** The datagram's later fragments, which have no ports, belong to `flow`. */
  private rememberFragments(flow: number): void {
    const { arena, fragments, nowTick } = this.path;
    const { key } = this;
    const id = ipv4Id(arena.view, this.at);
    const protocol = ipv4Protocol(arena.view, this.at);
    fragments.remember(key.source, key.destination, id, protocol, flow, nowTick);
  }

  /** Check the packet at hand and fill the key; its length becomes the IPv4 total length. */
  private read(): Reason {
    const { view } = this.path.arena;
    const { at } = this;
    const bad = checkIpv4(view, at, at + this.length);
    if (bad !== Reason.Ok) return bad;
    if (!ipv4ChecksumOk(view, at)) return Reason.Ipv4BadChecksum;
    this.length = ipv4TotalLength(view, at);
    return readFlowKey(view, at, this.key);
  }

  /** The record of a packet that has its ports: the one found, begun again, or a new one. */
  private admit(found: number, flags: number, direction: Direction, link: number): number {
    const { flows, nowTick } = this.path;
    const opens = (flags & (TcpFlag.Syn | TcpFlag.Ack)) === TcpFlag.Syn;
    // A SYN begins a record again only where that changes something: anybody can send one.
    const again =
      opens &&
      found !== noFlow &&
      (flows.state[found] >= FlowState.HalfClosed || flows.verdict[found] !== Verdict.Redirect);
    if (found !== noFlow && !again) return found;
    const verdict = this.classify(flags, direction);
    let flow = found;
    if (flow === noFlow) flow = flows.insert(direction, link, verdict, nowTick);
    else flows.restart(flow, direction, verdict, nowTick);
    if (flow !== noFlow) this.teachKernel(flow, verdict, direction);
    return flow;
  }

  private classify(flags: number, direction: Direction): Verdict {
    const { key, path } = this;
    const leaves = direction === Direction.Egress;
    const verdict = classify(
      path.policy,
      direction,
      leaves ? key.source : key.destination,
      leaves ? key.destination : key.source,
      leaves ? key.sourcePort : key.destinationPort,
      leaves ? key.destinationPort : key.sourcePort,
      key.protocol,
    );
    const midStream = key.protocol === Protocol.Tcp && (flags & TcpFlag.Syn) === 0;
    return verdict === Verdict.Redirect && midStream ? path.established : verdict;
  }

  /** What needs no more thinking stays in the kernel from the next packet on. */
  private teachKernel(flow: number, verdict: Verdict, direction: Direction): void {
    const { key, path } = this;
    if (verdict === Verdict.Redirect || verdict === Verdict.PassBuiltIn) return;
    if (key.protocol !== Protocol.Tcp && key.protocol !== Protocol.Udp) return;
    const leaves = direction === Direction.Egress;
    path.io.steering.remember(
      leaves ? key.source : key.destination,
      leaves ? key.destination : key.source,
      leaves ? key.sourcePort : key.destinationPort,
      leaves ? key.destinationPort : key.sourcePort,
      path.flows.protocol[flow],
      verdict === Verdict.Drop ? KernelVerdict.Drop : KernelVerdict.Pass,
    );
  }

  private forward(flow: number, flags: number, device: PacketDevice, link: number): void {
    switch (this.path.flows.verdict[flow] as Verdict) {
      case Verdict.Redirect:
        return this.redirect(flow, flags, device.direction, link);
      case Verdict.Pass:
        return this.pass(device, Reason.PassedByRule);
      case Verdict.PassEstablished:
        return this.pass(device, Reason.PassedEstablished);
      case Verdict.PassBuiltIn:
        return this.pass(device, Reason.PassedBuiltIn);
      case Verdict.Drop:
      case Verdict.Undecided:
        return this.drop(Reason.DroppedByRule);
    }
  }

  /**
   * An ICMP error without a flow: about the tunnel itself or a management exception (the kernel
   * needs it, also when the gate drops), or about something that we do not know (harmless: no
   * socket of ours matches it, so it goes on as if we were not there).
   */
  private passError(device: PacketDevice, mode: SteeringMode): void {
    const verdict = this.classify(TcpFlag.Syn, device.direction);
    if (verdict === Verdict.PassBuiltIn) return this.pass(device, Reason.PassedBuiltIn);
    if (mode === SteeringMode.Drop) return this.drop(Reason.DroppedGateClosed);
    this.pass(device, Reason.PassedUnrelatedError);
  }

  private redirect(flow: number, flags: number, direction: Direction, link: number): void {
    const { path, key, at } = this;
    const { bytes, view } = path.arena;
    if ((flags & TcpFlag.Syn) !== 0 && key.kind === KeyKind.Plain) {
      clampMss(view, key.transportAt, path.innerMtu - mssOverhead, this.checksumStart !== 0);
    }
    const cookie = path.flows.cookie[flow];
    if (this.gso !== Gso.None) return this.redirectSuper(flow, direction, link, cookie);
    if (this.checksumStart !== 0) {
      finishPartial(bytes, view, at + this.checksumStart, this.checksumOffset, at + this.length);
    }
    if (this.length <= path.innerMtu) return this.wrap(flow, direction, cookie);
    const isTcp = key.protocol === Protocol.Tcp && key.kind === KeyKind.Plain;
    if (isTcp) return this.segment(flow, direction, cookie, Gso.Tcp4, this.segmentPayload());
    if (ipv4DontFragment(view, at)) return this.refuse(direction, link);
    this.fragment(flow, direction, cookie);
  }

  private redirectSuper(flow: number, direction: Direction, link: number, cookie: number): void {
    const { path, key } = this;
    if (this.gso === Gso.Tcp4) {
      if (key.protocol !== Protocol.Tcp) return this.drop(Reason.GsoUnsupported);
      return this.segment(
        flow,
        direction,
        cookie,
        Gso.Tcp4,
        Math.min(this.gsoSize, this.segmentPayload()),
      );
    }
    if (key.protocol !== Protocol.Udp) return this.drop(Reason.GsoUnsupported);
    if (this.headersLength(Gso.Udp) + this.gsoSize <= path.innerMtu)
      return this.segment(flow, direction, cookie, Gso.Udp, this.gsoSize);
    this.refuse(direction, link);
  }

  /** Payload bytes of the largest TCP segment that the tunnel carries, by this packet's headers. */
  private segmentPayload(): number {
    return this.path.innerMtu - this.headersLength(Gso.Tcp4);
  }

  /** IPv4 and transport header of the packet at hand. */
  private headersLength(gso: Gso): number {
    const { transportAt } = this.key;
    const transportLength =
      gso === Gso.Tcp4 ? tcpHeaderLength(this.path.arena.view, transportAt) : udpHeaderLength;
    return transportAt - this.at + transportLength;
  }

  /** Aim the cursor at the packet at hand. */
  private begin(direction: Direction, cookie: number, gso: Gso, payloadPerSegment: number): void {
    const { cursor } = this;
    cursor.at = this.at;
    cursor.length = this.length;
    cursor.gso = gso;
    cursor.payloadPerSegment = payloadPerSegment;
    cursor.direction = direction;
    cursor.cookie = cookie;
    cursor.nextPayload = 0;
  }

  private wrap(flow: number, direction: Direction, cookie: number): void {
    this.reserveScratch();
    this.begin(direction, cookie, Gso.None, 0);
    wrapPacket(this.path.arena.view, this.cursor, this.pieces);
    this.queue(flow, 1, this.length);
  }

  private segment(
    flow: number,
    direction: Direction,
    cookie: number,
    gso: Gso,
    payload: number,
  ): void {
    const { bytes, view } = this.path.arena;
    const { cursor, pieces } = this;
    const headers = this.headersLength(gso);
    this.begin(direction, cookie, gso, payload);
    for (;;) {
      this.reserveScratch();
      const from = cursor.nextPayload;
      const segments = segmentPacket(bytes, view, cursor, pieces);
      if (segments === 0) return;
      this.queue(flow, segments, cursor.nextPayload - from + segments * headers);
    }
  }

  private fragment(flow: number, direction: Direction, cookie: number): void {
    const { view } = this.path.arena;
    const total = this.length - ipv4HeaderLength(view, this.at);
    // The firewall will return fragments of what we read as a whole.
    this.rememberFragments(flow);
    this.begin(direction, cookie, Gso.None, 0);
    for (;;) {
      this.reserveScratch();
      if (!fragmentPacket(view, this.cursor, this.path.innerMtu, this.pieces)) return;
      // One packet, one count: its last fragment carries it.
      const last = this.cursor.nextPayload >= total;
      this.queue(flow, last ? 1 : 0, last ? this.length : 0);
    }
  }

  /** Tell the sender the tunnel's MTU (RFC 1191), from the address it was talking to. */
  private refuse(direction: Direction, link: number): void {
    const { path, pieces, cursor, at } = this;
    const { bytes, view } = path.arena;
    if (!mayAnswerWithIcmp(view, at)) return this.drop(Reason.TooBigSilent);
    this.reserveScratch();
    const answerAt = cursor.scratchAt;
    const length = writeFragmentationNeeded(
      bytes,
      view,
      answerAt,
      at,
      this.length,
      path.innerMtu,
      ipv4Destination(view, at),
      ipv4Source(view, at),
      0,
    );
    pieces.count = 0;
    addPiece(pieces, answerAt, length);
    opposite(path, link, direction).write(pieces, Gso.None, 0, 0, 0);
    this.drop(Reason.TooBig);
  }

  /** Straight on, as it came: same direction, same super-packet, same partial checksum. */
  private pass(device: PacketDevice, reason: Reason): void {
    const { pieces } = this;
    pieces.count = 0;
    addPiece(pieces, this.at, this.length);
    const result = device.write(
      pieces,
      this.gso,
      this.gsoSize,
      this.checksumStart,
      this.checksumOffset,
    );
    count(this.path.counters, result === Reason.Ok ? reason : result, this.packets(), this.length);
  }

  private drop(reason: Reason): void {
    count(this.path.counters, reason, this.packets(), this.length);
  }

  /** How many wire packets the packet at hand stands for. */
  private packets(): number {
    return this.gso === Gso.None
      ? 1
      : Math.max(1, Math.ceil((this.length - mssOverhead) / this.gsoSize));
  }

  private queue(flow: number, packets: number, bytes: number): void {
    const { path, pieces } = this;
    const segmentSize = this.cursor.datagramSize;
    const entropy = path.flows.entropy(flow);
    const tos = ipv4Tos(path.arena.view, this.at) & dscpMask;
    const { socket } = path.io;
    if (
      this.queued === maximumQueued ||
      !socket.queue(pieces, segmentSize, path.peer, entropy, tos)
    ) {
      this.sendQueued();
      socket.queue(pieces, segmentSize, path.peer, entropy, tos);
    }
    this.queuedPackets[this.queued] = packets;
    this.queuedBytes[this.queued] = bytes;
    this.queued++;
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
    const { counters, io } = this.path;
    io.socket.flush();
    const { results } = io.socket;
    for (let i = 0; i < this.queued; i++) {
      const reason = results[i] === Reason.Ok ? Reason.Redirected : results[i];
      count(counters, reason, this.queuedPackets[i], this.queuedBytes[i]);
      if (results[i] === Reason.SocketTooBig) this.narrowed = true;
    }
    this.queued = 0;
  }
}
