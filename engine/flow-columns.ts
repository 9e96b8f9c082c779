/**
 * The columns of the flow table that others may read: shared memory, one writer (the data path of
 * one worker). A reader in another thread sees each number whole; a record that is being begun or
 * removed while it is read may show a mixture, for one reading.
 */

export type FlowColumns = {
  /** 1: the record is in use. */
  readonly used: Uint8Array;
  readonly verdict: Uint8Array;
  readonly state: Uint8Array;
  readonly protocol: Uint8Array;
  /** 1 when end A is this host. */
  readonly localIsA: Uint8Array;
  /** Direction of the first packet: who opened the connection. */
  readonly opener: Uint8Array;
  /** Which workload interface the flow uses, as its position in the configuration. */
  readonly link: Uint8Array;
  /** OnFailure of the rule that decided it. */
  readonly onFailure: Uint8Array;
  /** 1: the programs in the kernel have carried packets of it by themselves. */
  readonly carried: Uint8Array;
  /** Which firewall holds it, as its place in the configuration; 255: none. */
  readonly firewall: Uint8Array;
  readonly addressA: Int32Array;
  readonly addressB: Int32Array;
  /** Port of A in the upper half, of B in the lower. */
  readonly ports: Int32Array;
  readonly cookie: Int32Array;
  /** Index of the rule that decided it in the policy of `generation`; -1: the default. */
  readonly rule: Int32Array;
  readonly generation: Int32Array;
  /** Ticks of 100 ms of CLOCK_MONOTONIC. */
  readonly firstSeen: Int32Array;
  readonly lastSeen: Int32Array;
  /** Wire packets and IPv4 bytes read from the host's side: `[2 * flow + direction]`. */
  readonly packets: Float64Array;
  readonly bytes: Float64Array;
};

const byteColumns = 10;
const wordColumns = 8;
const bytesPerFlow = byteColumns + 4 * wordColumns + 2 * 2 * 8;

/** Bytes of shared memory for `capacity` flows; a multiple of 8 is needed for the layout. */
export function flowColumnsByteLength(capacity: number): number {
  return roundUp(capacity) * bytesPerFlow;
}

function roundUp(capacity: number): number {
  return Math.ceil(capacity / 8) * 8;
}

/** The columns over `memory`, which has flowColumnsByteLength bytes; largest items first. */
export function openFlowColumns(memory: SharedArrayBuffer, capacity: number): FlowColumns {
  const rows = roundUp(capacity);
  let at = 0;
  const doubles = () => {
    const column = new Float64Array(memory, at, 2 * rows);
    at += column.byteLength;
    return column;
  };
  const words = () => {
    const column = new Int32Array(memory, at, rows);
    at += column.byteLength;
    return column;
  };
  const bytes = () => {
    const column = new Uint8Array(memory, at, rows);
    at += column.byteLength;
    return column;
  };
  return {
    packets: doubles(),
    bytes: doubles(),
    addressA: words(),
    addressB: words(),
    ports: words(),
    cookie: words(),
    rule: words(),
    generation: words(),
    firstSeen: words(),
    lastSeen: words(),
    used: bytes(),
    verdict: bytes(),
    state: bytes(),
    protocol: bytes(),
    localIsA: bytes(),
    opener: bytes(),
    link: bytes(),
    onFailure: bytes(),
    carried: bytes(),
    firewall: bytes(),
  };
}
