/**
 * The programs on an interface with their maps, as the kernel's test run needs them: one TCP and
 * one UDP flow that egress opened, carried.
 */
import { tunnelTemplateOf } from '../../cli/tunnel-template.ts';
import { type Config, defaults } from '../../engine/config.ts';
import { Direction, KernelVerdict, SteeringMode } from '../../engine/io.ts';
import { loadProgram, mapValues, updateElement } from '../../linux/bpf/load.ts';
import { createMaps, type Maps } from '../../linux/bpf/maps.ts';
import {
  carriedPeer,
  carriedRecord,
  controlPage,
  flowKey,
  flowValue,
  heartbeatBias,
  type SteeringPolicy,
  ticksPerMs,
} from '../../linux/bpf/policy.ts';
import { nicProgram } from '../../linux/bpf/programs/nic.ts';
import { Closers } from '../../linux/fd.ts';
import { close } from '../../linux/syscall.ts';
import { address, type Ip, udp } from '../support/packets.ts';
import { type Outcome, runProgram } from './run-program.ts';

export const workload = '10.1.0.10';
const server = '10.2.0.20';
export const firewall = '10.9.0.4';
export const out: Ip = { source: workload, target: server };
export const back: Ip = { source: server, target: workload };
export const cookie = 0x1234_5678;
export const innerMtu = 1452;
const record = 5;
export const epoch = 77;
const capacity = 16;
/** The test run's device is the loopback. */
const interfaceIndex = 1;

type Tunnel = Config['tunnel'];
const vxlan = { ...defaults.tunnel.vxlan, egressVni: 801, ingressVni: 800, ingressPort: 4789 };
const tunnel = (encapsulation: Tunnel['encapsulation'], parts: Partial<Tunnel> = {}): Tunnel => ({
  ...defaults.tunnel,
  vxlan,
  encapsulation,
  mtu: 0,
  port: defaults.tunnel.port[encapsulation],
  ...parts,
});
export const profiles: Record<string, Tunnel> = {
  geneve: tunnel('geneve'),
  'geneve, Ethernet inside': tunnel('geneve', {
    geneve: { ...defaults.tunnel.geneve, inner: 'ethernet' },
  }),
  gwlb: tunnel('gwlb'),
  gcp: tunnel('gcp'),
  vxlan: tunnel('vxlan'),
};

function policyOf(settings: Tunnel): SteeringPolicy {
  return {
    interfaces: [{ name: 'lo', index: interfaceIndex, mac: new Uint8Array(6) }],
    tun: { fd: -1, index: interfaceIndex },
    firewalls: [{ address: address(firewall), port: settings.port }],
    tunnelPorts: [settings.port],
    returnFrom: [],
    telemetry: [],
    management: [],
    broadcasts: [],
    ipv6: 'pass',
    onAgentFailure: 'pass',
    onBoot: 'pass',
    heartbeatTimeoutMs: 700,
    acceleration: { tunnel: tunnelTemplateOf(settings), flows: capacity },
    pinDirectory: '/nowhere',
  };
}

function ethernet(packet: Uint8Array): Buffer {
  return Buffer.concat([Buffer.from('000000000000020000000001' + '0800', 'hex'), packet]);
}

/** Maps, both programs, and a TCP and a UDP flow that egress opened, carried. */
export class Bench {
  readonly policy: SteeringPolicy;
  readonly settings: Tunnel;
  private readonly closers = new Closers();
  private readonly fds: Maps;
  private readonly programs: readonly [number, number];
  readonly control: DataView;
  readonly records: DataView;

  constructor(settings: Tunnel) {
    this.settings = settings;
    this.policy = policyOf(settings);
    this.fds = createMaps(this.closers, capacity, 64, 16);
    this.control = new DataView(mapValues(this.fds.control, controlPage.size));
    this.records = new DataView(mapValues(this.fds.records, carriedRecord.size * capacity));
    this.programs = [
      loadProgram(nicProgram(this.policy, 0, Direction.Egress), this.fds),
      loadProgram(nicProgram(this.policy, 0, Direction.Ingress), this.fds),
    ];
    this.beat();
    this.mode(SteeringMode.Redirect);
    const peer = controlPage.peers + 2 * carriedPeer.size;
    this.control.setInt32(peer + carriedPeer.source, address(workload));
    this.control.setInt32(peer + carriedPeer.target, address(firewall));
    this.control.setUint32(peer + carriedPeer.interfaceIndex, interfaceIndex, true);
    this.control.setUint16(peer + carriedPeer.innerMtu, innerMtu, true);
    this.control.setUint16(peer + carriedPeer.port, settings.port);
    this.teach(6);
    this.teach(17);
    this.set(carriedRecord.epoch, epoch);
    this.records.setInt32(this.at(carriedRecord.cookie), cookie);
    this.records.setUint16(this.at(carriedRecord.sourcePort), 40_000);
    this.records.setUint16(this.at(carriedRecord.peer), 2, true);
    this.set(carriedRecord.interfaceIndex, interfaceIndex);
  }

  private at(offset: number): number {
    return record * carriedRecord.size + offset;
  }
  set(offset: number, value: number): void {
    this.records.setUint32(this.at(offset), value, true);
  }
  get(offset: number): number {
    return this.records.getUint32(this.at(offset), true);
  }
  beat(ageMs = 0): void {
    const [seconds, nanoseconds] = process.hrtime();
    const nowMs = seconds * 1000 + nanoseconds / 1e6 - ageMs;
    const ticks = heartbeatBias + Math.floor(nowMs * ticksPerMs);
    this.control.setFloat64(controlPage.heartbeat, ticks, true);
  }
  mode(mode: SteeringMode): void {
    this.control.setUint32(controlPage.mode, mode, true);
  }
  teach(protocol: number, verdict: KernelVerdict = KernelVerdict.Carry): void {
    const key = Buffer.alloc(flowKey.size);
    key.writeInt32BE(address(workload), flowKey.local);
    key.writeInt32BE(address(server), flowKey.remote);
    key.writeUInt16BE(1000, flowKey.localPort);
    key.writeUInt16BE(2000, flowKey.remotePort);
    key.writeUInt32LE(protocol, flowKey.protocol);
    const value = Buffer.alloc(flowValue.size);
    value.writeUInt32LE(verdict, flowValue.verdict);
    value.writeUInt32LE(record, flowValue.record);
    value.writeUInt32LE(epoch, flowValue.epoch);
    updateElement(this.fds.flows, key, value);
  }
  run(direction: Direction, packet: Uint8Array, gsoSize = 0): Outcome {
    this.beat();
    return this.runLate(direction, packet, gsoSize);
  }
  runLate(direction: Direction, packet: Uint8Array, gsoSize = 0): Outcome {
    return runProgram(this.programs[direction], ethernet(packet), gsoSize);
  }
  /** The tunnel header as the firewall returns it: as it came. */
  header(direction: Direction, ofCookie = cookie): Buffer {
    const { cookieMask, headers } = this.policy.acceleration!.tunnel;
    const bytes = Buffer.from(headers[direction]);
    const at = cookieMask.findIndex((byte) => byte !== 0);
    if (at < 0) return bytes;
    const mask = Buffer.from(cookieMask).readInt32BE(at);
    bytes.writeInt32BE(bytes.readInt32BE(at) | (ofCookie & mask), at);
    return bytes;
  }
  wrap(inner: Uint8Array, header: Uint8Array, from = firewall, to = workload): Buffer {
    const payload = Buffer.concat([header, inner]);
    return udp({ source: from, target: to }, 5555, this.settings.port, payload);
  }
  close(): void {
    for (const fd of this.programs) close(fd);
    this.closers.closeAll();
  }
}
