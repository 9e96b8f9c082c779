/**
 * Firewall to workload. In the order of the functions below:
 *
 *  1. process   a batch of datagrams, each perhaps many joined by the kernel (UDP_GRO)
 *  2. accept    sender, tunnel header, inner packet, flow, cookie: semantics of "who may inject"
 *  3. emit      what the coalescer has joined is written to the queue of its direction
 *
 * A packet from the tunnel is put on the host's network as if inspected; so anything that is not
 * the answer to a packet that we redirected is a counted drop.
 */
import { createFlowKey, type FlowKey, KeyKind, readFlowKey } from '../parsers/flow-key.ts';
import { checkIpv4, ipv4ChecksumOk, ipv4Id, ipv4TotalLength } from '../parsers/ipv4.ts';
import { Reason } from '../parsers/reason.ts';
import { Coalescer, type CoalescerSink } from '../tunnel/coalesce.ts';
import { createTunnelHeader, type TunnelHeader } from '../tunnel/encapsulation.ts';
import type { Pieces } from '../tunnel/pieces.ts';
import { contains, type Prefix } from './classifier/built-in.ts';
import { count } from './counters.ts';
import { noFlow, Verdict } from './flows.ts';
import type { DatagramBatch, Gso } from './io.ts';
import type { Path } from './path.ts';

export class Reinject implements CoalescerSink {
  private readonly path: Path;
  private readonly senders: readonly Prefix[];
  private readonly key: FlowKey = createFlowKey();
  private readonly header: TunnelHeader = createTunnelHeader();
  private readonly coalescer: Coalescer;

  constructor(path: Path) {
    this.path = path;
    this.senders = path.policy.builtIns.tunnelPeers;
    this.coalescer = new Coalescer(path.arena.bytes, path.arena.view, this);
    this.coalescer.joinUdp = path.joinUdp;
  }

  /** Decide and deliver everything in the batch; nothing is kept for later. */
  process(batch: DatagramBatch): void {
    const { counters } = this.path;
    for (let i = 0; i < batch.count; i++) {
      const length = batch.length[i];
      if (batch.reason[i] !== Reason.Ok) {
        count(counters, batch.reason[i], 1, length);
        continue;
      }
      const end = batch.at[i] + length;
      const step = batch.segmentSize[i] > 0 ? batch.segmentSize[i] : length;
      const known = this.isFirewall(batch.source[i]);
      let at = batch.at[i];
      do {
        const datagramEnd = Math.min(at + step, end);
        const reason = known ? this.accept(at, datagramEnd) : Reason.TunnelSender;
        if (reason !== Reason.Ok) count(counters, reason, 1, datagramEnd - at);
        at = datagramEnd;
      } while (at < end);
    }
    this.coalescer.flush();
  }

  private isFirewall(source: number): boolean {
    for (let i = 0; i < this.senders.length; i++) {
      if (contains(this.senders[i], source)) return true;
    }
    return false;
  }

  /** Ok: the packet is with the coalescer. Else why not. */
  private accept(at: number, end: number): Reason {
    const { path, header, key } = this;
    const { view } = path.arena;
    const { flows } = path;
    const badHeader = path.encapsulation.check(view, at, end, header);
    if (badHeader !== Reason.Ok) return badHeader;
    if (header.control === 1) return Reason.TunnelControl;
    const { innerAt } = header;
    const badPacket = checkIpv4(view, innerAt, end);
    if (badPacket !== Reason.Ok) return badPacket;
    if (!ipv4ChecksumOk(view, innerAt)) return Reason.Ipv4BadChecksum;
    const badKey = readFlowKey(view, innerAt, key);
    if (badKey !== Reason.Ok) return badKey;
    const flow = this.findFlow(innerAt);
    if (flow === noFlow) return Reason.FlowUnknown;
    if (flows.verdict[flow] !== Verdict.Redirect) return Reason.FlowNotRedirected;
    if (path.encapsulation.carriesCookie) {
      if (header.hasCookie === 0) return Reason.TunnelCookieMissing;
      if (header.cookie !== flows.cookie[flow]) return Reason.TunnelCookieWrong;
    }
    flows.lastSeen[flow] = path.nowTick;
    const queue = 2 * flows.link[flow] + flows.directionOf(flow);
    this.coalescer.add(innerAt, ipv4TotalLength(view, innerAt), flow, queue);
    return Reason.Ok;
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
    return flow >= 0 && flows.select(flow, key.source, key.destination) ? flow : noFlow;
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
