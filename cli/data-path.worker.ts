/**
 * Entry of the data-path worker: wraps the descriptors it was given and breathes until it is told
 * to stop. It sends no messages and takes none; the main thread sees its counters in shared memory
 * and its end as the worker's exit.
 */
import { receiveMessageOnPort, workerData } from 'node:worker_threads';
import { createArena } from '../engine/arena.ts';
import type { Policy } from '../engine/classifier/lookup.ts';
import { createEngine, datagramBatch, deviceBatch, type Others } from '../engine/engine.ts';
import { openGates } from '../engine/gate.ts';
import { noCarrier, openCarrier } from '../linux/carrier.ts';
import { openClock } from '../linux/clock.ts';
import { openReadiness, openWaker } from '../linux/epoll.ts';
import { openSteering } from '../linux/steering.ts';
import { openTunQueue } from '../linux/tun.ts';
import { openTunnelSocket, receiversOf } from '../linux/udp.ts';
import { accelerateChecksum } from '../parsers/checksum.ts';
import { createEncapsulation, type DataPathData, type WorkerData } from './data-path.ts';

const data = workerData as DataPathData;
const arena = createArena(deviceBatch, datagramBatch);
accelerateChecksum(arena.memory, arena.view);
const queues = data.queues.map((queue) =>
  openTunQueue(queue.fd, arena, queue.direction, queue.interfaceIndex),
);
const io = {
  devices: queues.slice(0, queues.length / 2),
  openers: queues.slice(queues.length / 2),
  socket: openTunnelSocket(data.sockets, arena, deviceBatch),
  steering: openSteering(data.controlFd, data.verdictFd, data.others?.self),
  carrier: data.carrier === undefined ? noCarrier : openCarrier(data.carrier),
  clock: openClock(),
  readiness: openReadiness(
    [...data.queues.map((queue) => queue.fd), ...receiversOf(data.sockets)],
    data.wakeFd,
  ),
};
function othersOf({ wakeFds, ...others }: WorkerData): Others {
  const wakers = wakeFds.map((fd) => openWaker(fd));
  return { ...others, wake: (worker) => wakers[worker]() };
}

const loop = createEngine(
  io,
  arena,
  createEncapsulation(data.tunnel),
  data.engine,
  openGates(data.gates),
  data.counters,
  data.firewalls,
  data.flows,
  data.flowLog,
  data.others && othersOf(data.others),
  data.tap,
);
// The loop never returns to the event loop: messages are fetched. The last one counts.
loop.run(new Int32Array(data.stop), () => {
  let policy: Policy | undefined;
  for (;;) {
    const received = receiveMessageOnPort(data.policies);
    if (received === undefined) return policy;
    policy = received.message;
  }
});
