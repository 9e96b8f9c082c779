/**
 * The whole engine by each encapsulation: what it sends is sent back, as it was or changed, to it
 * and to an engine of another encapsulation.
 */
import { GateView } from '../../engine/path.ts';
import { Reason } from '../../parsers/reason.ts';
import type { Encapsulation } from '../../tunnel/encapsulation.ts';
import { createGcp } from '../../tunnel/gcp.ts';
import { createGeneve } from '../../tunnel/geneve.ts';
import { createGwlb } from '../../tunnel/gwlb.ts';
import { createVxlan } from '../../tunnel/vxlan.ts';
import { directionOf } from './answers.ts';
import { decode } from './decode.ts';
import { Mutator } from './mutate.ts';
import { redirectAll } from './policies.ts';
import { type Random, seedCrypto } from './random.ts';
import { packetSamples, type Sample } from './samples.ts';
import { type Fuzzer, must, type Trial } from './trial.ts';
import { createFuzzArena, createWorld, type World } from './world.ts';

const stepsPerCase = 40;
/** Longer than a fragment is held. */
const heldMs = 2000;
const firewall = 0x0a090004;
const macs = { innerSource: '02:00:00:00:00:01', innerDestination: '02:00:00:00:00:02' };
const geneve = { port: 6081, vni: 48813, optionClass: 0xfff1, optionType: 0x20 } as const;

const encapsulations: readonly Encapsulation[] = [
  createGeneve({ ...geneve, inner: 'ipv4' }),
  createGeneve({ ...geneve, inner: 'ethernet' }),
  createGwlb({ port: 6081, endpointId: '0123456789abcdef', attachmentId: 'fedcba9876543210' }),
  createGcp({ port: 6081, endpointId: '00112233445566778899aabb', profileId: '0000000000000007' }),
  createVxlan({ port: 4789, egressVni: 48813, ingressVni: 48813, ...macs }),
  createVxlan({ port: 10800, egressVni: 800, ingressVni: 801, ...macs }),
];

/** Why what an engine has sent is not taken later. */
const outlived = [Reason.TunnelCookieWrong, Reason.FlowUnknown, Reason.FlowNotRedirected];

/** Sends of all cases and encapsulations, the latest. */
type Pool = { readonly datagrams: Buffer[]; next: number };
const poolSize = 64;

class Conversation {
  private readonly world: World;
  private readonly trial: Trial;
  private readonly pool: Pool;
  private readonly mutator: Mutator;
  private readonly encapsulation: Encapsulation;
  /** What this engine has sent and would take back as it is. */
  private readonly own: Buffer[] = [];

  constructor(
    world: World,
    trial: Trial,
    pool: Pool,
    samples: readonly Sample[],
    encapsulation: Encapsulation,
  ) {
    this.world = world;
    this.trial = trial;
    this.pool = pool;
    this.mutator = new Mutator(trial.random, samples);
    this.encapsulation = encapsulation;
  }

  step(): void {
    const { random } = this.trial;
    if (this.own.length > 0 && random.once(2)) this.answer();
    else this.feed();
  }

  private feed(): void {
    const { random, inputs } = this.trial;
    const { world } = this;
    const sample = random.once(3) ? this.mutator.next() : this.mutator.pick();
    // What waits, and what is many packets, is the other fuzzers' business.
    const part = decode(sample.bytes)?.part;
    if (sample.gso !== 0 || part === 'first' || part === 'later') return;
    inputs.push(sample);
    world.devices[directionOf(sample.bytes)].inbox.push(sample);
    const counts = world.breathe();
    // TCP that is larger than the tunnel is cut, and counts as what it has become.
    const isLarge = sample.bytes.length > world.path.peers.smallestMtu;
    if (!isLarge || counts[Reason.Redirected] < 2) this.mustCountOne(counts);
    must(world.path.gate === GateView.Open, () => 'the gate is closed');
    const sent = world.socket.sent.flatMap(({ datagrams }) => datagrams);
    if (counts[Reason.Redirected] === 0) return must(sent.length === 0, () => 'sent for nothing');
    for (const datagram of sent) this.keep(datagram, sent.length === 1);
  }

  /** @param whole a packet of its own, and no fragment or segment */
  private keep(datagram: Buffer, whole: boolean): void {
    const { own, pool } = this;
    const { headerLength } = this.encapsulation;
    must(decode(datagram.subarray(headerLength)) !== undefined, () => 'sent what is no packet');
    pool.datagrams[pool.next++ % poolSize] = Buffer.from(datagram);
    if (whole && own.length < poolSize) own.push(Buffer.from(datagram));
  }

  private answer(): void {
    const { random, inputs } = this.trial;
    const { headerLength } = this.encapsulation;
    const kind = random.below(4);
    const taken = kind === 3 ? random.pick(this.pool.datagrams) : random.pick(this.own);
    const datagram = Buffer.from(taken);
    if (kind === 1) datagram[random.below(headerLength)] ^= 1 << random.below(8);
    if (kind === 2) change(datagram, random);
    const bytes = kind === 2 && random.once(4) ? cut(datagram, random) : datagram;
    const { socket } = this.world;
    inputs.push(asInput(bytes));
    socket.inbox.push({ bytes, source: firewall, segmentSize: 0, reason: Reason.Ok });
    let counts = this.world.breathe();
    const written = this.world.devices.flatMap((device) => [...device.written]);
    if (counts.every((packets) => packets === 0)) {
      // What has become a later fragment waits for its first one, in vain.
      this.world.clock.nowMs += heldMs;
      counts = this.world.breathe();
    }
    this.mustCountOne(counts);
    // Its flow may have begun again since, with another cookie.
    const isOld = outlived.some((reason) => counts[reason] === 1);
    if (kind === 0 && !isOld) {
      must(written.length === 1, () => 'an answer as it went was not taken');
      const inner = bytes.subarray(headerLength);
      must(written[0]!.bytes.equals(inner), () => 'an answer was changed');
    }
    for (const { bytes: packet } of written) {
      must(decode(packet) !== undefined, () => 'what is no packet was put on the network');
      must(bytes.includes(packet), () => 'what did not come was put on the network');
    }
  }

  private mustCountOne(counts: Float64Array): void {
    const total = counts.reduce((sum, packets) => sum + packets, 0);
    must(total === 1, () => `${total} counted of one`);
  }
}

function change(bytes: Buffer, random: Random): void {
  for (let i = random.below(6); i >= 0; i--) bytes[random.below(bytes.length)] = random.below(256);
}

function cut(bytes: Buffer, random: Random): Buffer {
  return bytes.subarray(0, random.below(bytes.length + 1));
}

function asInput(bytes: Buffer): Sample {
  return { name: 'datagram', bytes, gso: 0, gsoSize: 0, checksumStart: 0, checksumOffset: 0 };
}

function create(sabotage: (encapsulation: Encapsulation, random: Random) => Encapsulation) {
  const samples = packetSamples().filter(({ bytes }) => bytes.length < 1400);
  const arena = createFuzzArena();
  const pool: Pool = { datagrams: [Buffer.alloc(60)], next: 0 };
  return (trial: Trial) => {
    const { random } = trial;
    seedCrypto(random);
    // Each case must be the same alone.
    pool.datagrams.length = 1;
    pool.next = 0;
    for (let round = 0; round < 2; round++) {
      const encapsulation = random.pick(encapsulations);
      const world = createWorld(arena, {
        policy: redirectAll,
        flows: 128,
        mtu: 1500,
        encapsulation: sabotage(encapsulation, random),
      });
      const talk = new Conversation(world, trial, pool, samples, encapsulation);
      for (let step = 0; step < stepsPerCase; step++) talk.step();
    }
  };
}

export const tunnels: Fuzzer = {
  name: 'tunnels',
  promise: 'each encapsulation takes its own answers, as they went, and counts everything once',
  smoke: 120,
  create: () => create((encapsulation) => encapsulation),
};

/** One header in thirty is read as if it were longer. */
export const tunnelsCanary: Fuzzer = {
  name: 'canary-tunnel',
  promise: 'a header that is read as longer than it is, is found out',
  smoke: 50,
  canary: true,
  create: () =>
    create((encapsulation, random) =>
      Object.assign(Object.create(encapsulation) as Encapsulation, {
        check: (...[view, at, end, header]: Parameters<Encapsulation['check']>) => {
          const reason = encapsulation.check(view, at, end, header);
          if (random.once(30)) header.innerAt += 4;
          return reason;
        },
      }),
    ),
};
