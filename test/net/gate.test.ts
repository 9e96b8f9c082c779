/**
 * The gate: however telemetry fails, redirection stops within interval + timeout x retries + 1 s,
 * and what happens then is what the configuration says (needs root).
 */
import t, { type Test } from 'tap';
import { type Agent, gateBoundMs } from '../../lab/agent.ts';
import { createCertificates } from '../../lab/certificates.ts';
import { pause, until } from '../../lab/program.ts';
import { addresses } from '../../lab/topology.ts';
import { type Hairpin, shell, startHairpin } from '../support/hairpin.ts';

const { firewall, server } = addresses;

/** A counter of the kernel programs or the engine; 0 when it never counted. */
async function packets(agent: Agent, group: 'counters' | 'kernel', name: string): Promise<number> {
  return (await agent.status())?.[group][name]?.packets ?? 0;
}

/** Break telemetry and wait until the agent says closed; how long that took, in ms. */
async function closingTime(hairpin: Hairpin, agent: Agent, command: string): Promise<number> {
  const start = performance.now();
  await hairpin.firewall.command(command);
  await agent.reach('closed', gateBoundMs + 1000);
  return performance.now() - start;
}

/** A line every 100 ms over one TCP connection; stopping answers how many came through. */
async function startStream({ topology }: Hairpin) {
  const sink = shell(topology.server, 'socat -u TCP-LISTEN:9000,reuseaddr - | wc -l');
  await pause(300);
  const source = shell(
    topology.workload,
    `for i in $(seq 60); do echo $i; sleep 0.1; done | socat -u - TCP:${server}:9000`,
  ).catch(() => 'broken');
  return async () => {
    const words = await source;
    return { words, lines: Number(await sink) };
  };
}

async function stops(t: Test, command: (hairpin: Hairpin) => string, cause: string) {
  const hairpin = await startHairpin(t);
  const agent = await hairpin.startAgent();
  const finish = await startStream(hairpin);
  await pause(500);
  const took = await closingTime(hairpin, agent, command(hairpin));
  t.ok(took <= gateBoundMs, `closed after ${Math.round(took)} of at most ${gateBoundMs} ms`);
  await until(
    `the cause is ${cause}`,
    1000,
    async () => (await agent.status())?.gate.cause === cause,
  );
  // The data path looks at the gate when it breathes, at least every 100 ms.
  await pause(200);
  const passedBefore = await packets(agent, 'kernel', 'passedMode');
  const redirectedBefore = await packets(agent, 'kernel', 'redirected');
  t.match(
    await shell(hairpin.topology.workload, `ping -n -c 3 -i 0.2 -W 1 ${server}`),
    '3 received',
  );
  t.ok((await packets(agent, 'kernel', 'passedMode')) >= passedBefore + 6, 'the kernel passes');
  t.equal(await packets(agent, 'kernel', 'redirected'), redirectedBefore, 'nothing is redirected');
  t.same(await finish(), { words: '', lines: 60 }, 'the open connection went on');
  await hairpin.firewall.command('telemetry ok');
  await agent.reach('redirecting', 5000);
  await shell(hairpin.topology.workload, `ping -n -c 1 -W 1 ${server}`);
  t.ok((await packets(agent, 'kernel', 'redirected')) > redirectedBefore, 'redirects again');
}

t.test('killed endpoint', (t) => stops(t, () => 'telemetry refuse', 'telemetry-unreachable'));
t.test('hanging endpoint', (t) => stops(t, () => 'telemetry hang', 'telemetry-timeout'));
t.test('status 500', (t) => stops(t, () => 'telemetry status 500', 'telemetry-refused'));
t.test('slow endpoint', (t) => stops(t, () => 'telemetry slow 900', 'telemetry-timeout'));

t.test('a certificate of somebody else', async (t) => {
  const hairpin = await startHairpin(t);
  const agent = await hairpin.startAgent();
  const forged = createCertificates(hairpin.directory, 'forged', firewall);
  const command = `telemetry certificate ${forged.certificate} ${forged.key}`;
  const took = await closingTime(hairpin, agent, command);
  t.ok(took <= gateBoundMs, `closed after ${Math.round(took)} ms`);
  t.match((await agent.status())?.gate, { open: false, cause: 'telemetry-certificate' });
});

t.test('onTelemetryLoss: drop stops everything but management exceptions', async (t) => {
  const hairpin = await startHairpin(t, {
    settings: {
      policy: { onTelemetryLoss: 'drop' },
      workload: { interfaces: ['eth0'], management: ['10.2.0.20/32', 'tcp:10.1.0.1/32:22'] },
    },
  });
  const { router, workload } = hairpin.topology;
  const agent = await hairpin.startAgent();
  t.match(
    await shell(workload, 'ping -n -c 1 -W 1 10.8.0.1'),
    '1 received',
    'open: by the firewall',
  );
  await closingTime(hairpin, agent, 'telemetry refuse');
  t.match(
    await shell(workload, 'ping -n -c 2 -i 0.2 -W 1 10.8.0.1; true'),
    '0 received',
    'dropped',
  );
  t.match(
    await shell(workload, `ping -n -c 2 -i 0.2 -W 1 ${server}`),
    '2 received',
    'an exception',
  );
  const listener = shell(workload, 'timeout 3 socat -u TCP-LISTEN:22,reuseaddr -');
  await pause(300);
  await shell(router, 'echo let me in | socat -u - TCP:10.1.0.10:22');
  t.equal(await listener, 'let me in', 'the administrator');
  t.ok((await packets(agent, 'kernel', 'droppedMode')) >= 2, 'counted');
  await hairpin.firewall.command('telemetry ok');
  await agent.reach('redirecting', 5000);
  t.match(await shell(workload, 'ping -n -c 1 -W 1 10.8.0.1'), '1 received', 'open again');
});

t.test('an agent that starts without telemetry passes, and says why after its grace', async (t) => {
  const hairpin = await startHairpin(t);
  await hairpin.firewall.command('telemetry refuse');
  const agent = hairpin.launchAgent({
    telemetry: { interval: '1s', timeout: '500ms', retries: 2, startupGrace: '2s' },
  });
  await agent.reach('starting', 3000);
  t.match(await shell(hairpin.topology.workload, `ping -n -c 1 -W 1 ${server}`), '1 received');
  await agent.reach('closed', 5000);
  t.match((await agent.status())?.gate.cause, 'telemetry-unreachable');
  await hairpin.firewall.command('telemetry ok');
  await agent.reach('redirecting', 5000);
});
