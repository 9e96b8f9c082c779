/**
 * Firewall to workload. In the order of the functions below:
 *
 *  1. process   a batch of datagrams, each perhaps many joined by the kernel (UDP_GRO)
 *  2. accept    sender, tunnel header, inner packet, flow, cookie: semantics of "who may inject"
 *  3. deliver   to the coalescer, with the later fragments that waited for this first one
 *  4. emit      what the coalescer has joined is written to the queue of its direction
 *
 * A packet from the tunnel is put on the host's network as if inspected; so anything that is not
 * the answer to a packet that we redirected is a counted drop.
 */
import { createFlowKey, type FlowKey, KeyKind, readFlowKey } from '../parsers/flow-key.ts';
import {
  checkIpv4,
  ipv4ChecksumOk,
  ipv4Id,
  ipv4Protocol,
  ipv4TotalLength,
  Protocol,
} from '../parsers/ipv4.ts';
import { Reason } from '../parsers/reason.ts';
import { Coalescer, type CoalescerSink } from '../tunnel/coalesce.ts';
import { createTunnelHeader, type TunnelHeader } from '../tunnel/encapsulation.ts';
import type { Pieces } from '../tunnel/pieces.ts';
import { count } from './counters.ts';
import { noFlow, Verdict } from './flows.ts';
import { type Handover, isFragment, Stage } from './handover.ts';
import { HeldFragments } from './held-fragments.ts';
import type { DatagramBatch, Direction, Gso } from './io.ts';
import type { Path } from './path.ts';
import { probeSource, probeTarget } from './probe.ts';
import { showPacket, TapPoint } from './tap.ts';

/** Of a datagram that another worker has received: behind everything in the arena. */
const elsewhere = 0x7fff_ffff;

export class Reinject implements CoalescerSink {
  private readonly path: Path;
  private readonly key: FlowKey = createFlowKey();
  private readonly header: TunnelHeader = createTunnelHeader();
  private readonly coalescer: Coalescer;
  /** Which firewalls the sender of the datagram at hand may be: a set. */
  private senders = 0;
  /** Where the payload of the datagram at hand begins. */
  private datagramAt = 0;
  private readonly handover: Handover | undefined;
  private stage: Stage = Stage.Fresh;
  /** Tagged with the cookie that came with them. */
  private readonly held: HeldFragments;

  constructor(path: Path) {
    this.path = path;
    this.handover = path.handover;
    this.held = new HeldFragments(path.arena.bytes, path.arena.heldAt[1]);
    this.coalescer = new Coalescer(path.arena.bytes, path.arena.view, this);
    this.coalescer.joinUdp = path.joinUdp;
  }

  /** Decide and deliver everything in the batch; nothing is kept for later. */
  process(batch: DatagramBatch): void {
    const { counters, tap } = this.path;
    this.stage = Stage.Fresh;
    for (let i = 0; i < batch.count; i++) {
      const length = batch.length[i];
      if (batch.reason[i] !== Reason.Ok) {
        count(counters, batch.reason[i], 1, length);
        continue;
      }
      const end = batch.at[i] + length;
      const step = batch.segmentSize[i] > 0 ? batch.segmentSize[i] : length;
      this.senders = this.path.peers.sendersOf(batch.source[i]);
      let at = batch.at[i];
      do {
        const datagramEnd = Math.min(at + step, end);
        if (tap.isOn(TapPoint.Tunnel)) tap.received(at, datagramEnd - at, batch.source[i]);
        const isKnown = this.senders !== 0;
        this.datagramAt = at;
        const reason = isKnown ? this.accept(at, datagramEnd) : Reason.TunnelSender;
        if (reason !== Reason.Ok) {
          count(counters, reason, 1, datagramEnd - at);
          if (tap.isOn(TapPoint.Tunnel)) tap.amend(reason);
        }
        at = datagramEnd;
      } while (at < end);
    }
    this.flush();
  }

  /** What another worker gave, which lies in the arena at `at`. The caller flushes. */
  processHanded(handover: Handover, at: number): void {
    const { header, path } = this;
    const { length } = handover;
    this.stage = handover.stage;
    this.senders = handover.origin;
    this.datagramAt = elsewhere;
    header.innerAt = at;
    header.cookie = handover.cookie;
    // Its checks have been made.
    header.hasCookie = 1;
    const reason = this.acceptInner(at + length);
    if (reason !== Reason.Ok) count(path.counters, reason, 1, length);
  }

  flush(): void {
    this.coalescer.flush();
    this.held.reclaim();
  }

  /** Ok: the packet is with the coalescer, or waits for its first fragment. Else its fate. */
  private accept(at: number, end: number): Reason {
    const { path, header } = this;
    const { view } = path.arena;
    const badHeader = path.encapsulation.check(view, at, end, header);
    if (badHeader !== Reason.Ok) return badHeader;
    if (header.control === 1) return Reason.TunnelControl;
    return this.acceptInner(end);
  }

  /** The packet behind the tunnel header at hand. */
  private acceptInner(end: number): Reason {
    const { path, header, key } = this;
    const { view } = path.arena;
    const { innerAt } = header;
    const badPacket = checkIpv4(view, innerAt, end);
    if (badPacket !== Reason.Ok) return badPacket;
    if (!ipv4ChecksumOk(view, innerAt)) return Reason.Ipv4BadChecksum;
    const badKey = readFlowKey(view, innerAt, key);
    if (badKey !== Reason.Ok) return badKey;
    if (path.encapsulation.cookieMask !== 0 && header.hasCookie === 0) {
      return Reason.TunnelCookieMissing;
    }
    if (key.source === probeSource && this.isProbe()) {
      return path.peers.takeProbe(innerAt, header, this.senders);
    }
    const length = ipv4TotalLength(view, innerAt);
    const flow = this.findFlow(innerAt);
    if (this.handover !== undefined && this.leaves(this.handover, flow, length)) return Reason.Ok;
    if (flow === noFlow) {
      return key.kind === KeyKind.LaterFragment ? this.hold(innerAt, length) : Reason.FlowUnknown;
    }
    const denied = this.admit(flow, header.cookie);
    if (denied !== Reason.Ok) return denied;
    this.deliver(innerAt, length, flow);
    return Reason.Ok;
  }

  /** Another worker treats the packet at hand, and what waited here for it: they are given. */
  private leaves(handover: Handover, flow: number, length: number): boolean {
    const { header, held, key, path, senders } = this;
    const { view } = path.arena;
    const at = header.innerAt;
    if (flow !== noFlow && !isFragment(key)) return false;
    if (!handover.leads(key, at, this.stage, path.nowTick)) return false;
    handover.giveInner(at, length, senders, header.cookie);
    if (key.kind !== KeyKind.FirstFragment || held.count === 0) return true;
    const id = ipv4Id(view, at);
    const protocol = ipv4Protocol(view, at);
    while (held.take(key.source, key.destination, id, protocol)) {
      handover.giveInner(held.at, held.length, senders, held.tag);
    }
    return true;
  }

  private isProbe(): boolean {
    const { key, path } = this;
    const isBetween = key.destination === probeTarget && key.kind === KeyKind.Plain;
    return isBetween && key.protocol === Protocol.Udp && path.peers.probes;
  }

  /** Whether a packet that came with this cookie may be put on the network as the flow's. */
  private admit(flow: number, cookie: number): Reason {
    const { encapsulation, flows } = this.path;
    if (flows.verdict[flow] !== Verdict.Redirect) return Reason.FlowNotRedirected;
    const wrong = (cookie ^ flows.cookie[flow]) & encapsulation.cookieMask;
    return wrong !== 0 ? Reason.TunnelCookieWrong : Reason.Ok;
  }

  private deliver(at: number, length: number, flow: number): void {
    const { flows, fragments, nowTick, arena } = this.path;
    const { key } = this;
    flows.lastSeen[flow] = nowTick;
    this.credit(flow, length);
    const direction = flows.directionOf(flow);
    const queue = 2 * flows.link[flow] + direction;
    if (key.kind === KeyKind.Plain) this.path.carried.returned(flow, direction);
    if (this.path.tap.points !== 0) this.show(at, length, direction, flow);
    this.coalescer.add(at, length, flow, queue);
    if (key.kind !== KeyKind.FirstFragment) return;
    // Known already, unless the firewall made these fragments.
    const id = ipv4Id(arena.view, at);
    const protocol = ipv4Protocol(arena.view, at);
    const cookie = flows.cookie[flow];
    const { sourceIsA } = flows;
    const { destination, source } = key;
    fragments.remember(source, destination, id, protocol, flow, cookie, sourceIsA, nowTick);
    if (this.held.count > 0) this.release(id, protocol, flow, queue);
  }

  /** To whoever captures: the datagram was good, and what was in it goes on. */
  private show(at: number, length: number, direction: Direction, flow: number): void {
    const { path } = this;
    const { flows, tap } = path;
    const { firewall, generation, rule } = flows.columns;
    if (tap.isOn(TapPoint.Tunnel) && at >= this.datagramAt) {
      const innerAt = at - this.datagramAt;
      tap.amendFlow(direction, rule[flow], generation[flow], firewall[flow], innerAt);
    }
    if (tap.isOn(TapPoint.After)) {
      const link = flows.link[flow];
      showPacket(path, TapPoint.After, at, length, direction, link, Reason.Reinjected, flow);
    }
  }

  /** It came by the firewall that holds the flow, when its sender may be that one. */
  private credit(flow: number, length: number): void {
    const { flows, peers } = this.path;
    const holder = flows.firewall[flow];
    const { senders } = this;
    const isHolder = holder < peers.count && ((senders >> holder) & 1) === 1;
    const firewall = isHolder ? holder : 31 - Math.clz32(senders & -senders);
    peers.columns.returnedPackets[firewall]++;
    peers.columns.returnedBytes[firewall] += length;
  }

  /** A later fragment whose first one has not come waits for it; the sender is a firewall. */
  private hold(at: number, length: number): Reason {
    const { arena, nowTick } = this.path;
    const { cookie } = this.header;
    const { destination, protocol, source } = this.key;
    const id = ipv4Id(arena.view, at);
    const held = this.held.hold(at, length, source, destination, id, protocol, cookie, nowTick);
    return held ? Reason.Ok : Reason.FragmentsFull;
  }

  /** What waited for the first fragment just delivered follows it, each by its own cookie. */
  private release(id: number, protocol: number, flow: number, queue: number): void {
    const { held, key, path } = this;
    while (held.take(key.source, key.destination, id, protocol)) {
      const denied = this.admit(flow, held.tag);
      if (denied !== Reason.Ok) {
        count(path.counters, denied, 1, held.length);
        continue;
      }
      const direction = (queue & 1) as Direction;
      if (path.tap.isOn(TapPoint.After)) {
        const { at, length } = held;
        const link = queue >> 1;
        showPacket(path, TapPoint.After, at, length, direction, link, Reason.Reinjected, flow);
      }
      this.coalescer.add(held.at, held.length, flow, queue);
    }
  }

  /** Once a tick: fragments whose first one has not come in time. */
  expireHeld(nowTick: number): void {
    const { held } = this;
    while (held.takeExpired(nowTick)) {
      count(this.path.counters, Reason.FragmentUnmatched, 1, held.length);
    }
  }

  private findFlow(innerAt: number): number {
    const { path, key } = this;
    const { flows } = path;
    if (key.kind !== KeyKind.LaterFragment) {
      return flows.find(
        key.source,
        key.destination,
        key.sourcePort,
        key.destinationPort,
        key.protocol,
      );
    }
    const id = ipv4Id(path.arena.view, innerAt);
    const flow = path.fragments.find(key.source, key.destination, id, key.protocol, path.nowTick);
    const { cookie, sourceIsA } = path.fragments;
    return flow >= 0 && flows.select(flow, cookie, sourceIsA) ? flow : noFlow;
  }

  /** CoalescerSink: one packet, or several joined into a super-packet. */
  emit(
    pieces: Pieces,
    gso: Gso,
    gsoSize: number,
    checksumStart: number,
    checksumOffset: number,
    queue: number,
  ): void {
    const { path } = this;
    const packets = pieces.count;
    const result = path.devices[queue].write(pieces, gso, gsoSize, checksumStart, checksumOffset);
    // Each packet had the headers that only the first piece still has.
    const headersLength = pieces.length[0] - gsoSize;
    let bytes = packets === 1 ? 0 : (packets - 1) * headersLength;
    for (let i = 0; i < packets; i++) bytes += pieces.length[i];
    count(path.counters, result === Reason.Ok ? Reason.Reinjected : result, packets, bytes);
  }
}
