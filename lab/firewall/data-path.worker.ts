/**
 * The firewall's loop: receive, judge each inner packet, answer with those that are allowed. A
 * worker thread that never returns to its event loop: it sleeps in recvmmsg, looks at its mailbox
 * a few dozen times a second, and posts what happens to the main thread.
 */
import { parentPort, receiveMessageOnPort, workerData } from 'node:worker_threads';
import { createInner, decode, type Encapsulation } from './decode.ts';
import { Flows } from './flows.ts';
import { Fate, Impairer, type Impairment } from './impair.ts';
import { type Policy, readPolicy } from './policy.ts';
import { type AnswerStyle, FirewallSocket } from './socket.ts';

export type DataPathOptions = {
  readonly encapsulation: Encapsulation;
  readonly address: string;
  readonly port: number;
  readonly answer: AnswerStyle;
  readonly policy: Policy;
};

export type DataPathCommand =
  | { readonly kind: 'impair'; readonly impairment: Partial<Impairment> }
  | { readonly kind: 'seed'; readonly seed: number }
  | { readonly kind: 'policy'; readonly path: string };

/** Counted since the start; packets are inner ones. */
export type DataPathCounters = {
  packets: number;
  bytes: number;
  allowed: number;
  blocked: number;
  /** Not decodable, with the reasons in `malformedReasons`. */
  malformed: number;
  lost: number;
  duplicated: number;
  reordered: number;
  /** Answers that the kernel did not take. */
  refused: number;
};

/** How long to sleep without traffic, and how long a held packet may wait, in ms. */
const idleMs = 20;
const mailboxEveryMs = 25;
const countersEveryMs = 1000;

const options = workerData as DataPathOptions;
const port = parentPort!;
const socket = new FirewallSocket(options.address, options.port, idleMs, options.answer);
const flows = new Flows(options.policy, (report) => port.postMessage(report));
const impairer = new Impairer();
const inner = createInner();
const counters: DataPathCounters = {
  packets: 0,
  bytes: 0,
  allowed: 0,
  blocked: 0,
  malformed: 0,
  lost: 0,
  duplicated: 0,
  reordered: 0,
  refused: 0,
};
const malformedReasons: Record<string, number> = {};

function loop(): never {
  let mailboxAt = 0;
  let countersAt = 0;
  port.postMessage({ event: 'listening', address: options.address, port: options.port });
  for (;;) {
    const count = socket.receive();
    for (let slot = 0; slot < count; slot++) answer(slot);
    if (count === 0) socket.release();
    else socket.flush();
    const now = performance.now();
    if (now >= mailboxAt) {
      mailboxAt = now + mailboxEveryMs;
      readMailbox();
    }
    if (now >= countersAt) {
      countersAt = now + countersEveryMs;
      counters.refused = socket.refused;
      port.postMessage({ event: 'counters', ...counters, flows: flows.count, malformedReasons });
    }
  }
}

/** One datagram, or several that the kernel joined: judge each, send back the allowed ones. */
function answer(slot: number): void {
  const end = socket.at[slot]! + socket.length[slot]!;
  const size = socket.segmentSize[slot]!;
  const joined = size < socket.length[slot]!;
  const impaired = impairer.active;
  let begun = false;
  for (let at = socket.at[slot]!; at < end; at += size) {
    const length = Math.min(size, end - at);
    if (!judge(slot, at, length)) continue;
    if (impaired) {
      sendImpaired(slot, at, length);
      continue;
    }
    if (!begun || !socket.joins) socket.begin(slot, joined && socket.joins ? size : 0);
    begun = true;
    socket.add(at, length);
  }
}

function judge(slot: number, at: number, length: number): boolean {
  if (!decode(options.encapsulation, socket.view, at, at + length, inner)) {
    counters.malformed++;
    malformedReasons[inner.refusal] = (malformedReasons[inner.refusal] ?? 0) + 1;
    return false;
  }
  // An agent speaks for its own host: what that host sends is on its way out.
  if (inner.way === -1) inner.way = inner.source === socket.source[slot] ? 0 : 1;
  counters.packets++;
  counters.bytes += inner.end - inner.at;
  const allowed = flows.judge(socket.view, inner);
  if (allowed) counters.allowed++;
  else counters.blocked++;
  return allowed;
}

/** One by one, without joining. A held packet goes when a later one has gone, at most 16 wait. */
function sendImpaired(slot: number, at: number, length: number): void {
  const fate = impairer.next();
  if (fate === Fate.Lose) {
    counters.lost++;
    return;
  }
  if (fate === Fate.Hold && socket.hold(slot, at, length)) {
    counters.reordered++;
    return;
  }
  send(slot, at, length);
  if (fate === Fate.Twice) {
    counters.duplicated++;
    send(slot, at, length);
  }
  if (socket.heldDatagrams > 0 && ++sentSinceHeld >= sentBeforeRelease) {
    sentSinceHeld = 0;
    socket.release();
  }
}

/** How many packets overtake a held one. */
const sentBeforeRelease = 3;
let sentSinceHeld = 0;

function send(slot: number, at: number, length: number): void {
  socket.begin(slot, 0);
  socket.add(at, length);
}

function readMailbox(): void {
  for (let mail = receiveMessageOnPort(port); mail; mail = receiveMessageOnPort(port)) {
    const command = mail.message as DataPathCommand;
    if (command.kind === 'impair') Object.assign(impairer.impairment, command.impairment);
    if (command.kind === 'seed') impairer.seed(command.seed);
    if (command.kind === 'policy') changePolicy(command.path);
    port.postMessage({ event: 'taken', command: command.kind });
  }
}

/** For connections that are not settled yet and for new ones. */
function changePolicy(path: string): void {
  try {
    flows.policy = readPolicy(path);
  } catch (error) {
    port.postMessage({ event: 'error', message: (error as Error).message });
  }
}

loop();
