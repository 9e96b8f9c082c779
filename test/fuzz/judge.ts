/** The fate of one packet, judged: what was counted, written and sent must agree. */
import { GateView } from '../../engine/path.ts';
import { Reason, reasonKinds, reasonNames } from '../../parsers/reason.ts';
import { type Decoded, decode, onesSum, transportRight } from './decode.ts';
import { judgeDatagrams } from './judge-datagrams.ts';
import { hold, judgePassed, judgeRelease, settle, waitingFor } from './judge-held.ts';
import { gsoKind, type Sample, VirtioGso } from './samples.ts';
import { must } from './trial.ts';
import type { World, Written } from './world.ts';

/** Reasons that say that the packet itself is wrong. */
const malformed: ReadonlySet<number> = new Set([
  Reason.Ipv4TooShort,
  Reason.Ipv4BadVersion,
  Reason.Ipv4BadHeaderLength,
  Reason.Ipv4BadTotalLength,
  Reason.Ipv4BadChecksum,
  Reason.TcpTooShort,
  Reason.TcpBadHeaderLength,
  Reason.UdpTooShort,
  Reason.UdpBadLength,
  Reason.IcmpTooShort,
  Reason.FragmentTiny,
  Reason.FragmentOverlap,
  Reason.FragmentPastEnd,
]);

/** Whether the device itself must refuse it, by its virtio header. */
function isRefused(sample: Sample): boolean {
  const { bytes, checksumOffset, checksumStart, gsoSize } = sample;
  if (bytes.length > 65535) return true;
  const kind = gsoKind(sample);
  if (kind !== VirtioGso.None) {
    if ((kind !== VirtioGso.Tcp4 && kind !== VirtioGso.UdpL4) || gsoSize === 0) return true;
  }
  if (checksumStart === 0) return false;
  return checksumStart < 20 || checksumStart + checksumOffset + 2 > bytes.length;
}

/** How many packets the sample may stand for: by the bytes read, or by its total length. */
function wirePackets(sample: Sample): number[] {
  const { bytes, gsoSize } = sample;
  const total = bytes.length < 4 ? 0 : bytes.readUInt16BE(2);
  if (gsoKind(sample) === VirtioGso.None || gsoSize === 0) return [1];
  const counts = [bytes.length, total].map((length) =>
    Math.max(1, Math.ceil((length - 40) / gsoSize)),
  );
  // Of a header that the device does not believe, it may not believe the size either.
  return isRefused(sample) ? [1, ...counts] : counts;
}

/**
 * Feed one packet and judge what becomes of it. Returns the reason that it was counted under; Ok
 * when it waits for its first fragment.
 */
export function feedAndJudge(world: World, fed: Sample, direction: 0 | 1): Reason {
  settle(world);
  const packet = decode(fed.bytes);
  const waiting = packet === undefined ? [] : waitingFor(world, packet);
  // A forged first fragment that stands for many would be hard to tell from those that it frees.
  const sample = waiting.length > 0 ? { ...fed, gso: 0 } : fed;
  world.devices[direction].inbox.push(sample);
  const innerMtu = world.path.peers.smallestMtu;
  const delta = world.breathe();
  const fates = [...delta.keys()].filter((reason) => delta[reason] !== 0);
  const total = fates.reduce((sum, reason) => sum + delta[reason], 0);
  const told = () => fates.map((reason) => `${reasonNames[reason]} ${delta[reason]}`).join(', ');
  must(
    fates.every((reason) => delta[reason] > 0),
    told,
  );
  if (total === 0 && packet?.part === 'later') {
    hold(world, sample, packet, direction);
    return Reason.Ok;
  }
  if (packet !== undefined && waiting.length > 0 && total === 1 + waiting.length) {
    judgeRelease(world, { sample, packet, direction, since: 0 }, waiting, innerMtu);
    return fates[0];
  }
  if (world.socket.sent.length > 0) {
    judgeSent(world, sample, packet, direction, innerMtu, delta, total);
    return fates[0];
  }
  const allowed = wirePackets(sample);
  must(fates.length === 1 && allowed.includes(total), () => `counted ${told() || 'nowhere'}`);
  const [reason] = fates;
  const open = world.path.gate !== GateView.Pass;
  const mayBeForwarded = !isRefused(sample) && (packet !== undefined || !open);
  must(mayBeForwarded || reasonKinds[reason] === 'dropped', () => `forwarded as ${told()}`);
  must(!(malformed.has(reason) && packet !== undefined), () => `refused a good packet: ${told()}`);
  judgeWritten(world, sample, packet, direction, reason, innerMtu);
  return reason;
}

function judgeSent(
  world: World,
  sample: Sample,
  packet: Decoded | undefined,
  direction: 0 | 1,
  innerMtu: number,
  delta: Float64Array,
  total: number,
): void {
  const { sent } = world.socket;
  must(packet !== undefined && !isRefused(sample), () => 'sent what is no packet');
  must(world.path.gate === GateView.Open, () => 'sent while the gate is closed');
  must(
    world.devices.every(({ written }) => written.length === 0),
    () => 'sent and written too',
  );
  const counted = judgeDatagrams(sample, packet, sent, direction, innerMtu);
  must(total === counted, () => `${counted} sent, ${total} counted`);
  const isFragmented = counted === 1 && sent.length > 1;
  let redirected = 0;
  for (const { datagrams, result } of isFragmented ? sent.slice(-1) : sent) {
    if (result === Reason.Ok) redirected += datagrams.length;
  }
  const found = delta[Reason.Redirected];
  must(found === redirected, () => `${redirected} sent well, ${found} counted as redirected`);
}

function judgeWritten(
  world: World,
  sample: Sample,
  packet: Decoded | undefined,
  direction: 0 | 1,
  reason: number,
  innerMtu: number,
): void {
  const same = world.devices[direction].written;
  const opposite = world.devices[1 - direction].written;
  const name = reasonNames[reason];
  const isRefusal = [Reason.DeviceFull, Reason.DeviceDown, Reason.DeviceRefused].includes(reason);
  if (reasonKinds[reason] === 'forwarded' || isRefusal) {
    must(same.length === 1 && opposite.length === 0, () => `${name}, but ${same.length} written`);
    must(
      same[0].result === Reason.Ok ? !isRefusal : same[0].result === reason,
      () => `result, ${name}`,
    );
    return judgePassed(world, sample, packet, same[0]);
  }
  const resets = reason === Reason.ResetEstablished;
  must(same.length === 0 || resets, () => `${name}, and written all the same`);
  if (reason === Reason.TooBig) {
    must(packet !== undefined && opposite.length === 1, () => 'too big, and nobody was told');
    return judgeAnswer(sample, packet, opposite[0], innerMtu);
  }
  if (resets) {
    const isReset = packet !== undefined && (packet.flags & 4) !== 0;
    const answers = [...opposite, ...same];
    must(answers.length === (isReset ? 0 : 2), () => `${answers.length} resets`);
    answers.forEach((answer, index) => {
      judgeReset(packet, answer, index === 0);
    });
    return;
  }
  must(opposite.length === 0, () => `${name}, with an answer`);
}

/** ICMP 3/4 to the packet's sender, with the tunnel's MTU, quoting the packet. */
function judgeAnswer(sample: Sample, about: Decoded, written: Written, innerMtu: number): void {
  const { bytes } = written;
  const answer = decode(bytes);
  must(answer?.part === 'error' && answer.protocol === 1, () => 'the answer is no ICMP error');
  must(onesSum(bytes, 20, bytes.length) === 0xffff, () => 'checksum of ICMP 3/4');
  must(bytes.readUInt16BE(20) === 0x0304, () => `ICMP ${bytes.readUInt16BE(20)}`);
  must(bytes.readUInt16BE(26) === innerMtu, () => `next MTU ${bytes.readUInt16BE(26)}`);
  must(bytes.subarray(16, 20).equals(sample.bytes.subarray(12, 16)), () => 'told somebody else');
  const quote = sample.bytes.subarray(0, about.headerLength);
  must(bytes.subarray(28, 28 + quote.length).equals(quote), () => 'quotes another packet');
}

/** To the sender, or on to the receiver. */
function judgeReset(about: Decoded | undefined, written: Written, isAnswer: boolean): void {
  const reset = decode(written.bytes);
  must(reset !== undefined && (reset.flags & 4) !== 0, () => 'the answer is no reset');
  must(transportRight(written.bytes, 20, 40), () => 'checksum of a reset');
  const source = isAnswer ? about?.target : about?.source;
  const port = isAnswer ? about?.sourcePort : about?.targetPort;
  must(
    reset.source === source && reset.targetPort === port,
    () => 'the reset goes to another connection',
  );
}
