/**
 * Parts of the arena that, one after the other, are one packet or one send: built headers from the
 * scratch area between slices of payload that stay where they were read. Reused, filled from 0.
 */
export type Pieces = {
  readonly capacity: number;
  count: number;
  readonly at: Int32Array;
  readonly length: Int32Array;
};

/** 64 segments of header and payload each. */
export const maximumPieces = 128;

export function createPieces(): Pieces {
  const capacity = maximumPieces;
  return { capacity, count: 0, at: new Int32Array(capacity), length: new Int32Array(capacity) };
}

export function addPiece(pieces: Pieces, at: number, length: number): void {
  pieces.at[pieces.count] = at;
  pieces.length[pieces.count] = length;
  pieces.count++;
}
