/** Firewall to workload: answers, good and forged, to flows that were redirected. */
import { accelerateChecksum } from '../../parsers/checksum.ts';
import { Answers, directionOf, Known } from './answers.ts';
import { feedAndJudge } from './judge.ts';
import { settleAll } from './judge-held.ts';
import { breatheAndJudge } from './judge-reinject.ts';
import { Mutator } from './mutate.ts';
import { redirectAll } from './policies.ts';
import { seedCrypto } from './random.ts';
import { packetSamples } from './samples.ts';
import type { Fuzzer, Trial } from './trial.ts';
import { createFuzzArena, createWorld } from './world.ts';

const packetsPerCase = 5;
const answersPerCase = 12;

function create(widen: (known: Known) => void) {
  const samples = packetSamples().filter(({ bytes }) => bytes.length < 6000);
  const arena = createFuzzArena();
  // As in the data path's worker; the other fuzzers go through the guarded view byte by byte.
  accelerateChecksum(arena.memory, arena.view);
  return ({ inputs, random }: Trial) => {
    seedCrypto(random);
    const mtu = random.pick([1500, 1500, 576]);
    const world = createWorld(arena, { policy: redirectAll, flows: 128, mtu });
    const known = new Known(false);
    const mutator = new Mutator(random, samples);
    for (let i = 0; i < packetsPerCase; i++) {
      const sample = random.once(4) ? mutator.next() : mutator.pick();
      const direction = directionOf(sample.bytes);
      // Of a host that talks to itself nothing tells which way a later fragment goes.
      if (sample.bytes.subarray(12, 16).equals(sample.bytes.subarray(16, 20))) continue;
      inputs.push(sample);
      known.noteFirst(world, sample.bytes, feedAndJudge(world, sample, direction));
      known.note(world);
    }
    widen(known);
    const answers = new Answers(random, known);
    for (let i = 0; i < answersPerCase; i++) {
      const source = answers.source();
      const arrived = answers.arrive(world, answers.next(), source);
      for (const bytes of arrived) {
        inputs.push({
          name: 'datagram',
          bytes,
          gso: 0,
          gsoSize: 0,
          checksumStart: 0,
          checksumOffset: 0,
        });
      }
      breatheAndJudge(world, known, arrived, source, true);
    }
    settleAll(world);
  };
}

export const reinject: Fuzzer = {
  name: 'reinject',
  promise: 'what enters the network is the answer to what was redirected, as it came',
  smoke: 400,
  create: () => create(() => {}),
};

/** As if the engine ought to take any cookie. */
export const reinjectCanary: Fuzzer = {
  name: 'canary-cookie',
  promise: 'a cookie that is not looked at is found out',
  smoke: 50,
  canary: true,
  create: () =>
    create((known) => {
      for (const flow of known.flows.values()) flow.cookie ^= 1;
    }),
};
