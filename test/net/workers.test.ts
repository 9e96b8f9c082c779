/** Several data-path workers (needs root): every flow whole, on one of them, whatever comes. */
import t from 'tap';
import { transfer } from '../support/transfer.ts';

for (const workers of [2, 4]) {
  t.test(`transfers by ${workers} workers`, (t) =>
    transfer(t, { settings: { limits: { workers } } }, 1 << 26, []),
  );
}
