/**
 * From datagrams back to super-packets: neighbours of a flow are joined, so that one write to the
 * device carries what would have been forty. The conditions are the kernel's (Linux
 * net/ipv4/tcp_offload.c tcp_gro_receive, af_inet.c inet_gro_receive, udp_offload.c), because what
 * is joined here is cut again there, and the receiver must see what the sender sent.
 *
 * - One super-packet is open at a time and nothing overtakes it: order is kept.
 * - A checksum is verified before its packet is joined, for a joined packet gets a new one: a
 *   corrupted packet would be repaired. A bad one goes on alone, untouched. What goes alone anyway
 *   is not verified: its receiver does that.
 * - Payload stays where it is: the first packet whole, then slices.
 *
 * Relies on packets that passed `checkIpv4` and `readFlowKey`; on the bytes staying until `flush`.
 */
import { fold, pseudoHeaderSum, transportChecksumOk } from '../parsers/checksum.ts';
import {
  finishIpv4Checksum,
  ipv4ChecksumOk,
  ipv4DontFragment,
  ipv4HeaderLength,
  ipv4Id,
  ipv4IsFragment,
  ipv4MinimumHeaderLength,
  ipv4Protocol,
  ipv4TimeToLive,
  ipv4Tos,
  ipv4TotalLength,
  Protocol,
  setIpv4TotalLength,
} from '../parsers/ipv4.ts';
import {
  setTcpChecksum,
  setTcpFlags,
  TcpFlag,
  tcpAcknowledgment,
  tcpChecksumOffset,
  tcpFlags,
  tcpHeaderLength,
  tcpMinimumHeaderLength,
  tcpOffsetAndFlags,
  tcpSequence,
  tcpWindow,
} from '../parsers/tcp.ts';
import {
  setUdpChecksum,
  setUdpLength,
  udpChecksum,
  udpChecksumOffset,
  udpHeaderLength,
  udpLength,
} from '../parsers/udp.ts';
import { addPiece, createPieces, Gso, maximumSegments, type Pieces } from './pieces.ts';

/** RFC 791: total length is 16 bits. */
const maximumPacketLength = 65535;

/** Flags that keep a segment out of a super-packet. */
const loneFlags = TcpFlag.Syn | TcpFlag.Rst | TcpFlag.Urg | TcpFlag.Cwr;
/** Flags that end a super-packet; its last segment may carry them. */
const closingFlags = TcpFlag.Fin | TcpFlag.Psh;

export interface CoalescerSink {
  /**
   * A packet, joined or alone, in order. `pieces.count` is how many packets are in it. The pieces
   * are reused after the call. The arguments are those of PacketDevice.write.
   */
  emit(
    pieces: Pieces,
    gso: Gso,
    gsoSize: number,
    checksumStart: number,
    checksumOffset: number,
    queue: number,
  ): void;
}

export class Coalescer {
  /** Join UDP too: only where the device takes UDP super-packets (TUN_F_USO4, kernel 6.2). */
  joinUdp = true;

  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  readonly #sink: CoalescerSink;
  readonly #pieces: Pieces = createPieces();

  /** The open super-packet; of Gso.None when nothing is open. */
  #gso: Gso = Gso.None;
  #at = 0;
  #flow = 0;
  #queue = 0;
  /** IPv4 and transport header, in bytes. */
  #headersLength = 0;
  /** Payload of every packet in it but the last. */
  #gsoSize = 0;
  #totalLength = 0;
  #nextSequence = 0;
  /** Fin and Psh of the last segment. */
  #closingFlags = 0;
  #firstVerified = false;

  constructor(bytes: Uint8Array, view: DataView, sink: CoalescerSink) {
    this.#bytes = bytes;
    this.#view = view;
    this.#sink = sink;
  }

  /**
   * Take the packet of `flow` for the device `queue`: joined with what is open, or what is open
   * goes out first. `length` may exceed the packet's total length.
   */
  add(at: number, length: number, flow: number, queue: number): void {
    const kind = this.#kindOf(at);
    if (kind !== Gso.None) {
      if (this.#gso !== Gso.None && this.#tryJoin(at, kind, flow, queue)) return;
      this.flush();
      if (this.#open(at, kind, flow, queue)) return;
    } else {
      this.flush();
    }
    this.#pieces.count = 0;
    addPiece(this.#pieces, at, length);
    this.#sink.emit(this.#pieces, Gso.None, 0, 0, 0, queue);
    this.#pieces.count = 0;
  }

  /** Send out what is open. At the end of a batch, before its bytes are overwritten. */
  flush(): void {
    const kind = this.#gso;
    if (kind === Gso.None) return;
    this.#gso = Gso.None;
    if (this.#pieces.count === 1) {
      this.#sink.emit(this.#pieces, Gso.None, 0, 0, 0, this.#queue);
    } else {
      const offset = this.#rewriteHeaders(kind);
      const start = ipv4MinimumHeaderLength;
      this.#sink.emit(this.#pieces, kind, this.#gsoSize, start, offset, this.#queue);
    }
    this.#pieces.count = 0;
  }

  /** Which kind of super-packet this packet could be part of. */
  #kindOf(at: number): Gso {
    const view = this.#view;
    if (ipv4HeaderLength(view, at) !== ipv4MinimumHeaderLength) return Gso.None;
    if (ipv4IsFragment(view, at)) return Gso.None;
    const transportAt = at + ipv4MinimumHeaderLength;
    switch (ipv4Protocol(view, at)) {
      case Protocol.Tcp: {
        const flags = tcpFlags(view, transportAt);
        if ((flags & loneFlags) !== 0) return Gso.None;
        return (flags & TcpFlag.Ack) !== 0 ? Gso.Tcp4 : Gso.None;
      }
      case Protocol.Udp: {
        if (!this.joinUdp || udpChecksum(view, transportAt) === 0) return Gso.None;
        const length = ipv4TotalLength(view, at) - ipv4MinimumHeaderLength;
        return udpLength(view, transportAt) === length ? Gso.Udp : Gso.None;
      }
      default:
        return Gso.None;
    }
  }

  /** Start a super-packet, unless this packet would also be its last. */
  #open(at: number, kind: Gso, flow: number, queue: number): boolean {
    const view = this.#view;
    const transportAt = at + ipv4MinimumHeaderLength;
    const isTcp = kind === Gso.Tcp4;
    if (isTcp && (tcpFlags(view, transportAt) & closingFlags) !== 0) return false;
    const transportLength = isTcp ? tcpHeaderLength(view, transportAt) : udpHeaderLength;
    const headersLength = ipv4MinimumHeaderLength + transportLength;
    const totalLength = ipv4TotalLength(view, at);
    const payloadLength = totalLength - headersLength;
    if (payloadLength <= 0) return false;
    this.#gso = kind;
    this.#at = at;
    this.#flow = flow;
    this.#queue = queue;
    this.#headersLength = headersLength;
    this.#gsoSize = payloadLength;
    this.#totalLength = totalLength;
    this.#nextSequence = isTcp ? (tcpSequence(view, transportAt) + payloadLength) >>> 0 : 0;
    this.#closingFlags = 0;
    this.#firstVerified = false;
    this.#pieces.count = 0;
    addPiece(this.#pieces, at, totalLength);
    return true;
  }

  #tryJoin(at: number, kind: Gso, flow: number, queue: number): boolean {
    if (kind !== this.#gso || flow !== this.#flow || queue !== this.#queue) return false;
    const pieces = this.#pieces;
    if (pieces.count === (kind === Gso.Udp ? maximumSegments : pieces.capacity)) return false;
    const payloadLength = ipv4TotalLength(this.#view, at) - this.#headersLength;
    if (payloadLength <= 0 || payloadLength > this.#gsoSize) return false;
    if (this.#totalLength + payloadLength > maximumPacketLength) return false;
    if (!this.#sameNetworkHeader(at)) return false;
    if (kind === Gso.Tcp4 && !this.#sameTcpHeader(at)) return false;
    if (!this.#verifyFirst()) return false;
    if (!this.#verify(at)) return false;

    addPiece(pieces, at + this.#headersLength, payloadLength);
    this.#totalLength += payloadLength;
    this.#nextSequence = (this.#nextSequence + payloadLength) >>> 0;
    if (kind === Gso.Tcp4) {
      this.#closingFlags = tcpFlags(this.#view, at + ipv4MinimumHeaderLength) & closingFlags;
    }
    if (payloadLength < this.#gsoSize || this.#closingFlags !== 0) this.flush();
    return true;
  }

  /**
   * The identification of a packet with DF means nothing (RFC 6864 section 4.1); without DF it
   * must count up, for that is what the segments will get.
   */
  #sameNetworkHeader(at: number): boolean {
    const view = this.#view;
    if (ipv4Tos(view, at) !== ipv4Tos(view, this.#at)) return false;
    if (ipv4TimeToLive(view, at) !== ipv4TimeToLive(view, this.#at)) return false;
    const dontFragment = ipv4DontFragment(view, at);
    if (dontFragment !== ipv4DontFragment(view, this.#at)) return false;
    if (dontFragment) return true;
    const expected = (ipv4Id(view, this.#at) + this.#pieces.count) & 0xffff;
    return ipv4Id(view, at) === expected;
  }

  #sameTcpHeader(at: number): boolean {
    const view = this.#view;
    const tcpAt = at + ipv4MinimumHeaderLength;
    const firstAt = this.#at + ipv4MinimumHeaderLength;
    if (tcpSequence(view, tcpAt) !== this.#nextSequence) return false;
    if (tcpAcknowledgment(view, tcpAt) !== tcpAcknowledgment(view, firstAt)) return false;
    const difference = tcpOffsetAndFlags(view, tcpAt) ^ tcpOffsetAndFlags(view, firstAt);
    if ((difference & ~closingFlags) !== 0) return false;
    if (tcpWindow(view, tcpAt) !== tcpWindow(view, firstAt)) return false;
    const optionsEnd = this.#headersLength - ipv4MinimumHeaderLength;
    for (let offset = tcpMinimumHeaderLength; offset < optionsEnd; offset += 4) {
      if (view.getInt32(tcpAt + offset) !== view.getInt32(firstAt + offset)) return false;
    }
    return true;
  }

  /** The first packet is looked at when a second one comes. A bad one stays alone. */
  #verifyFirst(): boolean {
    if (this.#firstVerified) return true;
    this.#firstVerified = this.#verify(this.#at);
    return this.#firstVerified;
  }

  #verify(at: number): boolean {
    if (!ipv4ChecksumOk(this.#view, at)) return false;
    return transportChecksumOk(this.#bytes, this.#view, at);
  }

  /** Make the first packet's headers those of the whole. Returns the checksum field's offset. */
  #rewriteHeaders(kind: Gso): number {
    const view = this.#view;
    const transportAt = this.#at + ipv4MinimumHeaderLength;
    const transportLength = this.#totalLength - ipv4MinimumHeaderLength;
    setIpv4TotalLength(view, this.#at, this.#totalLength);
    finishIpv4Checksum(view, this.#at);
    const isTcp = kind === Gso.Tcp4;
    const protocol = isTcp ? Protocol.Tcp : Protocol.Udp;
    // A partial checksum is the pseudo-header sum, folded and not complemented.
    const partial = ~fold(pseudoHeaderSum(view, this.#at, protocol, transportLength)) & 0xffff;
    if (isTcp) {
      setTcpFlags(view, transportAt, tcpFlags(view, transportAt) | this.#closingFlags);
      setTcpChecksum(view, transportAt, partial);
      return tcpChecksumOffset;
    }
    setUdpLength(view, transportAt, transportLength);
    setUdpChecksum(view, transportAt, partial);
    return udpChecksumOffset;
  }
}
