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

/** Which way a packet was going when the kernel handed it over, seen from the host. */
export const Direction = { Egress: 0, Ingress: 1 } as const;
export type Direction = (typeof Direction)[keyof typeof Direction];

/** Kinds of super-packet. */
export const Gso = { None: 0, Tcp4: 1, Udp: 2 } as const;
export type Gso = (typeof Gso)[keyof typeof Gso];

/**
 * Most segments that one UDP_SEGMENT send may have (include/linux/udp.h UDP_MAX_SEGMENTS is 128
 * from 6.9, 64 before).
 */
export const maximumSegments = 64;
/** Largest UDP payload over IPv4: 65535 - 20 - 8. */
export const maximumDatagramLength = 65507;

/** 64 segments of header and payload each. */
export const maximumPieces = 128;

export function createPieces(): Pieces {
  const capacity = maximumPieces;
  return { capacity, count: 0, at: new Int32Array(capacity), length: new Int32Array(capacity) };
}

/** Bytes of all pieces. */
export function totalLength(pieces: Pieces): number {
  let total = 0;
  for (let index = 0; index < pieces.count; index++) total += pieces.length[index];
  return total;
}

export function addPiece(pieces: Pieces, at: number, length: number): void {
  pieces.at[pieces.count] = at;
  pieces.length[pieces.count] = length;
  pieces.count++;
}
