/** When a worker has died so often that starting it again would hide a defect. */

const maximumDeaths = 3;
const windowMs = 60_000;

export class Deaths {
  private readonly times: number[] = [];

  /** Note a death at `nowMs`; true when it is the third within a minute. */
  isTooMany(nowMs: number): boolean {
    this.times.push(nowMs);
    while (nowMs - this.times[0] > windowMs) this.times.shift();
    return this.times.length >= maximumDeaths;
  }
}
