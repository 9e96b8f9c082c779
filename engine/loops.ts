/**
 * Notices packets that come to the agent a second time after they were redirected: the firewall, or
 * what it sends them to, forwards them by its own routes to where the agent takes them again,
 * instead of returning them by the tunnel; or this host forwards them from one interface that is
 * redirected to another. They would go around until their time to live ends.
 *
 * A copy has the flow, identification and length of the packet and a smaller time to live. Of each
 * tick one packet in a flow is kept to compare with: enough to find what goes around, without a
 * write for every packet.
 */
const rows = 1024;
/** Ticks of 100 ms that a packet is compared with; a turn takes less. */
const keptTicks = 10;

export class Loops {
  private readonly flow = new Int32Array(rows).fill(-1);
  private readonly tick = new Int32Array(rows);
  private readonly idAndLength = new Int32Array(rows);
  private readonly timeToLive = new Uint8Array(rows);

  /** Whether this packet was here before. Identification 0 tells nothing. */
  isCopy(flow: number, id: number, length: number, timeToLive: number, nowTick: number): boolean {
    if (id === 0) return false;
    const row = flow & (rows - 1);
    const mark = (id << 16) | (length & 0xffff);
    const age = nowTick - this.tick[row];
    const isKept = this.flow[row] === flow && age <= keptTicks;
    if (isKept && this.idAndLength[row] === mark && timeToLive < this.timeToLive[row]) return true;
    if (isKept && age < 1) return false;
    this.flow[row] = flow;
    this.tick[row] = nowTick;
    this.idAndLength[row] = mark;
    this.timeToLive[row] = timeToLive;
    return false;
  }
}
