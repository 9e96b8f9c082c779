// Untimed: another test may run beside this one.
/**
 * `doctor` on a host that is well, and on hosts that are not: each fault is named (needs root).
 *
 *     workload 10.1.0.10 - router 1 - router 2 - firewall 10.9.0.4
 */
import t, { type Test } from 'tap';
import { agentCommand } from '../../lab/agent.ts';
import { compareHostStates, readHostState } from '../../lab/host-state.ts';
import { run } from '../../lab/program.ts';
import { type Hairpin, shell, startHairpin } from '../support/hairpin.ts';

type Finding = { check: string; level: string; words: string; advice: string };

async function doctor(hairpin: Hairpin, configPath: string) {
  const script = `${agentCommand} doctor --config ${configPath} --json`;
  const { code, output, errors } = await run(hairpin.topology.workload, 'bash', ['-c', script]);
  if (output === '') throw new Error(`doctor: ${errors}`);
  return { code, findings: JSON.parse(output) as Finding[] };
}

function level(findings: readonly Finding[], check: string): string {
  return findings.find((finding) => finding.check === check)?.level ?? 'absent';
}

function words(findings: readonly Finding[], check: string): string {
  return findings
    .filter((finding) => finding.check === check)
    .map((finding) => finding.words)
    .join('\n');
}

t.test('doctor', async (t) => {
  const hairpin = await startHairpin(t);
  const { firewall, topology } = hairpin;
  const agent = await hairpin.startAgent();
  const { configPath } = agent;
  const before = readHostState(topology.workload);

  const faulty = async (t: Test, wanted: Record<string, RegExp>) => {
    const { code, findings } = await doctor(hairpin, configPath);
    t.equal(code, 9, 'exit code');
    for (const [check, pattern] of Object.entries(wanted)) {
      t.equal(level(findings, check), 'broken', `${check} is broken`);
      t.match(words(findings, check), pattern);
    }
    const broken = findings.filter((finding) => finding.level === 'broken');
    t.notOk(
      broken.some(({ advice }) => advice === ''),
      'each says what to do',
    );
  };

  await t.test('a host that is well, with the agent running', async (t) => {
    const { code, findings } = await doctor(hairpin, configPath);
    t.equal(code, 0, JSON.stringify(findings.filter(({ level: found }) => found === 'broken')));
    const checks = ['kernel', 'eBPF', 'capabilities', 'interfaces', 'agent', 'drift'];
    for (const check of checks) {
      t.equal(level(findings, check), 'fine', check);
    }
    t.match(words(findings, 'tunnel to lab-firewall'), /beyond 10\.1\.0\.1, /);
    t.match(words(findings, 'MTU to lab-firewall'), /^1500 bytes, 1452 of them/);
    t.match(words(findings, 'firewall lab-firewall'), /takes telemetry, answers in/);
    t.match(words(findings, 'telemetry to lab-firewall'), /answers in \d+ ms/);
    t.same(compareHostStates(before, readHostState(topology.workload)), [], 'no trace');
  });

  await t.test('a router on the way with a smaller MTU is named', async (t) => {
    topology.router.ip('link set transit mtu 1400');
    const { findings } = await doctor(hairpin, configPath);
    topology.router.ip('link set transit mtu 1500');
    t.match(words(findings, 'MTU to lab-firewall'), /^1400 bytes \(10\.\d+\.\d+\.\d+ lets no more/);
    await shell(topology.workload, 'ip route flush cache');
  });

  await t.test('the telemetry endpoint is not there', async (t) => {
    await firewall.command('telemetry refuse');
    await faulty(t, { 'telemetry to lab-firewall': /ECONNREFUSED/ });
    await firewall.command('telemetry ok');
  });

  await t.test('a router that has no route to the firewall is named', async (t) => {
    // What a router says is rationed, and the agent's own probes use it up.
    topology.router.must('sysctl', ['-qw', 'net.ipv4.icmp_ratelimit=0']);
    topology.router.ip('route add unreachable 10.9.0.4/32');
    await faulty(t, { 'tunnel to lab-firewall': /10\.1\.0\.1 says that it cannot reach it/ });
    topology.router.ip('route del unreachable 10.9.0.4/32');
  });

  await t.test('a firewall that does not listen', async (t) => {
    await firewall.stop();
    await faulty(t, { 'tunnel to lab-firewall': /refuses UDP 10\.9\.0\.4:6081/ });
  });
});
