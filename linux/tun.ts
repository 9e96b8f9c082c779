/**
 * The TUN device. `createTun` makes it, in the main thread, with one queue for each direction of
 * each interface; `openTunQueue` reads and writes one queue, in any thread.
 *
 * With offloads on, one read returns a super-packet of up to 64 KiB behind a virtio header, and
 * one write takes one: 10 times the throughput of packets of wire size. What the header says is
 * verified like a stranger's packet before it becomes columns of the batch.
 *
 *     arena slot:  | … headroom | virtio header (10) | IPv4 header … packet |
 *                               ^ at - 10            ^ at
 */
import { constants } from 'node:os';
import type { Arena } from '../engine/arena.ts';
import { maximumPacketLength } from '../engine/arena.ts';
import { type Direction, Gso, type PacketBatch, type PacketDevice } from '../engine/io.ts';
import { Reason } from '../parsers/reason.ts';
import { maximumPieces, type Pieces } from '../tunnel/pieces.ts';
import * as abi from './abi/net.ts';
import { callFailed, SystemError, UnsupportedFeature } from './errors.ts';
import { Closers } from './fd.ts';
import { features, requireFeature } from './feature.ts';
import { isIpv6Missing, listInterfaces, setLink } from './netlink.ts';
import {
  type Address,
  addressOf,
  allocate,
  close,
  errno,
  type Fd,
  ioctl,
  keepAddresses,
  LITTLE_ENDIAN,
  open,
  read,
  setPointer,
  writev,
} from './syscall.ts';

/**
 * The largest IPv4 packet. The NIC programs redirect whatever the NIC carries, of which jumbo
 * frames are the largest; nothing routes into the TUN, so nobody derives a packet size from its
 * MTU, and the ICMP 3/4 of a packet too big for the tunnel is the engine's to send.
 */
const tunMtu = maximumPacketLength;

/**
 * Packets that wait in each queue while the engine is busy elsewhere. The kernel's 500 last 0.8 ms
 * at 600,000 packets a second, less than one turn of Node's event loop may take; 2,048 last 3.4 ms.
 * Super-packets of 64 KiB could pin 128 MiB for each queue, but TCP's windows stop them earlier.
 */
const tunQueueLength = 2048;

export type TunOptions = {
  /** At most 15 bytes. */
  readonly name: string;
  /** How many queues: descriptor i of the result is queue i to the kernel's queue selection. */
  readonly queues: number;
};

export type Tun = {
  readonly name: string;
  /** Kernel index of the interface. */
  readonly index: number;
  readonly fds: readonly Fd[];
  /** Whether UDP super-packets come through whole too (Linux 6.2); TCP's always do. */
  readonly udpSegmentation: boolean;
  /** Closes every queue; the device goes with the last. Idempotent. */
  close(): void;
};

/**
 * Make the device, up, without any address.
 * @throws SystemError ERR_NO_TUN_DEVICE, ERR_NOT_PERMITTED, ERR_TUN_BUSY, ERR_SYSTEM_CALL;
 *   UnsupportedFeature for a kernel without virtio headers or offloads
 */
export function createTun(options: TunOptions): Tun {
  const closers = new Closers();
  try {
    const fds: Fd[] = [];
    for (let queue = 0; queue < options.queues; queue++) {
      // Exclusive for the first only: otherwise we would silently join another process's device.
      const extra = queue === 0 ? abi.IFF_TUN_EXCL : 0;
      fds.push(closers.own(openQueue(options.name, extra)));
    }
    const udpSegmentation = setOffloads(fds[0]);
    const index = listInterfaces().find((link) => link.name === options.name)?.index ?? 0;
    withoutIpv6(index);
    setLink(index, { mtu: tunMtu, queueLength: tunQueueLength });
    setLink(index, { up: true });
    return { name: options.name, index, fds, udpSegmentation, close: () => closers.closeAll() };
  } catch (error) {
    closers.closeAll();
    throw error;
  }
}

/** Read and write one queue. `fd` stays the caller's to close. */
export function openTunQueue(
  fd: Fd,
  arena: Arena,
  direction: Direction,
  interfaceIndex: number,
): TunQueue {
  return new TunQueue(fd, arena, direction, interfaceIndex);
}

function openQueue(name: string, extraFlags: number): Fd {
  const fd = open('/dev/net/tun', abi.O_RDWR | abi.O_NONBLOCK | abi.O_CLOEXEC, 0);
  if (fd < 0) throw openFailed(errno());
  const request = allocate(abi.ifreq.size);
  new TextEncoder().encodeInto(name, request.bytes.subarray(0, abi.IFNAMSIZ - 1));
  const flags = abi.IFF_TUN | abi.IFF_NO_PI | abi.IFF_VNET_HDR | abi.IFF_MULTI_QUEUE | extraFlags;
  request.view.setUint16(abi.ifreq.ifr_flags, flags, LITTLE_ENDIAN);
  if (ioctl(fd, abi.TUNSETIFF, request.address) < 0) {
    const code = errno();
    close(fd);
    throw attachFailed(name, code);
  }
  return fd;
}

function openFailed(code: number): SystemError {
  const { ENOENT, ENODEV, ENXIO } = constants.errno;
  if (code !== ENOENT && code !== ENODEV && code !== ENXIO) {
    return callFailed('open(/dev/net/tun)', code);
  }
  return new SystemError('ERR_NO_TUN_DEVICE', 'this system has no /dev/net/tun', {
    call: 'open(/dev/net/tun)',
    errno: code,
    advice: 'Load the module (modprobe tun); in a container, add the device /dev/net/tun.',
  });
}

function attachFailed(name: string, code: number): SystemError {
  if (code === constants.errno.EINVAL) requireFeature(features.tunQueues);
  if (code !== constants.errno.EBUSY) return callFailed('ioctl(TUNSETIFF)', code);
  return new SystemError('ERR_TUN_BUSY', `the interface ${name} already exists`, {
    call: 'ioctl(TUNSETIFF)',
    errno: code,
    advice:
      'Another microperimeter runs in this network namespace: stop it, or give this one ' +
      'another interface name.',
  });
}

/**
 * Without TSO_ECN: a super-packet that carries CWR is then cut by the kernel, which knows that only
 * its first segment may keep the flag. USO6 comes along because the kernel refuses USO4 alone.
 * Returns whether UDP super-packets are on.
 */
function setOffloads(fd: Fd): boolean {
  const tcp = abi.TUN_F_CSUM | abi.TUN_F_TSO4;
  if (ioctl(fd, abi.TUNSETOFFLOAD, tcp | abi.TUN_F_USO4 | abi.TUN_F_USO6) === 0) return true;
  if (errno() !== constants.errno.EINVAL) throw callFailed('ioctl(TUNSETOFFLOAD)', errno());
  if (ioctl(fd, abi.TUNSETOFFLOAD, tcp) === 0) return false;
  throw new UnsupportedFeature('TUN segmentation offload', '2.6.27', errno());
}

/** Else the kernel would send its own router solicitations into the engine. */
function withoutIpv6(index: number): void {
  try {
    setLink(index, { ipv6AddressGeneration: 'none' });
  } catch (error) {
    if (!isIpv6Missing(error)) throw error;
  }
}

/** Header room in front of a slot's `at`, and what one read may return. */
const headerLength = abi.virtio_net_hdr.size;
/** One byte more than a packet can have, so that a longer one shows itself by its length. */
const readLength = headerLength + maximumPacketLength + 1;

/** IPv4's shortest header: nothing of a transport can start before. */
const minimumTransportAt = 20;
/** Where TCP keeps its header length (upper four bits, in words) and its CWR flag. */
const tcpDataOffsetAt = 12;
const tcpFlagsAt = 13;
const tcpCwr = 0x80;
const udpHeaderLength = 8;

class TunQueue implements PacketDevice {
  readonly direction: Direction;
  readonly interfaceIndex: number;
  /** Why reading stopped, when it was not for want of packets: an errno (EBADFD: device gone). */
  failure = 0;
  private readonly fd: Fd;
  private readonly bytes: Uint8Array;
  private readonly view: DataView;
  private readonly address: Address;
  private readonly header = allocate(headerLength);
  private readonly vector = allocate((1 + maximumPieces) * abi.iovec.size);
  private readonly vectorAddress = keepAddresses([this.vector.address]);
  /** Where each slot of the batch is read to. */
  private targets: readonly Address[] = [];
  private prepared: PacketBatch | null = null;

  constructor(fd: Fd, arena: Arena, direction: Direction, interfaceIndex: number) {
    this.fd = fd;
    this.direction = direction;
    this.interfaceIndex = interfaceIndex;
    this.bytes = arena.bytes;
    this.view = arena.view;
    this.address = addressOf(arena.bytes);
    setPointer(this.vector.view, abi.iovec.iov_base, this.header.address);
    this.vector.view.setUint32(abi.iovec.iov_len, headerLength, LITTLE_ENDIAN);
  }

  read(batch: PacketBatch): number {
    if (batch !== this.prepared) this.prepare(batch);
    const { capacity } = batch;
    const { fd, targets } = this;
    let count = 0;
    while (count < capacity) {
      const length = read(fd, targets[count], readLength);
      if (length < 0) {
        const code = errno();
        if (code !== EAGAIN && code !== EINTR) this.failure = code;
        break;
      }
      decodeVirtioHeader(this.view, length, batch, count);
      count++;
    }
    batch.count = count;
    return count;
  }

  private prepare(batch: PacketBatch): void {
    const first = this.address - headerLength;
    this.targets = keepAddresses(Array.from(batch.at, (at) => first + at));
    this.prepared = batch;
  }

  write(
    pieces: Pieces,
    gso: Gso,
    gsoSize: number,
    checksumStart: number,
    checksumOffset: number,
  ): Reason {
    const vector = this.vector.view;
    const { count, at, length } = pieces;
    let total = 0;
    for (let index = 0; index < count; index++) {
      const entry = (index + 1) * abi.iovec.size;
      setPointer(vector, entry + abi.iovec.iov_base, this.address + at[index]);
      vector.setUint32(entry + abi.iovec.iov_len, length[index], LITTLE_ENDIAN);
      total += length[index];
    }
    encodeVirtioHeader(this.header.view, gso, gsoSize, checksumStart, checksumOffset);
    if (gso !== Gso.None) {
      completeSuperHeader(
        this.header.view,
        this.bytes,
        at[0] + checksumStart,
        checksumStart,
        total,
      );
    }
    const written = writev(this.fd, this.vectorAddress[0], count + 1);
    return written < 0 ? deviceReason(errno()) : Reason.Ok;
  }
}

const { EAGAIN, EINTR, ENOBUFS, ENOMEM, EIO, ENETDOWN, ENODEV, EBADF } = constants.errno;
/** Not in node:os. A TUN descriptor whose device was deleted (drivers/net/tun.c). */
const EBADFD = 77;

/** The fate of a packet that the device did not take. */
export function deviceReason(code: number): Reason {
  switch (code) {
    case EAGAIN:
    case ENOBUFS:
    case ENOMEM:
      return Reason.DeviceFull;
    case EIO:
    case ENETDOWN:
    case ENODEV:
    case EBADF:
    case EBADFD:
      return Reason.DeviceDown;
    default:
      return Reason.DeviceRefused;
  }
}

/**
 * Fill row `index` of `batch` from the virtio header before `batch.at[index]`. `length` is what the
 * read returned, header included. The header is verified against it: the row's reason says how it
 * was wrong.
 */
export function decodeVirtioHeader(
  view: DataView,
  length: number,
  batch: PacketBatch,
  index: number,
): void {
  batch.length[index] = 0;
  batch.gso[index] = Gso.None;
  batch.gsoSize[index] = 0;
  batch.checksumStart[index] = 0;
  batch.checksumOffset[index] = 0;
  const packetLength = length - headerLength;
  if (packetLength < 0 || packetLength > maximumPacketLength) {
    batch.reason[index] = Reason.VirtioTooShort;
    return;
  }
  batch.length[index] = packetLength;
  const headerAt = batch.at[index] - headerLength;
  const flags = view.getUint8(headerAt + abi.virtio_net_hdr.flags);
  const gsoType =
    view.getUint8(headerAt + abi.virtio_net_hdr.gso_type) & ~abi.VIRTIO_NET_HDR_GSO_ECN;
  if (gsoType !== abi.VIRTIO_NET_HDR_GSO_NONE) {
    const size = view.getUint16(headerAt + abi.virtio_net_hdr.gso_size, LITTLE_ENDIAN);
    const gso = gsoOfType(gsoType);
    if (gso === Gso.None || size === 0) {
      batch.reason[index] = Reason.VirtioBadGso;
      return;
    }
    batch.gso[index] = gso;
    batch.gsoSize[index] = size;
  }
  if ((flags & abi.VIRTIO_NET_HDR_F_NEEDS_CSUM) !== 0) {
    const start = view.getUint16(headerAt + abi.virtio_net_hdr.csum_start, LITTLE_ENDIAN);
    const offset = view.getUint16(headerAt + abi.virtio_net_hdr.csum_offset, LITTLE_ENDIAN);
    if (start < minimumTransportAt || start + offset + 2 > packetLength) {
      batch.reason[index] = Reason.VirtioBadChecksum;
      return;
    }
    batch.checksumStart[index] = start;
    batch.checksumOffset[index] = offset;
  }
  batch.reason[index] = Reason.Ok;
}

/** Gso.None for what we never asked for: IPv6 segmentation and UDP fragmentation. */
function gsoOfType(type: number): Gso {
  if (type === abi.VIRTIO_NET_HDR_GSO_TCPV4) return Gso.Tcp4;
  if (type === abi.VIRTIO_NET_HDR_GSO_UDP_L4) return Gso.Udp;
  return Gso.None;
}

/**
 * Write a virtio header at the start of `view`. A complete checksum is not vouched for
 * (VIRTIO_NET_HDR_F_DATA_VALID stays 0): whoever receives the packet verifies it.
 */
export function encodeVirtioHeader(
  view: DataView,
  gso: Gso,
  gsoSize: number,
  checksumStart: number,
  checksumOffset: number,
): void {
  view.setUint8(
    abi.virtio_net_hdr.flags,
    checksumStart === 0 ? 0 : abi.VIRTIO_NET_HDR_F_NEEDS_CSUM,
  );
  view.setUint8(
    abi.virtio_net_hdr.gso_type,
    gso === Gso.Tcp4
      ? abi.VIRTIO_NET_HDR_GSO_TCPV4
      : gso === Gso.Udp
        ? abi.VIRTIO_NET_HDR_GSO_UDP_L4
        : abi.VIRTIO_NET_HDR_GSO_NONE,
  );
  view.setUint16(abi.virtio_net_hdr.hdr_len, 0, LITTLE_ENDIAN);
  view.setUint16(abi.virtio_net_hdr.gso_size, gsoSize, LITTLE_ENDIAN);
  view.setUint16(abi.virtio_net_hdr.csum_start, checksumStart, LITTLE_ENDIAN);
  view.setUint16(abi.virtio_net_hdr.csum_offset, checksumOffset, LITTLE_ENDIAN);
}

/**
 * What a super-packet's virtio header needs from its transport header at `transportAt`.
 *
 * hdr_len decides how the kernel lays the packet out: that many bytes contiguous, the rest in
 * pages. 0 would make it ask for 64 KiB in one piece (drivers/net/tun.c tun_alloc_skb), which is
 * slow and may fail. It must not exceed the packet. A CWR flag needs the ECN bit, so that a NIC
 * which cannot keep it to the first segment is not given the packet whole.
 */
function completeSuperHeader(
  header: DataView,
  bytes: Uint8Array,
  transportAt: number,
  checksumStart: number,
  total: number,
): void {
  let headers = checksumStart + udpHeaderLength;
  const type = header.getUint8(abi.virtio_net_hdr.gso_type);
  if (type === abi.VIRTIO_NET_HDR_GSO_TCPV4) {
    headers = checksumStart + (bytes[transportAt + tcpDataOffsetAt] >> 4) * 4;
    if ((bytes[transportAt + tcpFlagsAt] & tcpCwr) !== 0) {
      header.setUint8(abi.virtio_net_hdr.gso_type, type | abi.VIRTIO_NET_HDR_GSO_ECN);
    }
  }
  header.setUint16(abi.virtio_net_hdr.hdr_len, Math.min(headers, total), LITTLE_ENDIAN);
}
