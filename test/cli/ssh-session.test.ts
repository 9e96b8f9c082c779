/** The session that a process was started from, found in a proc(5) of our own making. */
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import {
  exceptionFor,
  findIpv6Session,
  findSshSession,
  sshConnectionOf,
} from '../../cli/ssh-session.ts';

type Process = { parent: number; name?: string; environment?: string; inode?: string };

/** 198.51.100.7:40000 to 10.1.0.10:2222, as net/tcp prints it. */
const line = (state = '01', inode = '777') =>
  `   0: 0A00010A:08AE 076433C6:9C40 ${state} 00000000:00000000 00:00000000 00000000 0 0 ${inode} 1\n`;

function proc(t: Test, processes: Record<number, Process>, tcp: string, tcp6 = ''): string {
  const root = mkdtempSync(join(tmpdir(), 'mp-proc-'));
  t.teardown(() => rmSync(root, { recursive: true }));
  mkdirSync(join(root, 'self/net'), { recursive: true });
  writeFileSync(join(root, 'self/net/tcp'), `  sl  local_address\n${tcp}`);
  writeFileSync(join(root, 'self/net/tcp6'), `  sl  local_address\n${tcp6}`);
  for (const [pid, { environment = '', inode, name = 'bash', parent }] of Object.entries(
    processes,
  )) {
    mkdirSync(join(root, pid, 'fd'), { recursive: true });
    writeFileSync(join(root, pid, 'stat'), `${pid} (a) b) S ${parent} 1 1`);
    writeFileSync(join(root, pid, 'comm'), `${name}\n`);
    writeFileSync(join(root, pid, 'environ'), `A=b\0${environment}\0`);
    if (inode !== undefined) symlinkSync(`socket:[${inode}]`, join(root, pid, 'fd/3'));
  }
  return root;
}

const said = 'SSH_CONNECTION=198.51.100.7 40000 10.1.0.10 2222';
const session = { client: 0xc633_6407 | 0, serverPort: 2222 };

t.test('found in the environment of an ancestor', async (t) => {
  const root = proc(
    t,
    { 9: { parent: 8 }, 8: { parent: 7, environment: said }, 7: { parent: 1 } },
    line(),
  );
  t.same(findSshSession(root, 9), session);
  t.match(exceptionFor(session), { protocol: 6, port: 2222, prefix: { length: 32 } });
});

t.test('found by the socket that its sshd holds', async (t) => {
  const root = proc(
    t,
    { 9: { parent: 8 }, 8: { parent: 1, name: 'sshd-session', inode: '777' } },
    line(),
  );
  t.same(findSshSession(root, 9), session);
});

t.test('an IPv4 connection of an IPv6 socket counts', async (t) => {
  const mapped = line().replace(/0A00010A:|076433C6:/g, '0000000000000000FFFF0000$&');
  t.same(findSshSession(proc(t, { 9: { parent: 1, environment: said } }, '', mapped), 9), session);
});

t.test('what is not established, or another process holds, does not count', async (t) => {
  for (const [processes, tcp] of [
    [{ 9: { parent: 1, environment: said } }, line('06')],
    [{ 9: { parent: 1, environment: said } }, ''],
    [{ 9: { parent: 1, name: 'sshd', inode: '1' } }, line()],
    [{ 9: { parent: 1, name: 'nginx', inode: '777' } }, line()],
    [{ 9: { parent: 9 } }, line()],
  ] as [Record<number, Process>, string][]) {
    t.equal(findSshSession(proc(t, processes, tcp), 9), undefined);
  }
});

t.test('a session that comes by IPv6 is told', async (t) => {
  const value = '2001:db8::7 40000 2001:db8::10 2222';
  const row = line()
    .replace('0A00010A:', `${'0'.repeat(32)}:`)
    .replace('076433C6:', `${'1'.repeat(32)}:`);
  const processes = { 9: { parent: 8 }, 8: { parent: 1, environment: `SSH_CONNECTION=${value}` } };
  t.equal(findIpv6Session(proc(t, processes, '', row), 9), value);
  t.equal(findSshSession(proc(t, processes, '', row), 9), undefined);
  t.equal(findIpv6Session(proc(t, processes, line()), 9), undefined, 'nothing is established');
  const other = { 9: { parent: 1, environment: said } };
  t.equal(findIpv6Session(proc(t, other, line(), row), 9), undefined, 'it comes by IPv4');
});

t.test('what a process is told by its former self', async (t) => {
  const told = { 9: { parent: 1, environment: `SSH_CONNECTION=${sshConnectionOf(session)}` } };
  t.same(findSshSession(proc(t, told, line()), 9), session);
});
