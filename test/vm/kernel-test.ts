/** What a kernel is tested by, in a machine of its own (machine.ts). */
import t from 'tap';
import { fetchKernel } from './debian.ts';
import { runIn } from './machine.ts';

const limitMs = 150_000;

/**
 * Every program loads, with no more capabilities than the agent keeps, and every branch of those
 * that carry flows does what it should.
 */
export const programsWork = `
ulimit -l unlimited
setpriv --bounding-set=-all,+net_admin,+bpf,+net_raw --inh-caps=-all --no-new-privs \\
  node dist/test/vm/verifier.js || exit 1
node dist/test/net/carry-programs.test.js >/tmp/branches || { cat /tmp/branches; exit 2; }
`;

/** Traffic goes through the hair-pin. */
export const trafficTravels = `
TAP_TIMEOUT=130 node --enable-source-maps dist/test/vm/journey.js || exit 3
`;

/** @param suite the release of Debian that has Linux `version` */
export function testKernel(suite: string, version: string, script: string): void {
  t.test(`Linux ${version}`, async (t) => {
    const kernel = fetchKernel(suite);
    t.match(kernel.release, version);
    const { code, output } = await runIn(kernel, script, limitMs);
    if (!t.equal(code, 0, 'all of it')) t.comment(output.slice(-8000));
  });
}
