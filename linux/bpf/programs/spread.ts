/**
 * Which data-path worker a packet goes to: the hash of engine/spread.ts, of which this is the twin.
 * Where they differed, packets would go by way of another worker, slower and as right.
 */
import {
  add,
  and,
  type Item,
  load8,
  load16,
  load32,
  load64,
  lsh,
  mod32,
  mov32,
  mul32,
  R1,
  R2,
  R3,
  R9,
  R10,
  rsh32,
  store32,
  xor32,
} from '../asm.ts';
import {
  controlPage,
  flowKey,
  queuesPerWorker,
  type SteeringPolicy,
  type SteeringSpread,
} from '../policy.ts';

const factors = { ports: 0x9e3779b1 | 0, first: 0x85ebca6b | 0, second: 0xc2b2ae35 | 0 } as const;

/**
 * From the flow key on the stack at `keyAt`, whose ports are 0 where they are not TCP's or UDP's,
 * to the number of a worker in R1 and in the word at `workerAt`. Uses R1 to R3.
 */
export function chooseWorker(spread: SteeringSpread, keyAt: number, workerAt: number): Item[] {
  return [
    load16(R1, R10, keyAt + flowKey.localPort),
    load16(R2, R10, keyAt + flowKey.remotePort),
    xor32.reg(R1, R2),
    mul32.imm(R1, factors.ports),
    load32(R2, R10, keyAt + flowKey.local),
    load32(R3, R10, keyAt + flowKey.remote),
    xor32.reg(R1, R2),
    xor32.reg(R1, R3),
    load8(R2, R10, keyAt + flowKey.protocol),
    xor32.reg(R1, R2),
    xor32.imm(R1, spread.seed),
    ...foldDown(16),
    mul32.imm(R1, factors.first),
    ...foldDown(13),
    mul32.imm(R1, factors.second),
    ...foldDown(16),
    mod32.imm(R1, spread.workers),
    store32(R10, workerAt, R1),
  ];
}

/** R1: of the worker that would get the packet; R9 is the control page. */
export function loadHeartbeat({ spread }: SteeringPolicy, workerAt: number): Item[] {
  if (spread === undefined) return [load64(R1, R9, controlPage.heartbeat)];
  return [
    load32(R1, R10, workerAt),
    // The verifier does not see that it is small.
    and.imm(R1, 0x0f),
    lsh.imm(R1, 3),
    add.reg(R1, R9),
    load64(R1, R1, controlPage.heartbeats),
  ];
}

/** The mark in R1 becomes that of the same queue of the packet's worker. */
export function addWorkersQueues(policy: SteeringPolicy, workerAt: number): Item[] {
  if (policy.spread === undefined) return [];
  return [load32(R2, R10, workerAt), mul32.imm(R2, queuesPerWorker(policy)), add.reg(R1, R2)];
}

function foldDown(bits: number): Item[] {
  return [mov32.reg(R2, R1), rsh32.imm(R2, bits), xor32.reg(R1, R2)];
}
