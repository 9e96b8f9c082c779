/**
 * Who knows what was carried of a flow without the engine: asked whenever a record is looked at,
 * and told when it ends.
 */
export type Carried = {
  collect(flow: number, nowTick: number): void;
  end(flow: number): void;
};

export const nothingCarried: Carried = { collect() {}, end() {} };
