/**
 * The whole engine over time: packets and answers in random order while the gate opens and closes,
 * policies are replaced, the path narrows, the kernel refuses, flows age and are evicted.
 */
import { GateCause } from '../../engine/gate.ts';
import { GateView } from '../../engine/path.ts';
import { accelerateChecksum } from '../../parsers/checksum.ts';
import { Reason } from '../../parsers/reason.ts';
import { Answers, directionOf, Known } from './answers.ts';
import { decode } from './decode.ts';
import { feedAndJudge } from './judge.ts';
import { settle, settleAll } from './judge-held.ts';
import { breatheAndJudge } from './judge-reinject.ts';
import { Mutator } from './mutate.ts';
import { policies } from './policies.ts';
import { type Random, seedCrypto } from './random.ts';
import { packetSamples, type Sample } from './samples.ts';
import { type Fuzzer, must, type Trial } from './trial.ts';
import { batchSize, createFuzzArena, createWorld, type World } from './world.ts';

const stepsPerCase = 60;
const deviceRefusals = [Reason.DeviceFull, Reason.DeviceDown, Reason.DeviceRefused];
const socketRefusals = [
  Reason.SocketFull,
  Reason.SocketUnreachable,
  Reason.SocketTooBig,
  Reason.SocketRefused,
];
const waits = [0, 0, 1, 99, 100, 1000, 1100, 11_000, 31_000, 130_000, 800_000];
const mtus = [1500, 1500, 1400, 576, 9000, 116];
const causes = Object.values(GateCause).filter((cause) => cause !== GateCause.Open);

class Sequence {
  private readonly world: World;
  private readonly random: Random;
  private readonly inputs: Sample[];
  private readonly known = new Known(true);
  private readonly mutator: Mutator;
  private readonly answers: Answers;
  private generation = 1;
  private reclassifyBefore = 0;

  constructor(world: World, { inputs, random }: Trial, samples: readonly Sample[]) {
    this.world = world;
    this.random = random;
    this.inputs = inputs;
    this.mutator = new Mutator(random, samples);
    this.answers = new Answers(random, this.known);
    const refusing = random.once(3) ? 12 : 0;
    const refuse = (reasons: readonly Reason[]) => () =>
      refusing > 0 && random.once(refusing) ? random.pick(reasons) : Reason.Ok;
    for (const device of world.devices) device.refuse = refuse(deviceRefusals);
    world.socket.refuse = refuse(socketRefusals);
  }

  step(): void {
    const { random, world } = this;
    switch (random.below(10)) {
      case 0:
        return this.batch();
      case 1:
        this.happen();
        return;
      case 2:
      case 3:
      case 4: {
        const source = this.answers.source();
        const arrived = this.answers.arrive(world, this.answers.next(), source);
        for (const bytes of arrived) this.inputs.push(asInput(bytes));
        return breatheAndJudge(world, this.known, arrived, source, false);
      }
      default: {
        const sample = random.once(3) ? this.mutator.next() : this.mutator.pick();
        this.inputs.push(sample);
        const reason = feedAndJudge(world, sample, directionOf(sample.bytes));
        this.known.noteFirst(world, sample.bytes, reason);
        this.known.note(world);
      }
    }
  }

  /** Several in one breath, by both devices; only such as are one packet each, whatever happens. */
  private batch(): void {
    const { random, world } = this;
    settle(world);
    let count = 0;
    for (let i = 0; i < 2 * batchSize; i++) {
      const sample = random.once(2) ? this.mutator.next() : this.mutator.pick();
      const { inbox } = world.devices[directionOf(sample.bytes)];
      if (sample.gso !== 0 || sample.bytes.length > world.path.peers.smallestMtu) continue;
      if (isFragment(sample)) continue;
      if (inbox.length === batchSize) continue;
      inbox.push(sample);
      this.inputs.push(sample);
      count++;
    }
    const total = world.breathe().reduce((sum, packets) => sum + packets, 0);
    must(total === count, () => `${count} packets in a batch, ${total} counted`);
    const gate = world.path.gate;
    const sends = world.socket.sent.length;
    must(gate === GateView.Open || sends === 0, () => 'sent while the gate is closed');
    this.known.note(world);
  }

  private replacePolicy(): void {
    const { random, world } = this;
    const generation = ++this.generation;
    if (random.once(2)) this.reclassifyBefore = generation;
    const { reclassifyBefore } = this;
    world.loop.replacePolicy({ ...random.pick(policies), generation, reclassifyBefore });
  }

  /** Something that is no packet. */
  private happen(): void {
    const { random, world } = this;
    switch (random.below(6)) {
      case 0:
        return world.gate.close(random.once(30) ? GateCause.Stopping : random.pick(causes));
      case 1:
      case 2:
        world.gate.renew(world.clock.nowMs + random.pick([50, 5000, 3_600_000]));
        return;
      case 3:
        world.socket.mtu = random.pick(mtus);
        return;
      case 4:
        return this.replacePolicy();
      default:
        world.clock.nowMs += random.pick(waits);
    }
  }
}

function isFragment({ bytes }: Sample): boolean {
  return ['first', 'later'].includes(decode(bytes)?.part ?? '');
}

function asInput(bytes: Buffer): Sample {
  return { name: 'datagram', bytes, gso: 0, gsoSize: 0, checksumStart: 0, checksumOffset: 0 };
}

/** Every record is found by its own key, and there are as many as are said to be. */
function checkTable({ path }: World): void {
  const { flows } = path;
  const { addressA, addressB, ports, protocol, used } = flows.columns;
  let count = 0;
  for (let flow = 0; flow < flows.capacity; flow++) {
    if (used[flow] === 0) continue;
    count++;
    const [a, b, word] = [addressA[flow], addressB[flow], ports[flow]];
    const found = flows.find(a, b, word >>> 16, word & 0xffff, protocol[flow]);
    must(found === flow, () => `flow ${flow} is found as ${found}`);
    const back = flows.find(b, a, word & 0xffff, word >>> 16, protocol[flow]);
    must(back === flow, () => `the other direction of flow ${flow} is found as ${back}`);
  }
  must(count === flows.count, () => `${count} records, ${flows.count} counted`);
}

function create(sabotage: (world: World, random: Random) => void) {
  const samples = packetSamples().filter(isPlain);
  const arena = createFuzzArena();
  // As in the data path's worker; the other fuzzers go through the guarded view byte by byte.
  accelerateChecksum(arena.memory, arena.view);
  return (trial: Trial) => {
    const { random } = trial;
    seedCrypto(random);
    const flows = random.pick([4, 8, 64]);
    const world = createWorld(arena, { policy: random.pick(policies), flows, mtu: 1500 });
    const sequence = new Sequence(world, trial, samples);
    for (let step = 0; step < stepsPerCase; step++) {
      sequence.step();
      sabotage(world, random);
      checkTable(world);
    }
    settleAll(world);
  };
}

/** Large ones have their own fuzzer, and hosts that talk to themselves no direction. */
function isPlain({ bytes }: Sample): boolean {
  const packet = decode(bytes);
  return bytes.length < 6000 && packet?.source !== packet?.target;
}

export const sequences: Fuzzer = {
  name: 'sequences',
  promise: 'whatever happens in between: each packet counted once, answers alone let in',
  smoke: 250,
  create: () => create(() => {}),
};

/** A record of the flow table gets another address behind its back. */
export const tableCanary: Fuzzer = {
  name: 'canary-table',
  promise: 'a record that its key does not find is found out',
  smoke: 50,
  canary: true,
  create: () =>
    create((world, random) => {
      const { addressA, used } = world.path.flows.columns;
      if (used[0] === 1 && random.once(8)) addressA[0] ^= 1;
    }),
};
