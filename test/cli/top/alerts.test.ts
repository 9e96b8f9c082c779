/** Alerts follow a file that grows, is cut and is replaced, and find their flow by either end. */
import {
  appendFileSync,
  mkdtempSync,
  renameSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { AlertFile } from '../../../cli/top/alerts.ts';

const directory = mkdtempSync(join(tmpdir(), 'mp-alerts-'));
t.teardown(() => rmSync(directory, { recursive: true, force: true }));

const flow = {
  protocol: 'tcp',
  local: '10.1.0.10',
  localPort: 40000,
  remote: '10.2.0.20',
  remotePort: 80,
};
const line = (signature: unknown, more: object = {}) =>
  `${JSON.stringify({
    event_type: 'alert',
    proto: 'TCP',
    src_ip: '10.2.0.20',
    src_port: 80,
    dest_ip: '10.1.0.10',
    dest_port: 40000,
    alert: { action: 'blocked', signature },
    ...more,
  })}\n`;

t.test('a file that grows', async (t) => {
  const path = join(directory, 'eve.json');
  writeFileSync(path, line('first'));
  const alerts = new AlertFile(path);
  t.teardown(() => alerts.close());
  t.equal(alerts.of(flow), undefined, 'before the first look');
  alerts.look();
  t.same(alerts.of(flow), { signature: 'first', isBlocked: true });
  t.equal(alerts.of({ ...flow, protocol: 'udp' }), undefined);
  t.equal(alerts.of({ ...flow, localPort: 40001 }), undefined);
  const half = line('second', { alert: { action: 'allowed', signature: 'second' } });
  appendFileSync(path, half.slice(0, 40));
  alerts.look();
  t.equal(alerts.of(flow)?.signature, 'first', 'half a line is none yet');
  appendFileSync(path, half.slice(40));
  alerts.look();
  t.same(alerts.of(flow), { signature: 'second', isBlocked: false });
  appendFileSync(path, 'no "alert" {\n{"event_type":"alert","alert":null}\n');
  appendFileSync(path, line(7));
  appendFileSync(path, line('\u001b[31mred', { src_ip: undefined }));
  alerts.look();
  t.equal(alerts.of(flow)?.signature, 'second', 'what is no alert changes nothing');
  appendFileSync(path, line('\u001b[31mred'));
  alerts.look();
  t.equal(alerts.of(flow)?.signature, '?[31mred', 'nothing a terminal would obey');

  truncateSync(path);
  appendFileSync(path, line('third'));
  alerts.look();
  t.equal(alerts.of(flow)?.signature, 'third', 'begun again');
  renameSync(path, `${path}.1`);
  alerts.look();
  writeFileSync(path, line('fourth and longer than anything that was there before, to be sure'));
  alerts.look();
  t.match(alerts.of(flow)?.signature, /^fourth/, 'rotated');
});

t.test('no more are remembered than there is room for', async (t) => {
  const path = join(directory, 'many.json');
  writeFileSync(path, '');
  const alerts = new AlertFile(path);
  t.teardown(() => alerts.close());
  const many = Array.from({ length: 12_000 }, (_, i) => line(`n${i}`, { dest_port: i }));
  appendFileSync(path, many.join(''));
  alerts.look();
  t.equal(alerts.of({ ...flow, localPort: 100 }), undefined);
  t.equal(alerts.of({ ...flow, localPort: 11_999 })?.signature, 'n11999');
});

t.test('a file that is not there', async (t) => {
  t.throws(() => new AlertFile(join(directory, 'none')), { code: 'ENOENT' });
});
