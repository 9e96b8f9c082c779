/** The main job as a newcomer runs it: `scripts/lab`, its story and its exit code (needs root). */
import { spawn } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import t from 'tap';
import { pause, until } from '../../lab/program.ts';

type Lab = { steps: { title: string; verdict: string; checks: { holds: boolean }[] }[] };

function lab(
  ...options: string[]
): Promise<{ pid: number; code: number | null; out: string; err: string }> {
  return new Promise((resolve) => {
    const child = spawn('scripts/lab', options, { stdio: ['ignore', 'pipe', 'pipe'] });
    let out = '';
    let err = '';
    child.stdout.on('data', (data) => {
      out += data;
    });
    child.stderr.on('data', (data) => {
      err += data;
    });
    child.once('close', (code) => resolve({ pid: child.pid ?? -1, code, out, err }));
  });
}

function namespaces(): string[] {
  return existsSync('/run/netns') ? readdirSync('/run/netns') : [];
}

for (const options of [[], ['--firewall', 'vxlan'], ['--firewall', 'suricata']]) {
  t.test(`every step holds: scripts/lab ${options.join(' ')}`, async (t) => {
    const { code, err, out, pid } = await lab('--json', '--duration', '1', ...options);
    t.equal(code, 0, err);
    const { steps } = JSON.parse(out) as Lab;
    t.equal(steps.length, 7);
    for (const { checks, title, verdict } of steps) {
      const all = checks.length > 0 && checks.every(({ holds }) => holds);
      t.ok(verdict === 'held' && all, title);
    }
    // The shell became the lab: its namespaces bear the number that it had.
    const left = namespaces().filter((name) => name.startsWith(`mp${pid}-`));
    t.same(left, [], 'no namespace is left');
  });
}

t.test('every step holds: scripts/lab --scenario ha', async (t) => {
  const { code, err, out, pid } = await lab('--json', '--scenario', 'ha');
  t.equal(code, 0, err);
  const { steps } = JSON.parse(out) as Lab;
  t.equal(steps.length, 7);
  for (const { checks, title, verdict } of steps) {
    t.ok(verdict === 'held' && checks.every(({ holds }) => holds), title);
  }
  const left = namespaces().filter((name) => name.startsWith(`mp${pid}-`));
  t.same(left, [], 'no namespace is left');
});

t.test('Ctrl-C leaves nothing behind', async (t) => {
  const child = spawn('scripts/lab', ['--json'], { stdio: 'ignore' });
  const ours = () => namespaces().filter((name) => name.startsWith(`mp${child.pid}-`));
  await until('the lab has its hosts', 30_000, () => ours().length === 5);
  await pause(1000);
  const ended = new Promise((resolve) => child.once('close', resolve));
  child.kill('SIGINT');
  t.equal(await ended, 130);
  t.same(ours(), []);
});

t.test('a wrong choice is refused with a sentence', async (t) => {
  const { code, err } = await lab('--firewall', 'vxlan', '--encapsulation', 'geneve');
  t.equal(code, 2);
  t.match(err, /vxlan/);
});
