/**
 * Flows in the order in which they joined: the oldest is found at once, any may leave. Links are
 * columns by flow number, allocated once; one set of links serves several queues, since a flow is
 * in one of them at a time.
 */

/** A flow that is in no queue links to nothing. */
const none = -1;

export class FlowQueues {
  private readonly before: Int32Array;
  private readonly after: Int32Array;
  private readonly capacity: number;

  /** @param queues how many; they are numbered from 0 */
  constructor(capacity: number, queues: number) {
    this.capacity = capacity;
    // Behind the flows: each queue's end, which closes its ring.
    this.before = new Int32Array(capacity + queues).fill(none);
    this.after = new Int32Array(capacity + queues).fill(none);
    for (let end = capacity; end < capacity + queues; end++) {
      this.before[end] = end;
      this.after[end] = end;
    }
  }

  /** The flow that joined first, or -1. */
  oldest(queue: number): number {
    const end = this.capacity + queue;
    const flow = this.after[end];
    return flow === end ? none : flow;
  }

  /** At the end of `queue`, out of the one it was in. */
  join(queue: number, flow: number): void {
    this.leave(flow);
    const end = this.capacity + queue;
    const last = this.before[end];
    this.after[last] = flow;
    this.before[flow] = last;
    this.after[flow] = end;
    this.before[end] = flow;
  }

  leave(flow: number): void {
    const before = this.before[flow];
    if (before === none) return;
    const after = this.after[flow];
    this.after[before] = after;
    this.before[after] = before;
    this.before[flow] = none;
    this.after[flow] = none;
  }
}
