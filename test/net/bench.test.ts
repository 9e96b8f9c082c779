/** The bench runs, says what it measured, and leaves nothing behind (needs root). */
import { type ChildProcess, spawn } from 'node:child_process';
import { readdirSync } from 'node:fs';
import t from 'tap';

/** Two peers, one that redirects; the least that shows traffic, proof and report. */
const args = ['dist/bench/main.js', '--quick', '--only', '^(direct|agent geneve), mtu', '--json'];

function start(measurement: string): { child: ChildProcess; output: () => string } {
  const child = spawn(process.execPath, [...args, '--measure', measurement]);
  let text = '';
  child.stdout.on('data', (data: Buffer) => {
    text += data;
  });
  child.stderr.on('data', (data: Buffer) => {
    text += data;
  });
  return { child, output: () => text };
}

const ended = (child: ChildProcess) =>
  new Promise<number | null>((resolve) => child.once('close', resolve));
const left = (child: ChildProcess) =>
  readdirSync('/run/netns').filter((name) => name.startsWith(`mp${child.pid}-`));

t.test('figures of both peers, each on the path it claims', async (t) => {
  const { child, output } = start('tcp|connections');
  t.equal(await ended(child), 0, output());
  const lines = output().split('\n');
  const figures = lines.filter((line) => line.startsWith('{')).map((line) => JSON.parse(line));
  for (const peer of ['direct', 'agent geneve']) {
    for (const name of ['tcp-1-out', 'tcp-4-in', 'connections', 'cpu-gb-machine']) {
      const found = figures.find((one) => one.name === name && one.parameters.peer === peer);
      t.ok(found?.value > 0, `${peer}: ${name}`);
    }
  }
  t.same(left(child), [], 'no namespaces are left');
});

t.test('interrupted, it leaves nothing', async (t) => {
  const { child, output } = start('tcp');
  await new Promise<void>((resolve) => {
    child.stderr?.on('data', () => {
      if (output().includes('agent geneve')) resolve();
    });
  });
  // In the middle of things: the hosts are there, the agent starts.
  await new Promise((resolve) => setTimeout(resolve, 1500));
  t.not(left(child).length, 0, 'there was something to remove');
  child.kill('SIGINT');
  t.equal(await ended(child), 130);
  t.same(left(child), []);
});
