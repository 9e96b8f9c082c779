/**
 * A gigabyte each way through the hair-pin arrives as it was sent, on a clean path and on one that
 * loses, duplicates and reorders (needs root). The kernel here may have no netem, so the lab's
 * firewall does that.
 */
import t from 'tap';
import { transfer } from '../support/transfer.ts';

const gigabyte = 1 << 30;
const impairments = ['tunnel seed 7', 'tunnel loss 1', 'tunnel duplicate 1', 'tunnel reorder 5'];

t.test('clean, geneve', (t) => transfer(t, {}, gigabyte, []));

t.test("clean, the kernel's vxlan", (t) =>
  transfer(t, { firewall: 'vxlan', topology: { offloads: 'firewall-off' } }, gigabyte >> 2, []),
);

t.test('1 % lost, 1 % duplicated, 5 % reordered', (t) =>
  transfer(t, {}, gigabyte >> 5, impairments),
);
