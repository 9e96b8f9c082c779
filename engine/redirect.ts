/**
 * Workload to firewall. In the order of the functions below:
 *
 *  1. process   one batch from one device queue; the gate first, then packet by packet
 *  2. decide    check, key, find the flow or classify a new one
 *  3. forward   pass, drop, or into the tunnel (engine/encapsulate.ts), by the flow's verdict
 *  4. release   later fragments that waited for this first one (engine/held-fragments.ts)
 *
 * Every packet of the batch ends under exactly one reason.
 */
import { KeyKind, readFlowKey } from '../parsers/flow-key.ts';
import {
  checkIpv4,
  ipv4ChecksumOk,
  ipv4Id,
  ipv4Protocol,
  ipv4TimeToLive,
  ipv4TotalLength,
  Protocol,
} from '../parsers/ipv4.ts';
import { Reason } from '../parsers/reason.ts';
import { TcpFlag, tcpFlags } from '../parsers/tcp.ts';
import { addPiece, createPieces } from '../tunnel/pieces.ts';
import { admit, Refused } from './admit.ts';
import { builtInRule } from './classifier/lookup.ts';
import { count } from './counters.ts';
import type { Encapsulator } from './encapsulate.ts';
import { noFlow, OnFailure, Verdict } from './flows.ts';
import { type Handover, isFragment, Stage } from './handover.ts';
import { HeldFragments } from './held-fragments.ts';
import { type Direction, Gso, type PacketBatch, type PacketDevice } from './io.ts';
import { mayCarry, teachKernel, unteachKernel } from './kernel-share.ts';
import { Loops } from './loops.ts';
import {
  createPacket,
  headersLength,
  isPartialInPlace,
  loadPacket,
  type Packet,
  wirePackets,
} from './packet.ts';
import { GateView, opposite, type Path, rememberFragments } from './path.ts';
import { classifyKey, Elsewhere, firewallFor } from './placement.ts';
import { resetBothEnds } from './reset.ts';
import { showPacket, TapPoint } from './tap.ts';

export class Redirect {
  private readonly path: Path;
  private readonly encapsulator: Encapsulator;
  private readonly packet: Packet = createPacket();
  private readonly pieces = createPieces();
  private readonly loops = new Loops();
  /** Tagged with the queue that they came by. */
  readonly held: HeldFragments;
  private readonly handover: Handover | undefined;
  /** Of the packet at hand. */
  private stage: Stage = Stage.Fresh;
  private queue = 0;

  constructor(path: Path, encapsulator: Encapsulator) {
    this.path = path;
    this.handover = path.handover;
    this.encapsulator = encapsulator;
    this.held = new HeldFragments(path.arena.bytes, path.arena.heldAt[0]);
  }

  /**
   * Decide and forward all packets of a batch that was read from `device`. Does not flush; what was
   * queued before has been.
   */
  process(batch: PacketBatch, device: PacketDevice, link: number): void {
    const { gate } = this.path;
    const { packet } = this;
    this.stage = Stage.Fresh;
    this.queue = 2 * link + device.direction;
    this.held.reclaim();
    for (let i = 0; i < batch.count; i++) {
      loadPacket(packet, batch, i);
      if (batch.reason[i] !== Reason.Ok) this.end(batch.reason[i]);
      else if (gate === GateView.Pass) this.pass(device, this.path.passedReason);
      else this.decide(device, link);
    }
  }

  /** What another worker gave, which lies in the arena at `at`; does not flush. */
  processHanded(handover: Handover, at: number): void {
    const { path } = this;
    const queue = handover.origin;
    handover.load(this.packet, at);
    this.stage = handover.stage;
    this.queue = queue;
    if (path.gate === GateView.Pass) return this.pass(path.devices[queue], path.passedReason);
    this.decide(path.devices[queue], queue >> 1);
  }

  private decide(device: PacketDevice, link: number): void {
    const { packet, path } = this;
    const { key } = packet;
    const malformed = this.read();
    if (malformed !== Reason.Ok) return this.end(malformed);
    const tcp = key.protocol === Protocol.Tcp && key.kind <= KeyKind.FirstFragment;
    const flags = tcp ? tcpFlags(path.arena.view, key.transportAt) : 0;
    let flow = this.find();
    if (this.handover !== undefined && this.leaves(this.handover, flow, device, link)) return;
    if (flow === noFlow && key.kind === KeyKind.LaterFragment) return this.hold(device, link);
    if (flow === noFlow && key.kind === KeyKind.IcmpError) return this.passError(device);
    if (key.kind <= KeyKind.FirstFragment) {
      flow = admit(path, key, flow, flags, device.direction, link);
      if (flow === Refused.Full) return this.end(Reason.FlowsFull);
      if (flow === Refused.Reset) return this.reset(device, link, flags);
      if (key.kind === KeyKind.FirstFragment) {
        rememberFragments(path, packet, flow);
        if ((flags & TcpFlag.Syn) !== 0) unteachKernel(path, key, device.direction);
      }
    }
    this.forward(flow, flags, device, link);
    if (key.kind === KeyKind.FirstFragment && this.held.count > 0) {
      this.release(flow, device, link);
    }
  }

  /** Another worker treats the packet at hand, and what waited here for it: they are given. */
  private leaves(handover: Handover, flow: number, device: PacketDevice, link: number): boolean {
    const { held, packet, path, stage } = this;
    const { key } = packet;
    if (flow !== noFlow && !isFragment(key)) return false;
    if (!handover.leads(key, packet.at, stage, path.nowTick)) return false;
    handover.givePacket(packet, 2 * link + device.direction);
    if (key.kind !== KeyKind.FirstFragment || held.count === 0) return true;
    while (this.takeHeld()) handover.givePacket(packet, held.tag);
    return true;
  }

  /** A later fragment whose first one has not come waits for it. */
  private hold(device: PacketDevice, link: number): void {
    const { arena, nowTick } = this.path;
    const { packet } = this;
    const { at, key, length } = packet;
    // No kernel makes a super-packet or an unfinished checksum of a fragment.
    if (packet.gso !== Gso.None || packet.checksumStart !== 0) {
      return this.end(Reason.FragmentUnmatched);
    }
    const id = ipv4Id(arena.view, at);
    const queue = 2 * link + device.direction;
    const { destination, protocol, source } = key;
    if (!this.held.hold(at, length, source, destination, id, protocol, queue, nowTick)) {
      this.end(Reason.FragmentsFull);
    }
  }

  /** What waited for the packet at hand follows it, unless it came by another queue. */
  private release(flow: number, device: PacketDevice, link: number): void {
    while (this.takeHeld()) {
      if (this.held.tag === 2 * link + device.direction) this.forward(flow, 0, device, link);
      else this.end(Reason.FragmentUnmatched);
    }
  }

  /** The oldest that waits for a fragment of the datagram at hand becomes the packet at hand. */
  private takeHeld(): boolean {
    const { held, packet, path } = this;
    const { view } = path.arena;
    const { at, key } = packet;
    const { destination, source } = key;
    if (!held.take(source, destination, ipv4Id(view, at), ipv4Protocol(view, at))) return false;
    this.loadHeld();
    return true;
  }

  /** The fragment just taken becomes the packet at hand. It was read before, when it came. */
  private loadHeld(): void {
    const { held, packet, path } = this;
    this.queue = held.tag;
    packet.at = held.at;
    packet.length = held.length;
    packet.gso = Gso.None;
    packet.gsoSize = 0;
    packet.checksumStart = 0;
    packet.checksumOffset = 0;
    packet.flow = noFlow;
    readFlowKey(path.arena.view, packet.at, packet.key);
  }

  /** Once a tick: fragments whose first one has not come in time. */
  expireHeld(nowTick: number): void {
    while (this.held.takeExpired(nowTick)) {
      this.loadHeld();
      this.end(Reason.FragmentUnmatched);
    }
  }

  /** Nothing is decided from now on: what waits goes straight on. */
  passHeld(): void {
    while (this.held.takeExpired(Number.POSITIVE_INFINITY)) {
      this.loadHeld();
      this.pass(this.path.devices[this.held.tag], this.path.passedReason);
    }
  }

  /** The flow of the packet at hand, or noFlow. */
  private find(): number {
    const { arena, flows, fragments, nowTick } = this.path;
    const { packet } = this;
    const { key } = packet;
    const { destination, protocol, source } = key;
    if (key.kind !== KeyKind.LaterFragment) {
      return flows.find(source, destination, key.sourcePort, key.destinationPort, protocol);
    }
    const id = ipv4Id(arena.view, packet.at);
    const flow = fragments.find(source, destination, id, protocol, nowTick);
    const { cookie, sourceIsA } = fragments;
    return flow >= 0 && flows.select(flow, cookie, sourceIsA) ? flow : noFlow;
  }

  /** Whether the flow's failure policy is pass, where its rule says nothing `otherwise`. */
  private survives(flow: number, otherwise: OnFailure): boolean {
    const { flows } = this.path;
    if (flows.verdict[flow] === Verdict.PassBuiltIn) return true;
    const own = flows.onFailure[flow];
    return (own === OnFailure.Inherit ? otherwise : own) === OnFailure.Pass;
  }

  /** Check the packet at hand and fill the key; its length becomes the IPv4 total length. */
  private read(): Reason {
    const { view } = this.path.arena;
    const { packet } = this;
    const { at } = packet;
    const bad = checkIpv4(view, at, at + packet.length);
    if (bad !== Reason.Ok) return bad;
    if (!ipv4ChecksumOk(view, at)) return Reason.Ipv4BadChecksum;
    packet.length = ipv4TotalLength(view, at);
    const badKey = readFlowKey(view, at, packet.key);
    if (badKey !== Reason.Ok) return badKey;
    return packet.checksumStart === 0 || isPartialInPlace(packet)
      ? Reason.Ok
      : Reason.VirtioBadChecksum;
  }

  private forward(flow: number, flags: number, device: PacketDevice, link: number): void {
    const { packet, path } = this;
    const { flows } = path;
    packet.flow = flow;
    // An error is about the flow and not of it: it keeps nothing alive.
    if (packet.key.kind !== KeyKind.IcmpError) flows.touch(flow, flags, path.nowTick);
    this.account(flow, device.direction);
    if (path.gate === GateView.Closed && !this.survives(flow, path.onLoss)) {
      return this.end(path.droppedReason);
    }
    if (flows.verdict[flow] === Verdict.Redirect) {
      if (path.gate === GateView.Closed) return this.pass(device, path.passedReason);
      if (this.isCopy(flow)) return this.end(Reason.PacketLooped);
      const firewall = firewallFor(path, flow, flags);
      if (firewall >= 0) {
        mayCarry(path, packet.key, flow, flags, device, firewall);
        if (path.tap.isOn(TapPoint.Before)) this.show(Reason.Redirected);
        return this.encapsulator.send(packet, flow, flags, device.direction, link, firewall);
      }
      if (firewall !== Elsewhere.Pass) return this.stray(firewall, flow, flags, device, link);
    }
    const verdict = flows.verdict[flow] as Verdict;
    teachKernel(path, packet.key, verdict, device.direction);
    switch (verdict) {
      case Verdict.Pass:
        return this.pass(device, Reason.PassedByRule);
      case Verdict.PassEstablished:
        return this.pass(device, Reason.PassedEstablished);
      case Verdict.PassBuiltIn:
        return this.pass(device, Reason.PassedBuiltIn);
      case Verdict.PassGroup:
        return this.pass(device, Reason.PassedGroup);
      case Verdict.PassRollout:
        return this.pass(device, Reason.PassedByRollout);
      case Verdict.Observe:
        return this.pass(device, Reason.PassedObserved);
      case Verdict.Drop:
      case Verdict.Redirect:
      case Verdict.Undecided:
        return this.end(Reason.DroppedByRule);
    }
  }

  private isCopy(flow: number): boolean {
    const { arena, nowTick } = this.path;
    // Fragments share their identification.
    if (this.packet.key.kind !== KeyKind.Plain) return false;
    const { at, length } = this.packet;
    const id = ipv4Id(arena.view, at);
    return this.loops.isCopy(flow, id, length, ipv4TimeToLive(arena.view, at), nowTick);
  }

  /** A redirected flow that no firewall takes while the gate is open. */
  private stray(why: number, flow: number, flags: number, device: PacketDevice, link: number) {
    const { flows, nowTick, policy } = this.path;
    if (why === Elsewhere.Reset) {
      // It is over: only a SYN begins it again.
      flows.touch(flow, TcpFlag.Rst, nowTick);
      return this.reset(device, link, flags);
    }
    if (this.survives(flow, policy.onFirewallDown)) {
      return this.pass(device, Reason.PassedFirewallDown);
    }
    this.end(Reason.DroppedFirewallDown);
  }

  /**
   * An ICMP error without a flow: about the tunnel itself or a management exception (the kernel
   * needs it, also when the gate drops), or about something that we do not know (harmless: no
   * socket of ours matches it, so it goes on as if we were not there).
   */
  private passError(device: PacketDevice): void {
    const { droppedReason, gate, onLoss, policy } = this.path;
    if (classifyKey(policy, this.packet.key, device.direction) === builtInRule) {
      return this.pass(device, Reason.PassedBuiltIn);
    }
    if (gate === GateView.Closed && onLoss === OnFailure.Drop) {
      return this.end(droppedReason);
    }
    this.pass(device, Reason.PassedUnrelatedError);
  }

  /** `established: reset`: the connection ends now, at both its ends. */
  private reset(device: PacketDevice, link: number, flags: number): void {
    const { packet, path, pieces } = this;
    const isWhole = packet.key.kind <= KeyKind.FirstFragment;
    if (isWhole && (flags & TcpFlag.Rst) === 0) {
      resetBothEnds(path, packet, pieces, device, opposite(path, link, device.direction));
    }
    this.end(Reason.ResetEstablished);
  }

  /** Straight on, as it came: same direction, same super-packet, same partial checksum. */
  private pass(device: PacketDevice, reason: Reason): void {
    const { packet, pieces } = this;
    const { checksumOffset, checksumStart, gso, gsoSize } = packet;
    pieces.count = 0;
    addPiece(pieces, packet.at, packet.length);
    const result = device.write(pieces, gso, gsoSize, checksumStart, checksumOffset);
    this.end(result === Reason.Ok ? reason : result);
  }

  /** As many packets and bytes as the wire has: each segment has headers of its own. */
  private account(flow: number, direction: Direction): void {
    const { packet, path } = this;
    const { view } = path.arena;
    const packets = wirePackets(view, packet);
    const headers = packets === 1 ? 0 : headersLength(view, packet, packet.gso);
    path.flows.account(flow, direction, packets, packet.length + (packets - 1) * headers);
  }

  /** The end of the packet at hand. */
  private end(reason: Reason): void {
    const { packet, path } = this;
    count(path.counters, reason, wirePackets(path.arena.view, packet), packet.length);
    if (path.tap.isOn(TapPoint.Before)) this.show(reason);
  }

  /** To whoever captures: the packet at hand, and what becomes of it. */
  private show(reason: Reason): void {
    const { packet, path, queue } = this;
    const { at, flow, length } = packet;
    showPacket(
      path,
      TapPoint.Before,
      at,
      length,
      (queue & 1) as Direction,
      queue >> 1,
      reason,
      flow,
    );
  }
}
