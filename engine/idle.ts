/**
 * How the loop waits when there is nothing to do. Being woken costs a packet time, most on a
 * virtual machine, whose idle processor has to be started again. So where the next packet is
 * expected soon the loop looks for it for a while before it sleeps (busy polling).
 *
 * - It is expected soon when the last one came soon, in the manner of KVM's halt polling. A
 *   conversation that waits for each answer is followed without sleeping; an idle host never polls.
 * - Only after a packet or two: where many come between two sleeps, they share a wake-up, and
 *   somebody is busy making them.
 * - Whoever needs this processor has it: a look that took too long was interrupted by somebody, and
 *   for a moment the loop sleeps at once.
 */
import type { Clock, Readiness } from './io.ts';

/**
 * How long to look. Measured over the kernel's VXLAN firewall with a loop that always looks, UDP
 * round trip p50: 84 us without, 54 with 50 us, 54 with 200 us; at 20,000 packets a second 50 us
 * cost 6 us a packet, 200 us 26.
 */
export const busyPollMs = 0.05;
const fewPackets = 2;
/**
 * A look takes 0.3 us, with the kernel's network work between 50. One that takes longer than this
 * has waited for another thread's time slice.
 */
const interruptedMs = 0.3;
/** How long an interruption keeps the loop from polling. */
const pauseMs = 100;

export class Idle {
  private readonly clock: Clock;
  private readonly readiness: Readiness;
  private readonly pollMs: number;
  private expectsSoon = false;
  private pausedUntilMs = 0;

  /** @param pollMs how long to look before each sleep at most; 0: never */
  constructor(clock: Clock, readiness: Readiness, pollMs: number) {
    this.clock = clock;
    this.readiness = readiness;
    this.pollMs = pollMs;
  }

  /**
   * Returns when there may be something to do, after at most about `limitMs`.
   * @param handled packets since the last wait
   */
  wait(limitMs: number, handled: number): void {
    const { clock, pollMs, readiness } = this;
    if (pollMs === 0) {
      readiness.wait(limitMs);
      return;
    }
    const begunMs = clock.now();
    const few = handled <= fewPackets;
    if (few && this.expectsSoon && begunMs >= this.pausedUntilMs && this.poll(begunMs)) return;
    const ready = readiness.wait(limitMs);
    this.expectsSoon = ready && clock.now() - begunMs <= pollMs;
  }

  /** Whether something came while we looked. */
  private poll(begunMs: number): boolean {
    const { clock, pollMs, readiness } = this;
    let lookedMs = begunMs;
    do {
      const ready = readiness.wait(0);
      const nowMs = clock.now();
      const interrupted = nowMs - lookedMs > interruptedMs;
      if (interrupted) this.pausedUntilMs = nowMs + pauseMs;
      if (ready || interrupted) return ready;
      lookedMs = nowMs;
    } while (lookedMs - begunMs < pollMs);
    return false;
  }
}
