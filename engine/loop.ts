/**
 * The breath: heartbeat, gate, read, redirect, reinject, tick, and sleep only when there was
 * nothing to do. One thread runs it and does nothing else; what it shares with others is memory
 * (gate, counters, a stop word), read or written once a breath.
 */
import { Reason } from '../parsers/reason.ts';
import { decideKnown } from './admit.ts';
import { decidesWhileClosed, type Policy } from './classifier/lookup.ts';
import { Gauge, type PublishedCounters, publish } from './counters.ts';
import { Encapsulator } from './encapsulate.ts';
import { noFlow, OnFailure } from './flows.ts';
import { Handed, type Handover } from './handover.ts';
import { Idle } from './idle.ts';
import {
  createDatagramBatch,
  createPacketBatch,
  type DatagramBatch,
  type PacketBatch,
  type PacketDevice,
  SteeringMode,
} from './io.ts';
import { GateView, type Path } from './path.ts';
import { Availability } from './peers.ts';
import { Redirect } from './redirect.ts';
import { Reinject } from './reinject.ts';
import { tickMs } from './ticks.ts';

/** Longest sleep. The kernel takes the engine for dead after several of these. */
const sleepMs = 100;
/** Flow records looked at per tick: a full default table is seen through in 7 s. */
const sweepPerTick = 16384;
/** Flow records decided again per tick, each a lookup in the rules: some milliseconds at most. */
const decideAgainPerTick = 8192;
/**
 * A breath takes this part of a batch from the queues of packets that open a connection: each costs
 * more than one of a known flow, and a flood of them must leave time for those.
 */
const openersShare = 4;
/**
 * Batches of datagrams in a breath. What two queues and the openers send in one comes back one by
 * one where nothing joins it; left behind, it would overflow the socket.
 */
const receiveRounds = 6;
/** After a stop: how long packets that are on their way back are still delivered. */
const drainMs = 200;
/** How often the path MTU is asked for again without being told, ticks. */
const mtuTicks = 100;
/** The same where the kernel carries flows: what it sends too large comes back as no error. */
const carriedMtuTicks = 5;
/**
 * A device of ours is gone: the kernel goes on redirecting into nothing as long as it hears our
 * heart, so the data path must end.
 */
class DeviceFailure extends Error {
  readonly code = 'ERR_DEVICE_FAILURE';

  constructor(errno: number) {
    super(`the TUN device cannot be read any more (errno ${errno}): was it deleted?`);
    this.name = 'DeviceFailure';
  }
}

export class Loop {
  private readonly path: Path;
  private readonly shared: PublishedCounters;
  private readonly mtuLimit: number;
  private readonly packets: PacketBatch;
  private readonly openers: PacketBatch;
  private readonly datagrams: DatagramBatch;
  private readonly encapsulator: Encapsulator;
  private readonly redirect: Redirect;
  private readonly reinject: Reinject;
  private readonly idle: Idle;
  private rulesHold = false;
  /** Of the kernel; -1: to be set. */
  private mode: SteeringMode | -1 = -1;
  private availability: Availability = Availability.Before;
  private stopping = false;
  private lastTick = -1;
  /** Where to go on deciding flows again; noFlow: none are to be. */
  private decideAgainAt = noFlow;
  private lastMtuTick = 0;

  /**
   * @param mtuLimit configured limit of the outer packet; the path's own may be lower
   * @param pollMs how long to look for more before each sleep (engine/idle.ts)
   */
  constructor(path: Path, shared: PublishedCounters, mtuLimit: number, pollMs = 0) {
    this.path = path;
    this.shared = shared;
    this.mtuLimit = mtuLimit;
    const slots = path.arena.deviceSlots;
    this.packets = createPacketBatch(slots);
    this.openers = createPacketBatch(slots.subarray(0, Math.ceil(slots.length / openersShare)));
    this.datagrams = createDatagramBatch(path.arena.datagramSlots);
    this.encapsulator = new Encapsulator(path);
    this.redirect = new Redirect(path, this.encapsulator);
    this.reinject = new Reinject(path);
    this.idle = new Idle(path.io.clock, path.io.readiness, pollMs);
    this.adopt(path.policy);
    this.updateMtu();
  }

  /** One round. Returns how many packets and datagrams were read; 0 means that it may sleep. */
  breathe(): number {
    const { path } = this;
    const { io } = path;
    const nowMs = io.clock.now();
    path.nowTick = Math.floor(nowMs / tickMs);
    path.tap.look();
    path.carried.beginBreath();
    // Before the heart beats, which is what makes the kernel heed the mode.
    this.lookAtGate(nowMs);
    io.steering.heartbeat(nowMs);
    let work = 0;
    for (let queue = 0; queue < path.devices.length; queue++) {
      const device = path.devices[queue];
      path.carried.beforeQueue(device.direction);
      const read = this.take(device, this.packets, queue);
      const isEmpty = read < this.packets.capacity;
      if (isEmpty) path.carried.afterEmptyQueue(device.direction, queue >> 1);
      work += read;
    }
    for (let queue = 0; queue < io.openers.length; queue++) {
      work += this.take(io.openers[queue], this.openers, queue);
    }
    if (this.encapsulator.narrowed) this.updateMtu();
    work += this.receive();
    if (path.handover !== undefined) work += this.takeHanded(path.handover);
    if (path.peers.conclude(nowMs)) this.lookAtGate(nowMs);
    if (path.nowTick !== this.lastTick) this.tick();
    path.tap.publish();
    return work;
  }

  /** Reinject what has come back; as much in a breath as the queues can have sent in one. */
  private receive(): number {
    const { datagrams } = this;
    const { carried } = this.path;
    let total = 0;
    carried.beforeSocket();
    for (let round = 0; round < receiveRounds; round++) {
      const received = this.path.io.socket.receive(datagrams);
      total += received;
      if (received > 0) {
        this.reinject.process(datagrams);
        carried.settle();
      }
      if (received < datagrams.capacity) {
        carried.afterEmptySocket();
        break;
      }
    }
    return total;
  }

  /** Treat what other workers have given, as if it had been read here. */
  private takeHanded(handover: Handover): number {
    const { redirect, reinject } = this;
    const slots = this.path.arena.deviceSlots;
    redirect.held.reclaim();
    let taken = 0;
    while (taken < slots.length && handover.take(slots[taken])) {
      const at = slots[taken++];
      if (handover.kind === Handed.Packet) redirect.processHanded(handover, at);
      else reinject.processHanded(handover, at);
    }
    if (taken === 0) return 0;
    this.encapsulator.flush();
    reinject.flush();
    return taken;
  }

  /** Nothing to do: sleep, unless another worker has given something meanwhile. */
  private wait(timeoutMs: number, handled: number): void {
    const { handover } = this.path;
    if (handover?.fallAsleep() === false) return;
    this.idle.wait(timeoutMs, handled);
    handover?.awake();
  }

  /** Redirect what `device` has for the direction and interface of `queue`; how much it was. */
  private take(device: PacketDevice, batch: PacketBatch, queue: number): number {
    const read = device.read(batch);
    if (read === 0) return 0;
    this.redirect.process(batch, this.path.devices[queue], queue >> 1);
    this.encapsulator.flush();
    this.path.carried.settle();
    return read;
  }

  /**
   * Breathe until `stop[0]` is not 0, then let everything pass for a moment in which answers still
   * come back. Sleeps in the kernel while there is nothing to do. `nextPolicy` is asked once a tick
   * for a policy to put in the place of the present one.
   */
  run(stop: Int32Array, nextPolicy: () => Policy | undefined): void {
    const { io, peers } = this.path;
    const { clock } = io;
    let tick = -1;
    let handled = 0;
    while (Atomics.load(stop, 0) === 0) {
      const work = this.breathe();
      handled += work;
      if (work === 0) {
        this.wait(Math.min(sleepMs, peers.idleMs(clock.now())), handled);
        handled = 0;
      }
      if (tick === this.lastTick) continue;
      tick = this.lastTick;
      const policy = nextPolicy();
      if (policy !== undefined) this.replacePolicy(policy);
    }
    this.stopping = true;
    const end = clock.now() + drainMs;
    while (clock.now() < end) {
      if (this.breathe() === 0) this.wait(10, 0);
    }
    this.reinject.expireHeld(Number.POSITIVE_INFINITY);
    this.path.flows.writeStop();
    this.publish();
  }

  /** For new flows; those that are known keep their verdict, unless it is to decide them again. */
  replacePolicy(policy: Policy): void {
    this.path.policy = policy;
    if (policy.reclassifyBefore === policy.generation) {
      this.path.carried.endAll();
      this.decideAgainAt = 0;
    }
    this.adopt(policy);
  }

  private adopt(policy: Policy): void {
    const { io, peers } = this.path;
    this.rulesHold = decidesWhileClosed(policy);
    for (const set of policy.firewalls) peers.choice.watch(set);
    io.steering.adopt(policy.generation);
  }

  /**
   * Closed, the kernel decides alone where it can: pass or drop. Where a rule says otherwise for
   * its connections, they all come up.
   */
  private lookAtGate(nowMs: number): void {
    const { path } = this;
    const { policy } = path;
    const availability = path.peers.look(nowMs);
    this.availability = availability;
    const isDown = availability === Availability.FirewallDown;
    const before = this.stopping || availability === Availability.Before;
    const isBoot = policy.onBoot === OnFailure.Drop && !path.peers.everUsable;
    path.onLoss = isDown ? policy.onFirewallDown : policy.onTelemetryLoss;
    path.passedReason = isDown ? Reason.PassedFirewallDown : Reason.PassedGateClosed;
    path.droppedReason = isDown ? Reason.DroppedFirewallDown : Reason.DroppedGateClosed;
    const drops = path.onLoss === OnFailure.Drop;
    let view: GateView = GateView.Open;
    let mode: SteeringMode = SteeringMode.Redirect;
    if (isBoot && !this.stopping) {
      // No rule softens it, and it has no grace: the kernel drops by itself.
      path.onLoss = policy.onBoot;
      view = GateView.Closed;
      mode = SteeringMode.Drop;
    } else if (this.stopping || availability !== Availability.Usable) {
      view = before || !(drops || this.rulesHold) ? GateView.Pass : GateView.Closed;
      if (view === GateView.Pass) mode = SteeringMode.Pass;
      else mode = this.rulesHold ? SteeringMode.RedirectAll : SteeringMode.Drop;
    }
    if (view === GateView.Pass && path.gate !== view) this.redirect.passHeld();
    path.gate = view;
    path.peers.tellCarrier(path.io.carrier, path.tap.points !== 0);
    if (mode === this.mode) return;
    this.mode = mode;
    path.io.steering.setMode(mode);
  }

  private tick(): void {
    const { path } = this;
    this.lastTick = path.nowTick;
    for (const { failure } of path.devices) {
      if (failure !== 0) throw new DeviceFailure(failure);
    }
    path.flows.sweep(path.nowTick, sweepPerTick);
    if (this.decideAgainAt !== noFlow) {
      this.decideAgainAt = decideKnown(path, this.decideAgainAt, decideAgainPerTick);
    }
    this.redirect.expireHeld(path.nowTick);
    this.reinject.expireHeld(path.nowTick);
    const every = path.io.carrier.capacity > 0 ? carriedMtuTicks : mtuTicks;
    if (path.nowTick - this.lastMtuTick >= every) this.updateMtu();
    this.publish();
  }

  private updateMtu(): void {
    const { path } = this;
    this.encapsulator.narrowed = false;
    this.lastMtuTick = path.nowTick;
    path.peers.updateMtu(path.io.socket, this.mtuLimit);
  }

  private publish(): void {
    const { counters, flows, peers, policy } = this.path;
    counters.gauges[Gauge.Flows] = flows.count;
    counters.gauges[Gauge.FlowsEvicted] = flows.evicted;
    counters.gauges[Gauge.InnerMtu] = peers.smallestMtu;
    counters.gauges[Gauge.Availability] = this.availability;
    counters.gauges[Gauge.SteeringMode] = this.mode;
    counters.gauges[Gauge.PolicyGeneration] = policy.generation;
    counters.gauges[Gauge.SegmentationOff] = this.path.io.socket.segmentation ? 0 : 1;
    counters.gauges[Gauge.Breaths]++;
    publish(counters, this.shared);
  }
}
