/** Several data-path workers (needs root): packets that come to the wrong one, and faulty ones. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { parse, stringify } from 'yaml';
import { pause, run, start, until } from '../../lab/program.ts';
import { addresses } from '../../lab/topology.ts';
import { startEcho } from '../support/echo.ts';
import { shell, startHairpin } from '../support/hairpin.ts';
import { transfer } from '../support/transfer.ts';
import { bothWays, look, preloaded, withWorkers } from '../support/workers.ts';

const { server } = addresses;
const faulty = new URL('../support/faulty-worker.js', import.meta.url);
const sender = fileURLToPath(new URL('./fragment-sender.js', import.meta.url));

for (const workers of [2, 4]) {
  const wrong = preloaded(new URL('../support/without.js', import.meta.url), {
    WITHOUT: 'spreading',
  });

  t.test(`${workers} workers: packets that all come to another one`, async (t) => {
    const errors = await transfer(t, withWorkers(workers, wrong), 1 << 26, []);
    t.match(errors, 'without spreading');
  });

  for (const [where, options] of [
    ['at home', {}],
    ['elsewhere', wrong],
  ] as const) {
    t.test(`${workers} workers: fragments in reverse order, ${where}`, async (t) => {
      const hairpin = await startHairpin(t, withWorkers(workers, options));
      const agent = await hairpin.startAgent();
      for (const [from, to, source, target] of bothWays(hairpin.topology)) {
        const { ended } = await startEcho(to);
        const args = [sender, source, target, '7000', '9000'];
        const { errors, output } = await run(from, process.execPath, args);
        const [sent, received] = output.trim().split(' ');
        t.equal(received, sent, `from ${source}${errors}`);
        await ended;
      }
      const { packets } = await look(agent);
      t.equal(packets('fragment-unmatched') + packets('fragments-full'), 0);
    });
  }
}

t.test('a worker that dies or hangs leaves the others at work', async (t) => {
  const file = join(t.testdir({}), 'fault');
  const hairpin = await startHairpin(t, withWorkers(2, preloaded(faulty, { FAULT: file })));
  const { topology } = hairpin;
  const agent = await hairpin.startAgent();
  const echo = start(topology.server, 'socat', [
    'TCP-LISTEN:7000,reuseaddr,fork,backlog=64',
    'EXEC:cat',
  ]);
  t.teardown(() => echo.stop());
  await pause(300);
  // Enough connections that each worker has some.
  const ask = async () => {
    const one = `(echo x | socat -t 8 - TCP:${server}:7000) &`;
    return (await shell(topology.workload, `${one.repeat(12)} wait`)).replaceAll('\n', '');
  };
  const answers = 'x'.repeat(12);
  t.equal(await ask(), answers);
  const first = await look(agent);
  t.ok(first.packets('reinjected') >= 24);
  writeFileSync(file, 'hang');
  await pause(1500);
  t.equal(await ask(), answers, 'what it would get passes, the rest is redirected');
  const hung = await look(agent);
  t.ok(hung.status.kernel.passedAgentDead!.packets > 0, 'by its heartbeat');
  t.ok(hung.packets('reinjected') > first.packets('reinjected'), 'the other one goes on');
  await pause(1500);
  writeFileSync(file, 'die');
  await until('the death is told', 3000, () =>
    /died and is started again.*told to die/.test(agent.program.errors + agent.program.output),
  );
  await pause(500);
  const later = await look(agent);
  t.equal(await ask(), answers);
  const end = await look(agent);
  t.ok(end.packets('reinjected') >= later.packets('reinjected') + 12 * 6, 'both redirect again');
  const config = parse(readFileSync(agent.configPath, 'utf8'));
  writeFileSync(agent.configPath, stringify({ ...config, default: 'pass' }));
  const reload = `bin/microperimeter reload --socket ${agent.socketPath}`;
  t.match(await shell(topology.workload, reload), 'default: redirect -> pass');
  const reloaded = (await look(agent)).packets('redirected');
  t.equal(await ask(), answers);
  t.equal((await look(agent)).packets('redirected'), reloaded, 'all decide by another policy');
});
