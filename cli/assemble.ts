/**
 * The only file that sees engine and linux together: from a configuration to a running agent. In
 * order: look at the host, open what is needed, attach the programs (they pass everything until the
 * engine says otherwise), start the data path, start telemetry. What fails undoes what was done.
 */
import { randomBytes, randomUUID } from 'node:crypto';
import { availableParallelism, constants, hostname } from 'node:os';
import type { Policy } from '../engine/classifier/lookup.ts';
import { type Settings, tunnelPortsOf } from '../engine/config.ts';
import { countersByteLength } from '../engine/counters.ts';
import type { EngineOptions } from '../engine/engine.ts';
import { firewallColumnsByteLength } from '../engine/firewall-columns.ts';
import { flowColumnsByteLength } from '../engine/flow-columns.ts';
import { flowLogByteLength, flowLogRecords } from '../engine/flow-log.ts';
import { createGates } from '../engine/gate.ts';
import { handoverByteLength } from '../engine/handover.ts';
import { busyPollMs } from '../engine/idle.ts';
import { Direction } from '../engine/io.ts';
import type { Spread } from '../engine/spread.ts';
import { tapByteLength } from '../engine/tap.ts';
import type { TelemetryWorkerData } from '../engine/telemetry-thread.ts';
import { receiverProgram, type TunnelLayout } from '../linux/bpf/programs/receive.ts';
import { createWaker } from '../linux/epoll.ts';
import { SystemError, VerifierError } from '../linux/errors.ts';
import { Closers } from '../linux/fd.ts';
import { routeTo } from '../linux/netlink.ts';
import { type AttachedSteering, attachSteering } from '../linux/steering.ts';
import { createTun, maximumTunQueues, type Tun } from '../linux/tun.ts';
import { createTunnelSockets, type TunnelSocketOptions } from '../linux/udp.ts';
import { formatAddress } from '../parsers/text.ts';
import {
  type AccelerationPlan,
  carrierPeersOf,
  planAcceleration,
  withoutAcceleration,
} from './acceleration.ts';
import { Agent } from './agent.ts';
import type { Compiled } from './compile.ts';
import { loadCredentials } from './credentials.ts';
import type { DataPathStart } from './data-path-thread.ts';
import { policyOf } from './data-paths.ts';
import { builtInsOf, type Links, steeringPolicyOf, tunName } from './host-policy.ts';
import { findLinks, sourceTo } from './links.ts';
import type { Logger } from './log.ts';
import { firstGeneration, peerOptionsOf } from './policy.ts';
import { version } from './version.ts';

/** Source ports of the tunnel: enough to spread over a firewall's receive queues. */
const senders = 16;

function socketOptionsOf(config: Settings, spread: Spread | undefined): TunnelSocketOptions {
  const [port, ingressPort] = tunnelPortsOf(config.tunnel);
  const { workers } = config.limits;
  const receiver = spread && receiverProgram(spread, layoutOf(config.tunnel));
  if (ingressPort === undefined) {
    const firewalls = config.firewalls.map(({ address }) => ({ address, port }));
    return { port, firewalls, senders, workers, receiver, awaitRoutes: true };
  }
  const firewalls = config.firewalls.flatMap(({ address }) => [
    { address, port, direction: Direction.Egress },
    { address, port: ingressPort, direction: Direction.Ingress },
  ]);
  return { port, ingressPort, firewalls, senders, workers, receiver, awaitRoutes: true };
}

function engineOptionsOf(
  config: Settings,
  policy: Policy,
  joinUdp: boolean,
  worker: number,
): EngineOptions {
  const { flows, workers } = config.limits;
  const peers = peerOptionsOf(config);
  const isFirst = worker === 0 || peers.probe === 'off';
  return {
    flows: Math.ceil(flows / workers),
    mtuLimit: config.tunnel.mtu === 0 ? 65535 : config.tunnel.mtu,
    peers: isFirst ? peers : { ...peers, probe: 'elsewhere' },
    policy: policyOf(policy, worker, workers),
    joinUdp,
    // With one processor nothing can come while we look.
    pollMs: config.limits.busyPoll && availableParallelism() > 1 ? busyPollMs : 0,
  };
}

function telemetryDataOf(
  config: Settings,
  gates: SharedArrayBuffer,
  counters: SharedArrayBuffer,
  columns: readonly SharedArrayBuffer[],
): TelemetryWorkerData {
  const { firewalls, ha } = config;
  const addresses = firewalls.map(({ address }) => formatAddress(address));
  const isElsewhere = peerOptionsOf(config).probe === 'elsewhere';
  const agent = { version, host: hostname(), instance: randomUUID(), startedMs: Date.now() };
  return {
    targets: firewalls.map(({ name, telemetry }) => ({
      url: telemetry.url,
      credentials: loadCredentials(telemetry),
      identity: { ...agent, firewall: name },
    })),
    schedule: config.telemetry,
    format: config.telemetry,
    gates,
    counters,
    columns,
    ...(isElsewhere ? { endpoints: { probe: ha.probe, addresses, columns: columns[0]! } } : {}),
  };
}

function spreadOf(workers: number): Spread | undefined {
  return workers === 1 ? undefined : { workers, seed: randomBytes(4).readInt32LE() };
}

/** GENEVE's and VXLAN's headers both have 8 bytes; Ethernet's has 14. */
function layoutOf({ encapsulation, geneve }: Settings['tunnel']): TunnelLayout {
  const isVxlan = encapsulation === 'vxlan';
  const hasEthernet = isVxlan || (encapsulation === 'geneve' && geneve.inner === 'ethernet');
  return { length: hasEthernet ? 8 + 14 : 8, options: !isVxlan };
}

/** Of the device, for each worker (linux/bpf/policy.ts). */
function queuesOf(workers: number, interfaces: number): number {
  const queues = 4 * interfaces;
  if (workers * queues <= maximumTunQueues) return queues;
  throw new SystemError(
    'ERR_TOO_MANY_QUEUES',
    `${workers} workers on ${interfaces} interfaces need ${workers * queues} queues`,
    {
      call: 'ioctl(TUNSETIFF)',
      errno: constants.errno.E2BIG,
      advice: `A TUN device has at most ${maximumTunQueues}: lower limits.workers.`,
    },
  );
}

/** A kernel whose verifier refuses to carry flows still steers them to the engine. */
function attach(
  config: Settings,
  links: Links,
  tun: Tun,
  asked: AccelerationPlan,
  spread: Spread | undefined,
): { plan: AccelerationPlan; steering: AttachedSteering } {
  const policyWith = ({ acceleration }: AccelerationPlan) =>
    steeringPolicyOf(config, links, tun, acceleration, spread);
  try {
    return { plan: asked, steering: attachSteering(policyWith(asked)) };
  } catch (error) {
    if (asked.acceleration === undefined || !(error instanceof VerifierError)) throw error;
    const plan = withoutAcceleration(error.message);
    return { plan, steering: attachSteering(policyWith(plan)) };
  }
}

/** One firewall that can be reached will do; the others are used when they can be. */
function checkRoutes({ firewalls }: Settings, logger: Logger): void {
  const lost = firewalls.filter(({ address }) => sourceTo(address) === 0);
  const [first] = lost;
  // Throws a sentence.
  if (first !== undefined && lost.length === firewalls.length) routeTo(first.address);
  for (const { name } of lost) {
    logger.warn(`there is no route to the firewall ${name}: it is used when there is one`);
  }
}

/**
 * Start the agent. Until the firewall has taken the first telemetry `onBoot` rules.
 *
 * @throws SystemError when the host lacks something; nothing is left behind then
 */
export async function assemble(compiled: Compiled, logger: Logger): Promise<Agent> {
  const { networks, rules, settings: config } = compiled;
  const closers = new Closers();
  try {
    const links = findLinks(config);
    checkRoutes(config, logger);
    const gates = createGates(config.firewalls.length);
    const gateMemory = gates[0]!.shared;
    const { workers } = config.limits;
    const counters = new SharedArrayBuffer(workers * countersByteLength);
    const columns = Array.from(
      { length: workers },
      () => new SharedArrayBuffer(firewallColumnsByteLength(config.firewalls.length)),
    );
    const telemetry = telemetryDataOf(config, gateMemory, counters, columns);

    const spread = spreadOf(workers);
    const queueCount = queuesOf(workers, links.interfaces.length);
    const tun = createTun({ name: tunName, queues: workers * queueCount });
    closers.add(() => tun.close());
    const asked = planAcceleration(config, links);
    const join = asked.acceleration === undefined;
    const sockets = createTunnelSockets({ ...socketOptionsOf(config, spread), join });
    closers.add(() => sockets.close());
    const wakers = Array.from({ length: workers }, () => {
      const waker = createWaker();
      closers.add(() => waker.close());
      return waker;
    });
    const builtIns = builtInsOf(config, links);
    const { plan, steering } = attach(config, links, tun, asked, spread);
    closers.add(() => steering.detach());

    const policy = {
      ...compiled.policy,
      builtIns,
      generation: firstGeneration,
      reclassifyBefore: 0,
    };
    steering.setNetworks(networks, firstGeneration);
    const meeting = spread && {
      spread,
      memory: new SharedArrayBuffer(handoverByteLength(workers)),
      wakeFds: wakers.map(({ fd }) => fd),
      probes: columns[0]!,
    };
    const peers = plan.acceleration === undefined ? [] : carrierPeersOf(sockets.peers);
    if (peers.length > 0) steering.carrying.start(peers);
    const carrier = plan.acceleration && {
      recordsFd: steering.recordsFd,
      controlFd: steering.controlFd,
      flowsFd: steering.verdictFd,
      capacity: plan.acceleration.flows,
      peers,
    };
    const dataPaths = wakers.map(
      (waker, worker): DataPathStart => ({
        others: meeting && { ...meeting, self: worker },
        queues: tun.fds.slice(worker * queueCount, (worker + 1) * queueCount).map((fd, queue) => ({
          fd,
          direction: queue % 2 === 0 ? Direction.Egress : Direction.Ingress,
          interfaceIndex: links.interfaces[(queue >> 1) % links.interfaces.length].index,
        })),
        sockets: sockets.workers[worker]!,
        wakeFd: waker.fd,
        controlFd: steering.controlFd,
        verdictFd: steering.verdictFd,
        carrier,
        tunnel: config.tunnel,
        engine: engineOptionsOf(config, policy, tun.udpSegmentation, worker),
        gates: gateMemory,
        counters,
        firewalls: columns[worker]!,
        flows: new SharedArrayBuffer(
          flowColumnsByteLength(Math.ceil(config.limits.flows / workers)),
        ),
        flowLog: new SharedArrayBuffer(
          flowLogByteLength(config.log.flows === '' ? 0 : flowLogRecords),
        ),
        tap: new SharedArrayBuffer(tapByteLength),
        stop: new SharedArrayBuffer(Int32Array.BYTES_PER_ELEMENT),
      }),
    );
    return new Agent({
      inForce: { settings: config, rules, networks, policy },
      logger,
      links,
      gates,
      steering,
      plan,
      tun,
      dataPaths,
      wakes: wakers.map((waker) => () => waker.wake()),
      counters,
      senders: sockets.peers,
      spread,
      telemetry,
      closers,
    });
  } catch (error) {
    closers.closeAll();
    throw error;
  }
}
