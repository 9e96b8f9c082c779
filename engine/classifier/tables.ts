/**
 * Compiled rules: one immutable array of 32-bit words, and where in it the roots are. The array
 * lies in shared memory, so a worker gets it by message without a copy, and a reload replaces it
 * whole. docs/classifier.md draws it.
 *
 * Every node is a run of words, indexed by some digits of what is looked up. An entry that is not
 * negative is the offset of the next node; a negative one ends the walk:
 *
 *   addresses   ~offset of the record of that range of addresses
 *   ports       ~class of ports that no rule tells apart
 *   services    ~class of (opener, protocol, remote port) that no rule tells apart
 *   planes      ~(rule << 1);
 *               ~(offset << 2 | 3): go on at that node by the class of the local port;
 *               ~(offset << 2 | 1): go on at that node by the class of the service
 */

/**
 * Shifts of the digits of an address, from the top. match.ts writes these and `digitBits` out, as
 * numbers in its code.
 */
export const addressShifts = [16, 10, 5, 0] as const;

/** A record has a word for each of three planes, and one to spare. */

export const recordWords = 4;

/** Digits of classes and columns: bits a level. */
export const digitBits = 4;

/** Stands for "no rule" inside the tables: later than any rule. */
export const lastRule = 0x3fff_ffff;

export type Tables = {
  readonly words: Int32Array;
  readonly ruleCount: number;
  /** Where the rules stand one after the other, when they are scanned and not looked up; or -1. */
  readonly scanRoot: number;
  readonly localRoot: number;
  readonly remoteRoot: number;
  readonly localPortRoot: number;
  readonly remotePortRoot: number;
  /** 512 entries: protocol, and 256 more for those who come in. */
  readonly serviceRoot: number;
  /** Shift of the first digit of the class of a service, and of one of local ports. */
  readonly serviceShift: number;
  readonly localPortShift: number;

  /** Shift of the first digit of a column, by plane; the rows of plane 1 are remote addresses. */
  readonly shift0: number;
  readonly shift1: number;
  readonly shift2: number;
  /** First rule of each plane: one that begins after what has matched is not looked at. */
  readonly first0: number;
  readonly first1: number;
  readonly first2: number;
};

export type CompileLimits = {
  /** Of the tables; the compiler itself uses a few times as much. */
  readonly bytes: number;
  readonly ms: number;
};

/** The rules would need more memory or time than allowed. */
export class RulesTooLargeError extends Error {
  override readonly name = 'RulesTooLargeError';
  readonly code: 'RULES_TOO_LARGE' | 'RULES_TOO_SLOW';

  constructor(code: RulesTooLargeError['code'], message: string) {
    super(message);
    this.code = code;
  }
}
