/** Workload to firewall: packets of every kind, one at a time, through a policy of every kind. */
import { feedAndJudge } from './judge.ts';
import { innerMtuOf } from './judge-datagrams.ts';
import { settleAll } from './judge-held.ts';
import { Mutator } from './mutate.ts';
import { policies } from './policies.ts';
import { type Random, seedCrypto } from './random.ts';
import { packetSamples } from './samples.ts';
import { type Fuzzer, must, type Trial } from './trial.ts';
import { createFuzzArena, createWorld, type World } from './world.ts';

const packetsPerCase = 24;
const mtus = [1500, 1500, 1500, 1280, 576, 9000, 9216, 20_000, 148, 116, 68];

function create(sabotage: (world: World, random: Random) => void) {
  const samples = packetSamples();
  const arena = createFuzzArena();
  return ({ inputs, random }: Trial) => {
    seedCrypto(random);
    const policy = random.pick(policies);
    const world = createWorld(arena, { policy, flows: 128, mtu: random.pick(mtus) });
    const innerMtu = world.path.peers.smallestMtu;
    must(innerMtu === innerMtuOf(world), () => `MTU ${innerMtu}`);
    sabotage(world, random);
    const mutator = new Mutator(random, samples);
    for (let i = 0; i < packetsPerCase; i++) {
      const sample = mutator.next();
      inputs.push(sample);
      feedAndJudge(world, sample, random.once(3) ? 1 : 0);
    }
    settleAll(world);
  };
}

export const redirect: Fuzzer = {
  name: 'redirect',
  promise: 'each packet is counted once, and what goes out of the engine is what came in',
  smoke: 800,
  create: () => create(() => {}),
};

/** The device says that it wrote a packet and forgot it. */
export const redirectCanary: Fuzzer = {
  name: 'canary-path',
  promise: 'a path that loses one packet in fifty is found out',
  smoke: 50,
  canary: true,
  create: () =>
    create((world, random) => {
      const [device] = world.devices;
      const { read } = device;
      device.read = (batch) => {
        const count = read.call(device, batch);
        if (random.once(50)) batch.count = 0;
        return count;
      };
    }),
};
