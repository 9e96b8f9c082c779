/** Later fragments that came before their first one: they wait for less than a second. */

import { GateView } from '../../engine/path.ts';
import { tickMs } from '../../engine/ticks.ts';
import { Reason } from '../../parsers/reason.ts';
import { type Decoded, decodeGeneve } from './decode.ts';
import { difference, judgeDatagrams } from './judge-datagrams.ts';
import { gsoKind, type Sample, VirtioGso } from './samples.ts';
import { must } from './trial.ts';
import type { Sent, Waiting, World, Written } from './world.ts';

type Held = Waiting['packets'][number];

const waitTicks = 9;
const mostHeld = 64;
const longestHeld = 9216;

const nowTick = (world: World) => Math.floor(world.clock.nowMs / tickMs);

/** Those that the first fragment `packet` sets free, oldest first. */
export function waitingFor(world: World, packet: Decoded): Held[] {
  if (packet.part !== 'first') return [];
  return world.waiting.packets.filter(
    (held) =>
      held.packet.id === packet.id &&
      held.packet.protocol === packet.protocol &&
      held.packet.source === packet.source &&
      held.packet.target === packet.target,
  );
}

export function hold(world: World, sample: Sample, packet: Decoded, direction: 0 | 1): void {
  const { packets } = world.waiting;
  const { devices, socket } = world;
  const isQuiet = [devices[0].written, devices[1].written, socket.sent].every(
    (l) => l.length === 0,
  );
  must(isQuiet, () => 'written or sent, and not counted');
  must(
    gsoKind(sample) === VirtioGso.None && sample.checksumStart === 0,
    () => 'a forged one waits',
  );
  must(packet.total <= longestHeld && packets.length < mostHeld, () => 'nowhere to wait');
  packets.push({ sample, packet, direction, since: nowTick(world) });
}

/** A breath without packets: what has waited for too long goes, and all when the gate passes. */
export function settle(world: World): void {
  const { waiting } = world;
  const delta = world.breathe();
  const total = delta.reduce((sum, count) => sum + count, 0);
  const written = world.devices.flatMap((device) => device.written);
  must(world.socket.sent.length === 0, () => 'sent without a packet');
  if (world.path.gate === GateView.Pass) {
    must(written.length === waiting.packets.length, () => `${written.length} that waited passed`);
    for (const { direction, packet, sample } of waiting.packets) {
      const like = sample.bytes.subarray(0, packet.total);
      const found = world.devices[direction].written.some(({ bytes }) => bytes.equals(like));
      must(found, () => 'one that waited was changed');
    }
    waiting.packets = [];
  } else {
    must(written.length === 0, () => 'written without a packet');
  }
  const isOver = ({ since }: Held) => nowTick(world) - since >= waitTicks;
  const over = waiting.packets.filter(isOver).length;
  waiting.packets = waiting.packets.filter((held) => !isOver(held));
  const unmatched = delta[Reason.FragmentUnmatched];
  must(total === unmatched + written.length, () => `${total} counted without a packet`);
  const datagrams = unmatched - over;
  const isKnown = datagrams >= 0 && datagrams <= waiting.datagrams;
  must(isKnown, () => `${unmatched} given up, of ${over} and ${waiting.datagrams}`);
  waiting.datagrams -= datagrams;
}

/** At the end of a case: nothing waits for ever. */
export function settleAll(world: World): void {
  world.clock.nowMs += 1000;
  settle(world);
  const { datagrams, packets } = world.waiting;
  must(
    packets.length === 0 && datagrams === 0,
    () => `${packets.length} and ${datagrams} still wait`,
  );
}

/** A first fragment and those that waited for it, in this order, all by the same way. */
export function judgeRelease(world: World, first: Held, waited: Held[], innerMtu: number): void {
  const { devices, socket, waiting } = world;
  waiting.packets = waiting.packets.filter((held) => !waited.includes(held));
  const packets = [first, ...waited.filter(({ direction }) => direction === first.direction)];
  const tooBig = ({ packet }: Held) => packet.dontFragment && packet.total > innerMtu;
  if (socket.sent.length > 0) {
    must(world.path.gate === GateView.Open, () => 'sent while the gate is closed');
    must(devices[first.direction].written.length === 0, () => 'sent and written too');
    const rest = [...socket.sent];
    for (const held of packets.filter((one) => !tooBig(one))) {
      const own = takeSends(rest, held);
      judgeDatagrams(held.sample, held.packet, own, held.direction, innerMtu);
    }
    must(rest.length === 0, () => `${rest.length} sends too many`);
    return;
  }
  const { written } = devices[first.direction];
  if (written.length === 0) return;
  must(written.length === packets.length, () => `${written.length} of ${packets.length} passed`);
  packets.forEach(({ packet, sample }, index) => {
    judgePassed(world, sample, packet, written[index]);
  });
}

/** From the front of `sent`: as many as the packet's payload takes. */
function takeSends(sent: Sent[], { packet }: Held): Sent[] {
  const taken: Sent[] = [];
  let missing = packet.total - packet.headerLength;
  do {
    const next = sent.shift();
    must(next !== undefined, () => `${missing} bytes were not sent`);
    taken.push(next);
    const length = decodeGeneve(next.datagrams[0])?.inner.length ?? 0;
    missing -= length - packet.headerLength;
  } while (missing > 0);
  return taken;
}

/** As it came; when it was looked at, without what lies behind its total length. */
export function judgePassed(
  world: World,
  sample: Sample,
  packet: Decoded | undefined,
  written: Written,
): void {
  const length = world.path.gate === GateView.Pass ? sample.bytes.length : (packet?.total ?? 0);
  const expected = sample.bytes.subarray(0, length);
  must(
    expected.equals(written.bytes),
    () => `passed, changed: ${difference(expected, written.bytes)}`,
  );
  const kind = gsoKind(sample);
  const gso = kind === VirtioGso.Tcp4 ? 1 : kind === VirtioGso.UdpL4 ? 2 : 0;
  must(written.gso === gso, () => `passed as GSO ${written.gso}`);
  must(gso === 0 || written.gsoSize === sample.gsoSize, () => `passed with ${written.gsoSize}`);
  must(written.checksumStart === sample.checksumStart, () => 'passed with another checksum start');
  const isPartial = sample.checksumStart !== 0;
  const sameOffset = written.checksumOffset === sample.checksumOffset;
  must(!isPartial || sameOffset, () => 'passed with another checksum offset');
}
