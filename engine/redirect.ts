/**
 * Workload to firewall. In the order of the functions below:
 *
 *  1. process   one batch from one device queue; the gate first, then packet by packet
 *  2. decide    check, key, find the flow or classify a new one
 *  3. forward   pass, drop, or into the tunnel (engine/encapsulate.ts), by the flow's verdict
 *
 * Every packet of the batch ends under exactly one reason.
 */
import { KeyKind, readFlowKey } from '../parsers/flow-key.ts';
import { checkIpv4, ipv4ChecksumOk, ipv4Id, ipv4TotalLength, Protocol } from '../parsers/ipv4.ts';
import { Reason } from '../parsers/reason.ts';
import { TcpFlag, tcpFlags } from '../parsers/tcp.ts';
import { addPiece, createPieces } from '../tunnel/pieces.ts';
import { classify } from './classifier/lookup.ts';
import { count } from './counters.ts';
import type { Encapsulator } from './encapsulate.ts';
import { FlowState, noFlow, Verdict } from './flows.ts';
import {
  Direction,
  KernelVerdict,
  type PacketBatch,
  type PacketDevice,
  SteeringMode,
} from './io.ts';
import { createPacket, loadPacket, type Packet, wirePackets } from './packet.ts';
import { type Path, rememberFragments } from './path.ts';

export class Redirect {
  private readonly path: Path;
  private readonly encapsulator: Encapsulator;
  private readonly packet: Packet = createPacket();
  private readonly pieces = createPieces();

  constructor(path: Path, encapsulator: Encapsulator) {
    this.path = path;
    this.encapsulator = encapsulator;
  }

  /** Decide and forward all packets of a batch that was read from `device`. Does not flush. */
  process(batch: PacketBatch, device: PacketDevice, link: number): void {
    const { mode } = this.path;
    const { packet } = this;
    for (let i = 0; i < batch.count; i++) {
      loadPacket(packet, batch, i);
      if (batch.reason[i] !== Reason.Ok) this.end(batch.reason[i]);
      else if (mode === SteeringMode.Pass) this.pass(device, Reason.PassedGateClosed);
      else this.decide(device, link, mode);
    }
  }

  private decide(device: PacketDevice, link: number, mode: SteeringMode): void {
    const { arena, flows, fragments, nowTick } = this.path;
    const { view } = arena;
    const { packet } = this;
    const { at, key } = packet;
    const { direction } = device;
    const malformed = this.read();
    if (malformed !== Reason.Ok) return this.end(malformed);
    let flow: number;
    let flags = 0;
    if (key.kind === KeyKind.LaterFragment) {
      flow = fragments.find(key.source, key.destination, ipv4Id(view, at), key.protocol, nowTick);
      if (flow < 0 || !flows.select(flow, key.source, key.destination)) {
        return this.end(Reason.FragmentUnmatched);
      }
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
        if (flow === noFlow) return this.end(Reason.FlowsFull);
      }
      if (key.kind === KeyKind.FirstFragment) rememberFragments(this.path, packet, flow);
    }
    flows.touch(flow, flags, nowTick);
    if (mode === SteeringMode.Drop && flows.verdict[flow] !== Verdict.PassBuiltIn) {
      return this.end(Reason.DroppedGateClosed);
    }
    this.forward(flow, flags, device, link);
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
    return readFlowKey(view, at, packet.key);
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
    const { path } = this;
    const { key } = this.packet;
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
    const { path } = this;
    const { key } = this.packet;
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
        return this.encapsulator.send(this.packet, flow, flags, device.direction, link);
      case Verdict.Pass:
        return this.pass(device, Reason.PassedByRule);
      case Verdict.PassEstablished:
        return this.pass(device, Reason.PassedEstablished);
      case Verdict.PassBuiltIn:
        return this.pass(device, Reason.PassedBuiltIn);
      case Verdict.Drop:
      case Verdict.Undecided:
        return this.end(Reason.DroppedByRule);
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
    if (mode === SteeringMode.Drop) return this.end(Reason.DroppedGateClosed);
    this.pass(device, Reason.PassedUnrelatedError);
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

  /** The end of the packet at hand. */
  private end(reason: Reason): void {
    const { packet } = this;
    count(this.path.counters, reason, wirePackets(packet), packet.length);
  }
}
