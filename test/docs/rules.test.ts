/**
 * docs/rules.md says what `explain` answers: each command of a console block is run against the
 * configuration shown before it. `UPDATE=1 node dist/test/docs/rules.test.js` writes the answers.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';

const document = 'docs/rules.md';
const directory = mkdtempSync(join(tmpdir(), 'mp-rules-'));
t.teardown(() => rmSync(directory, { recursive: true, force: true }));

/** Below what is shown, so that lines are counted as a reader counts them. */
const base = `version: 1
firewalls:
  - name: fw-a
    address: 10.9.0.4
    telemetry: { url: https://10.9.0.4/v1/metrics, ca: /etc/ca.pem }
control: { socket: ${directory}/none.sock }
# As on a NIC that is no veth, whatever this machine has.
acceleration: kernel
`;
const config = join(directory, 'config.yaml');

/** The block with its answers as they are now. */
function answered(block: string): string {
  const commands = block.split('\n').filter((line) => line.startsWith('$ '));
  return commands
    .map((command) => {
      const [name, ...words] = command.slice(2).split(' ');
      if (name !== 'microperimeter') t.fail(`not a command of ours: ${command}`);
      const args = ['dist/cli/main.js', ...words, '--config', config];
      const { status, stderr, stdout } = spawnSync(process.execPath, args, { encoding: 'utf8' });
      t.equal(status, 0, `${command}: ${stderr}`);
      return `${command}\n${stdout}`;
    })
    .join('');
}

t.test('the answers in the document are those of explain', async (t) => {
  const text = readFileSync(document, 'utf8');
  let count = 0;
  const now = text.replaceAll(/```(yaml|console)\n(.*?)```/gs, (block, language, body) => {
    if (language === 'yaml') {
      writeFileSync(config, `${body}${base}`);
      return block;
    }
    count++;
    return `\`\`\`console\n${answered(body)}\`\`\``;
  });
  if (process.env.UPDATE === '1') writeFileSync(document, now);
  else t.equal(text, now);
  t.ok(count >= 6);
});
