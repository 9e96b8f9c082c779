/** How far a flow has come, as the flow table notes it. */

/** Where a flow stands in its life; decides its timeout. */
export const FlowState = { Opening: 0, Open: 1, HalfClosed: 2, Closed: 3 } as const;
export type FlowState = (typeof FlowState)[keyof typeof FlowState];

/** Established: TCP's opener went on after an answer; of other protocols one answer will do. */
export const Progress = { Unanswered: 0, Answered: 1, Established: 2 } as const;

export const Queue = { Closed: 0, Opening: 1 } as const;

/** Bits of `closing`: FIN of end A and of end B, and a RST of either. */
export const Closing = { FinA: 1, FinB: 2, Fins: 3, Rst: 4 } as const;
