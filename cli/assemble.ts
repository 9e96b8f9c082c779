/**
 * The only file that sees engine and linux together: from a configuration to a running agent. In
 * order: look at the host, open what is needed, attach the programs (they pass everything until the
 * engine says otherwise), start the data path, start telemetry. What fails undoes what was done.
 */
import { randomUUID } from 'node:crypto';
import { availableParallelism, hostname } from 'node:os';
import type { Policy } from '../engine/classifier/lookup.ts';
import { type Settings, tunnelPortsOf } from '../engine/config.ts';
import { countersByteLength } from '../engine/counters.ts';
import type { EngineOptions } from '../engine/engine.ts';
import { firewallColumnsByteLength } from '../engine/firewall-columns.ts';
import { flowColumnsByteLength } from '../engine/flow-columns.ts';
import { flowLogByteLength, flowLogRecords } from '../engine/flow-log.ts';
import { createGates } from '../engine/gate.ts';
import { busyPollMs } from '../engine/idle.ts';
import { Direction } from '../engine/io.ts';
import type { TelemetryWorkerData } from '../engine/telemetry-thread.ts';
import { createWaker } from '../linux/epoll.ts';
import { VerifierError } from '../linux/errors.ts';
import { Closers } from '../linux/fd.ts';
import { routeTo } from '../linux/netlink.ts';
import { type AttachedSteering, attachSteering } from '../linux/steering.ts';
import { createTun, type Tun } from '../linux/tun.ts';
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
import { builtInsOf, type Links, steeringPolicyOf, tunName } from './host-policy.ts';
import { findLinks } from './links.ts';
import type { Logger } from './log.ts';
import { firstGeneration, peerOptionsOf } from './policy.ts';
import { version } from './version.ts';

/** Source ports of the tunnel: enough to spread over a firewall's receive queues. */
const senders = 16;

function socketOptionsOf(config: Settings): TunnelSocketOptions {
  const [port, ingressPort] = tunnelPortsOf(config.tunnel);
  if (ingressPort === undefined) {
    const firewalls = config.firewalls.map(({ address }) => ({ address, port }));
    return { port, firewalls, senders };
  }
  const firewalls = config.firewalls.flatMap(({ address }) => [
    { address, port, direction: Direction.Egress },
    { address, port: ingressPort, direction: Direction.Ingress },
  ]);
  return { port, ingressPort, firewalls, senders };
}

function engineOptionsOf(config: Settings, policy: Policy, joinUdp: boolean): EngineOptions {
  return {
    flows: config.limits.flows,
    mtuLimit: config.tunnel.mtu === 0 ? 65535 : config.tunnel.mtu,
    peers: peerOptionsOf(config),
    policy,
    joinUdp,
    // With one processor nothing can come while we look.
    pollMs: config.limits.busyPoll && availableParallelism() > 1 ? busyPollMs : 0,
  };
}

function telemetryDataOf(
  config: Settings,
  gates: SharedArrayBuffer,
  counters: SharedArrayBuffer,
  columns: SharedArrayBuffer,
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
    ...(isElsewhere ? { endpoints: { probe: ha.probe, addresses, columns } } : {}),
  };
}

/** A kernel whose verifier refuses to carry flows still steers them to the engine. */
function attach(
  config: Settings,
  links: Links,
  tun: Tun,
  asked: AccelerationPlan,
): { plan: AccelerationPlan; steering: AttachedSteering } {
  try {
    const policy = steeringPolicyOf(config, links, tun, asked.acceleration);
    return { plan: asked, steering: attachSteering(policy) };
  } catch (error) {
    if (asked.acceleration === undefined || !(error instanceof VerifierError)) throw error;
    const plan = withoutAcceleration(error.message);
    return { plan, steering: attachSteering(steeringPolicyOf(config, links, tun, undefined)) };
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
    for (const firewall of config.firewalls) routeTo(firewall.address);
    const gates = createGates(config.firewalls.length);
    const gateMemory = gates[0]!.shared;
    const counters = new SharedArrayBuffer(countersByteLength);
    const columns = new SharedArrayBuffer(firewallColumnsByteLength(config.firewalls.length));
    const telemetry = telemetryDataOf(config, gateMemory, counters, columns);

    const tun = createTun({ name: tunName, queues: 4 * links.interfaces.length });
    closers.add(() => tun.close());
    const asked = planAcceleration(config, links);
    const join = asked.acceleration === undefined;
    const sockets = createTunnelSockets({ ...socketOptionsOf(config), join });
    closers.add(() => sockets.close());
    const waker = createWaker();
    closers.add(() => waker.close());
    const builtIns = builtInsOf(config, links);
    const { plan, steering } = attach(config, links, tun, asked);
    closers.add(() => steering.detach());

    const policy = { ...compiled.policy, builtIns, generation: firstGeneration };
    steering.setNetworks(networks, firstGeneration);
    const dataPath: DataPathStart = {
      queues: tun.fds.map((fd, queue) => ({
        fd,
        direction: queue % 2 === 0 ? Direction.Egress : Direction.Ingress,
        interfaceIndex: links.interfaces[(queue >> 1) % links.interfaces.length].index,
      })),
      sockets: {
        receive: sockets.receive,
        receiveIngress: sockets.receiveIngress,
        peers: sockets.peers,
      },
      wakeFd: waker.fd,
      controlFd: steering.controlFd,
      verdictFd: steering.verdictFd,
      carrier:
        plan.acceleration === undefined
          ? undefined
          : {
              recordsFd: steering.recordsFd,
              controlFd: steering.controlFd,
              flowsFd: steering.verdictFd,
              capacity: plan.acceleration.flows,
              peers: carrierPeersOf(sockets),
            },
      tunnel: config.tunnel,
      engine: engineOptionsOf(config, policy, tun.udpSegmentation),
      gates: gateMemory,
      counters,
      firewalls: columns,
      flows: new SharedArrayBuffer(flowColumnsByteLength(config.limits.flows)),
      flowLog: new SharedArrayBuffer(
        flowLogByteLength(config.log.flows === '' ? 0 : flowLogRecords),
      ),
      stop: new SharedArrayBuffer(Int32Array.BYTES_PER_ELEMENT),
    };
    return new Agent({
      inForce: { settings: config, rules, networks, policy },
      logger,
      links,
      gates,
      steering,
      plan,
      tun,
      dataPath,
      wake: () => waker.wake(),
      telemetry,
      closers,
    });
  } catch (error) {
    closers.closeAll();
    throw error;
  }
}
