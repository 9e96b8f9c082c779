/**
 * What the TUN and the tunnel's sockets need of the kernel, found by trying. Asked after something
 * failed, to say what is missing, or before anything starts; nothing is remembered.
 */
import { constants } from 'node:os';
import * as abi from './abi/net.ts';
import { UnsupportedFeature } from './errors.ts';
import {
  allocate,
  close,
  errno,
  type Fd,
  ioctl,
  LITTLE_ENDIAN,
  open,
  setsockopt,
  socket,
} from './syscall.ts';

type Feature = {
  readonly name: string;
  /** First kernel that has it. */
  readonly since: string;
  /** 0 when it is there, else the errno of the attempt. */
  readonly probe: () => number;
};

export const features = {
  tunQueues: { name: 'TUN queues with virtio headers', since: '3.8', probe: probeTunQueues },
  udpSegmentation: {
    name: 'UDP_SEGMENT',
    since: '4.18',
    probe: () => probeUdpOption(abi.UDP_SEGMENT),
  },
  udpJoining: { name: 'UDP_GRO', since: '5.0', probe: () => probeUdpOption(abi.UDP_GRO) },
} as const satisfies Record<string, Feature>;

/** @throws UnsupportedFeature */
export function requireFeature(feature: Feature): void {
  const code = feature.probe();
  if (code !== 0) throw new UnsupportedFeature(feature.name, feature.since, code);
}

function probeTunQueues(): number {
  const fd = open('/dev/net/tun', abi.O_RDWR | abi.O_CLOEXEC, 0);
  if (fd < 0) return errno();
  const code = missingFlags(fd, abi.IFF_VNET_HDR | abi.IFF_MULTI_QUEUE);
  close(fd);
  return code;
}

function missingFlags(fd: Fd, wanted: number): number {
  const flags = allocate(4);
  if (ioctl(fd, abi.TUNGETFEATURES, flags.address) < 0) return errno();
  const has = flags.view.getUint32(0, LITTLE_ENDIAN) & wanted;
  return has === wanted ? 0 : constants.errno.EINVAL;
}

/** 0 turns either option off, which is how a socket starts. */
function probeUdpOption(option: number): number {
  const fd = socket(abi.AF_INET, abi.SOCK_DGRAM | abi.SOCK_CLOEXEC, 0);
  if (fd < 0) return errno();
  const value = allocate(4);
  const code = setsockopt(fd, abi.SOL_UDP, option, value.address, 4) < 0 ? errno() : 0;
  close(fd);
  return code;
}
