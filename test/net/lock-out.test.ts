// Untimed: another test may run beside this one.
/**
 * Nobody locks himself out of a host by SSH (needs root): a configuration on trial that drops
 * everything is rolled back by itself, and the session that starts an agent is excepted.
 *
 *     server: ssh  -  router  -  workload: sshd, agent
 */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { parse, stringify } from 'yaml';
import { agentCommand } from '../../lab/agent.ts';
import { must } from '../../lab/namespace.ts';
import { pause, run, start, until } from '../../lab/program.ts';
import { addresses } from '../../lab/topology.ts';
import { type Hairpin, shell, startHairpin } from '../support/hairpin.ts';

const { server, workload } = addresses;

/** An SSH server on the workload. Returns how the server logs in. */
async function startSshd(t: Test, { directory, topology }: Hairpin): Promise<string> {
  const key = join(directory, 'key');
  must('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-f', key]);
  // Its unprivileged half is locked up here.
  mkdirSync('/run/sshd', { recursive: true, mode: 0o755 });
  const config = join(directory, 'sshd_config');
  const lines = [
    `HostKey ${key}`,
    `AuthorizedKeysFile ${key}.pub`,
    `SetEnv PATH=${process.env.PATH}`,
    'PermitRootLogin yes',
    'StrictModes no',
    'PidFile none',
    'UsePAM no',
  ];
  writeFileSync(config, `${lines.join('\n')}\n`);
  const sshd = start(topology.workload, '/usr/sbin/sshd', ['-D', '-e', '-f', config]);
  t.teardown(() => sshd.stop());
  const options = [
    `-i ${key} -o IdentitiesOnly=yes -o BatchMode=yes -o ConnectTimeout=1`,
    '-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR',
  ];
  return `ssh ${options.join(' ')} root@${workload}`;
}

async function logsIn({ topology }: Hairpin, ssh: string): Promise<boolean> {
  return (await run(topology.server, 'bash', ['-c', `${ssh} true`])).code === 0;
}

t.test('a trial that locks out ends by itself; one that is confirmed stays', async (t) => {
  const hairpin = await startHairpin(t);
  const { directory, topology } = hairpin;
  const ssh = await startSshd(t, hairpin);
  const agent = await hairpin.startAgent();
  await until('sshd answers', 5_000, () => logsIn(hairpin, ssh), 200);
  const before = readFileSync(agent.configPath, 'utf8');
  const candidate = (keys: object) => {
    const path = join(directory, 'next.yaml');
    writeFileSync(path, stringify({ ...parse(before), ...keys }));
    return path;
  };
  const say = (words: string) => `${agentCommand} ${words} --socket ${agent.socketPath}`;
  const pending = async () => (await agent.status()) as unknown as { configuration: object };

  const locking = candidate({ default: 'drop', policy: { established: 'reset' } });
  const said = await shell(topology.server, `${ssh} ${say(`apply --confirm 6s ${locking}`)}`);
  t.match(said, /^on trial:\n[\s\S]*default: redirect -> drop/);
  t.match(
    said,
    /If your SSH from 10\.2\.0\.20 to port 22 is lost, wait\. It is rolled back in 6 s/,
  );
  t.match(await pending(), { configuration: { pending: { secondsLeft: /^[3-6]$/ } } });
  t.notOk(await logsIn(hairpin, ssh), 'nobody gets in');
  t.match(await shell(topology.workload, `${say('reload')}; echo $?`), /on trial[\s\S]*\n2$/);
  await until('the way in is open again', 8_000, () => logsIn(hairpin, ssh), 200);
  t.match(agent.program.output, /roll back: nobody confirmed it in time/);
  t.equal(readFileSync(agent.configPath, 'utf8'), before, 'the file was never touched');
  t.match(
    await shell(topology.workload, `${say('confirm')} 2>&1; echo $?`),
    /rolled back[\s\S]*2$/,
  );

  // In place, by hand, and confirmed.
  writeFileSync(agent.configPath, `# mine\n${stringify({ ...parse(before), default: 'pass' })}`);
  await shell(topology.workload, say(`apply ${agent.configPath}`));
  t.equal(readFileSync(agent.configPath, 'utf8'), before, 'until it is confirmed, the old one');
  t.match(await shell(topology.workload, say('confirm')), /^confirmed: .*agent.yaml has it/);
  t.match(readFileSync(agent.configPath, 'utf8'), /^# mine\n[\s\S]*default: pass/);
  t.match(await pending(), { configuration: { differs: false, pending: undefined } });

  await shell(topology.workload, say(`apply ${candidate({ default: 'drop' })}`));
  t.match(await shell(topology.workload, say('rollback')), /^rolled back/);
  t.ok(await logsIn(hairpin, ssh));
});

t.test('the session that starts the agent is excepted', async (t) => {
  const hairpin = await startHairpin(t, { top: { default: 'drop' } });
  const { topology } = hairpin;
  const ssh = await startSshd(t, hairpin);
  await until('sshd answers', 5_000, () => logsIn(hairpin, ssh), 200);
  // To have its file written; it is stopped again.
  const first = await hairpin.startAgent();
  t.notOk(await logsIn(hairpin, ssh), 'without the exception nobody gets in');
  await first.program.stop();

  // As by sudo: nothing of the session is left in the environment.
  const command = `env -i PATH=$PATH ${agentCommand} run --config ${first.configPath}`;
  const session = start(topology.server, 'bash', ['-c', `${ssh} '${command}'`]);
  t.teardown(async () => {
    await shell(topology.workload, `${agentCommand} stop --socket ${first.socketPath}`);
    await session.stop();
  });
  const state = async () => (await first.status())?.state === 'redirecting';
  await until('it redirects', 10_000, state, 100);
  t.match(
    session.output,
    /started by SSH from 10\.2\.0\.20 to port 22: tcp:10\.2\.0\.20:22 is never/,
  );
  t.match(await first.status(), { management: [{ exception: `tcp:${server}:22`, source: 'ssh' }] });
  await pause(300);
  t.ok(await logsIn(hairpin, ssh), 'another session of the same client gets in');
});
