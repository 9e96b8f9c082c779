/**
 * Whatever makes the data path fast may be missing, and nothing but its speed changes (needs root):
 * transfers with each optimisation taken away, on links that carry super-packets and on links that
 * carry none.
 */
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { transfer } from '../support/transfer.ts';

const main = fileURLToPath(new URL('../../cli/main.js', import.meta.url));
const preload = new URL('../support/without.js', import.meta.url).href;
const bytes = 1 << 24;

for (const offloads of ['all', 'none'] as const) {
  const topology = { offloads };
  for (const name of ['segmentation', 'joining', 'coalescing', 'simd']) {
    t.test(`offloads ${offloads}, without ${name}`, async (t) => {
      const command = [process.execPath, '--import', preload, main] as const;
      const environment = { WITHOUT: name };
      const errors = await transfer(t, { command, environment, topology }, bytes, []);
      t.match(errors, `without ${name}`, 'it was taken away');
    });
  }
  t.test(`offloads ${offloads}, without busy polling`, (t) =>
    transfer(t, { settings: { limits: { busyPoll: false } }, topology }, bytes, []),
  );
}
