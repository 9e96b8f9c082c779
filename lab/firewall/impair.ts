/**
 * A bad path, made here because the kernels that the lab must run on need not have netem: inner
 * packets on their way back are lost, sent twice, or held until later ones have gone. Seeded: the
 * same packets in the same order meet the same fate.
 */

/** In per cent of packets. */
export type Impairment = { loss: number; duplicate: number; reorder: number };

export const Fate = { Send: 0, Lose: 1, Twice: 2, Hold: 3 } as const;
export type Fate = (typeof Fate)[keyof typeof Fate];

export class Impairer {
  readonly impairment: Impairment = { loss: 0, duplicate: 0, reorder: 0 };
  private state = 1;

  get active(): boolean {
    const { loss, duplicate, reorder } = this.impairment;
    return loss > 0 || duplicate > 0 || reorder > 0;
  }

  /** @param seed any integer */
  seed(seed: number): void {
    this.state = seed | 0;
  }

  next(): Fate {
    const { loss, duplicate, reorder } = this.impairment;
    const draw = this.random() * 100;
    if (draw < loss) return Fate.Lose;
    if (draw < loss + duplicate) return Fate.Twice;
    return draw < loss + duplicate + reorder ? Fate.Hold : Fate.Send;
  }

  /** mulberry32: 32 bits of state, uniform over [0, 1). */
  private random(): number {
    this.state = (this.state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(this.state ^ (this.state >>> 15), this.state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  }
}
