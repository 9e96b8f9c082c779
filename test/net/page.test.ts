// Untimed: another test may run beside this one.
/**
 * The status page in a real Chromium on the workload itself (needs root): what it shows of a real
 * agent, by mouse and by keyboard, in light and dark. MICROPERIMETER_IMAGES=DIR keeps the pictures.
 */
import { chmodSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Browser, chromium, type Page } from 'playwright-core';
import t, { type Test } from 'tap';
import { pause, start } from '../../lab/program.ts';
import { addresses } from '../../lab/topology.ts';
import { type Hairpin, shell, startHairpin } from '../support/hairpin.ts';

const { server, workload } = addresses;
const address = 'http://127.0.0.1:9478';
const token = 'b7c1d2e3f4a5968778695a4b3c2d1e0f';
const images = process.env.MICROPERIMETER_IMAGES;

async function open(t: Test, { directory, topology }: Hairpin): Promise<Browser> {
  // Chromium sees the workload's loopback, and no network else.
  const program = join(directory, 'chromium');
  writeFileSync(
    program,
    `#!/bin/sh\nexec nsenter --net=${topology.workload.path} /usr/bin/chromium "$@"\n`,
  );
  chmodSync(program, 0o755);
  const browser = await chromium.launch({
    executablePath: program,
    args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--disable-background-networking'],
  });
  t.teardown(() => browser.close());
  return browser;
}

// biome-ignore lint/performance/useDomNodeTextContent: as it is laid out, with spaces between cells
const text = (page: Page, selector: string) => page.locator(selector).innerText();

async function picture(page: Page, name: string): Promise<void> {
  if (images === undefined) return;
  mkdirSync(images, { recursive: true });
  await page.screenshot({ path: join(images, `${name}.png`) });
}

t.test('what the agent does, in a browser', { timeout: 120_000 }, async (t) => {
  const tokenFile = '/run/microperimeter-page-token';
  writeFileSync(tokenFile, `${token}\n`, { mode: 0o600 });
  const hairpin = await startHairpin(t, {
    settings: { control: { http: { listen: '127.0.0.1:9478', tokenFile } } },
    top: {
      rules: [
        { name: 'database', direction: 'egress', protocol: 'tcp', remotePort: 5432 },
        { name: 'dns', protocol: 'udp', remotePort: 53, action: 'pass' },
        { name: 'no-telnet', protocol: 'tcp', remotePort: 23, action: 'drop' },
      ].map((rule) => ({ action: 'redirect', ...rule })),
      default: 'redirect',
    },
  });
  const { topology } = hairpin;
  const agent = await hairpin.startAgent();
  const sink = start(topology.server, 'socat', [
    '-u',
    'TCP-LISTEN:5432,fork,reuseaddr',
    'OPEN:/dev/null',
  ]);
  t.teardown(() => sink.stop());
  await pause(300);
  const load = start(topology.workload, 'bash', [
    '-c',
    `exec 3<>/dev/tcp/${server}/5432; while :; do head -c 2000000 /dev/zero >&3; sleep 0.$((RANDOM % 4 + 1)); done`,
  ]);
  t.teardown(() => load.stop('SIGKILL'));
  await shell(topology.workload, `timeout 0.5 socat -u - TCP:${server}:23 </dev/null || true`);
  const pings = start(topology.workload, 'ping', ['-n', '-q', '-i', '0.2', server]);
  t.teardown(() => pings.stop());

  const browser = await open(t, hairpin);
  const page = await browser.newPage({ viewport: { width: 1180, height: 1000 } });
  const faults: string[] = [];
  page.on('console', (message) => {
    if (message.type() === 'error') faults.push(message.text());
  });
  page.on('pageerror', (error) => faults.push(error.message));
  await page.goto(address);
  await page.locator('#firewalls tbody tr').first().waitFor();
  t.match(await text(page, '#state'), /^Redirecting for /);
  t.match(await text(page, '#gate'), /^The gate is open, with \d.* s of its lease left: /);
  t.match(await text(page, '#firewalls'), /lab-firewall\s+10\.9\.0\.4\s+active/);
  t.match(await text(page, '#rules'), /database\s+redirect\s+1/);
  await page.locator('#flows tbody tr', { hasText: `${server}:5432` }).waitFor();
  t.match(
    await text(page, '#flows'),
    /tcp\s+10\.1\.0\.10:\d+\s+10\.2\.0\.20:5432\s+this host\s+redirect/,
  );
  t.match(await text(page, '#drops'), 'a rule says drop');
  await page
    .locator('.card', { hasText: 'redirected' })
    .locator('strong', { hasText: 'Mbit/s' })
    .waitFor();

  // By keyboard alone, from the top of the page on.
  await page.keyboard.press('Tab');
  t.equal(await page.evaluate('document.activeElement.className'), 'skip', 'first a way past');
  await page.getByLabel('From').focus();
  await page.keyboard.type(`${workload}:41000`);
  await page.keyboard.press('Tab');
  await page.keyboard.type(`${server}:23`);
  await page.keyboard.press('Enter');
  await page.locator('#explanation dl').waitFor();
  t.match(
    await text(page, '#explanation'),
    /verdict\s+drop\s+decided by\s+rule no-telnet \(line \d+\)/,
  );
  await page.getByLabel('To', { exact: true }).fill('nowhere');
  await page.getByRole('button', { name: 'Explain' }).click();
  await page.locator('#explanation .bad').waitFor();
  t.match(await text(page, '#explanation'), /nowhere/);

  await page.getByLabel('To', { exact: true }).fill(`${server}:5432`);
  await page.getByRole('button', { name: 'Explain' }).click();
  await page.locator('#explanation dl').waitFor();
  // Some seconds of history make the picture.
  if (images !== undefined) await pause(30_000);
  await picture(page, 'page-light');
  await page.emulateMedia({ colorScheme: 'dark' });
  const back = await page.evaluate('getComputedStyle(document.body).backgroundColor');
  t.equal(back, 'rgb(18, 21, 26)', 'dark where it is asked for');
  await picture(page, 'page-dark');

  const names = await page
    .getByRole('table')
    .evaluateAll((tables) =>
      tables.map(
        (table) =>
          (table as unknown as { caption: { textContent: string } | null }).caption?.textContent,
      ),
    );
  t.ok(names.length >= 4 && names.every((name) => name !== undefined), 'each table has a name');
  t.equal(await page.getByRole('heading', { level: 1 }).count(), 1);
  t.ok((await page.getByRole('region').count()) >= 6, 'sections are landmarks');

  await page.getByLabel('Token').fill('wrong');
  await page.getByRole('button', { name: 'Reload' }).click();
  await page.locator('#reloaded .bad').waitFor();
  await page.getByLabel('Token').fill(token);
  await page.getByRole('button', { name: 'Reload' }).click();
  await page.locator('#reloaded .good').waitFor();
  t.match(await text(page, '#reloaded'), 'nothing has changed');
  t.match(agent.program.output, /reload, asked by the status page/);
  const unexpected = faults.filter((fault) => !/status of 40[01]/.test(fault));
  t.same(unexpected, [], 'nothing that its own policy refuses');

  await page.setViewportSize({ width: 390, height: 800 });
  const width = await page.evaluate('document.documentElement.scrollWidth');
  t.ok(Number(width) <= 390, 'no sideways scrolling on a phone');

  await agent.program.stop();
  await page.locator('#problem', { hasText: 'does not answer' }).waitFor();
  t.notMatch(readFileSync(agent.configPath, 'utf8'), token);
});
