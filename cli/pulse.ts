/**
 * What nobody reports and somebody asks for later: since when the agent is in its state, and
 * whether the data path still moves.
 */

/** How often the agent feels it; a state that lasts shorter may be missed. */
const everyMs = 500;

export class Pulse {
  private state = '';
  private stateSinceMs = Date.now();
  private breaths = -1;
  private movedMs = performance.now();
  private readonly timer: NodeJS.Timeout;

  /** @param feel the state now, and a number that changes as long as the data path runs */
  constructor(feel: () => { readonly state: string; readonly breaths: number }) {
    const look = () => {
      const { breaths, state } = feel();
      this.since(state);
      if (breaths === this.breaths) return;
      this.breaths = breaths;
      this.movedMs = performance.now();
    };
    this.timer = setInterval(look, everyMs);
    // It must not keep the process alive by itself.
    this.timer.unref();
  }

  /** Since when, in milliseconds since 1970, it is in this state, which is the one of now. */
  since(state: string): number {
    if (state !== this.state) {
      this.state = state;
      this.stateSinceMs = Date.now();
    }
    return this.stateSinceMs;
  }

  /** How long the data path has not moved, in milliseconds. */
  silentMs(): number {
    return performance.now() - this.movedMs;
  }

  close(): void {
    clearInterval(this.timer);
  }
}
