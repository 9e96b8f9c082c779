import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import t from 'tap';
import { parseConfig, readConfig } from '../../cli/config/parse.ts';
import { Decider } from '../../cli/explain/decide.ts';
import { drawExplanation } from '../../cli/explain/draw.ts';
import { type Connection, formatRange, missOf } from '../../cli/explain/misses.ts';
import { parseTuple } from '../../cli/explain/tuple.ts';
import { UsageError } from '../../cli/usage-error.ts';
import { noRule } from '../../engine/classifier/rules.ts';
import { formatAddress, parseAddress } from '../../parsers/text.ts';
import { file } from './config-file.ts';

const policy = `workload: { management: [192.0.2.10, "tcp:198.51.100.0/24:22"] }
sets: { databases: [10.2.0.0/24, 10.2.7.9], web: [80, 443, 8000-8099] }
default: pass
rules:
  - { name: dns, direction: egress, protocol: udp, remotePort: 53, action: pass }
  - { name: web-in, direction: ingress, protocol: tcp, localPort: $web, action: redirect }
  - { name: db-out, direction: egress, protocol: tcp, remote: $databases, remotePort: 5432, action: redirect, onFailure: drop }
  - { name: no-telnet, protocol: tcp, localPort: 23, action: drop }
  - { name: backup, remote: 10.3.0.5, action: pass }
`;
const text = file({ x: policy });
const links = { interfaces: [], broadcasts: [parseAddress('10.1.0.255')!], globalIpv6: false };

function connection(words: string, opener: 0 | 1): Connection {
  const tuple = parseTuple(words.split(' '));
  const source = { address: tuple.source, port: tuple.sourcePort };
  const destination = { address: tuple.destination, port: tuple.destinationPort };
  const [local, remote] = opener === 0 ? [source, destination] : [destination, source];
  return {
    opener,
    protocol: tuple.protocol,
    local: local.address,
    localPort: local.port,
    remote: remote.address,
    remotePort: remote.port,
  };
}

t.test('between members of a group, whose agent redirects', async (t) => {
  const group = 'workload: { group: { members: [10.1.0.0/24], intraGroup: source } }';
  const decider = new Decider(readConfig(file({ x: group }), 'f'), links);
  const theirs = decider.explain(connection('tcp 10.1.0.7:4000 10.1.0.9:80', 1), undefined);
  t.match(theirs, {
    verdict: 'pass',
    decidedBy: { kind: 'built-in', name: /members of the group, the source's agent/, line: 6 },
    onFailure: '',
    misses: [],
    laterPackets: 'the kernel, which remembers the verdict',
  });
  const ours = decider.explain(connection('tcp 10.1.0.9:4000 10.1.0.7:80', 0), undefined);
  t.match(ours, { verdict: 'redirect', decidedBy: { kind: 'default' } });
});

t.test('who decides, and why the earlier rules do not', async (t) => {
  const decider = new Decider(readConfig(text, 'f'), links);
  const rows: [words: string, opener: 0 | 1, kind: string, name: string, line: number][] = [
    ['udp 10.1.0.9:4000 10.1.0.2:53', 0, 'rule', 'dns', 10],
    ['udp 10.1.0.2:4000 10.1.0.9:53', 1, 'default', 'default', 8],
    ['tcp 10.4.0.1:4000 10.1.0.9:8050', 1, 'rule', 'web-in', 11],
    ['tcp 10.1.0.9:4000 10.2.7.9:5432', 0, 'rule', 'db-out', 12],
    ['icmp 10.1.0.9 10.3.0.5', 0, 'rule', 'backup', 14],
    // Built in, each with the line that it comes from.
    ['udp 10.1.0.9:6081 10.9.0.4:6081', 0, 'built-in', "the tunnel's own packets", 4],
    ['tcp 10.1.0.9:4000 10.9.0.4:443', 0, 'built-in', 'telemetry to the firewall', 5],
    ['icmp 10.1.0.9 192.0.2.10', 0, 'built-in', 'a management exception', 6],
    ['tcp 198.51.100.7:4000 10.1.0.9:22', 1, 'built-in', 'a management exception', 6],
    ['udp 10.1.0.9:68 10.1.0.1:67', 0, 'built-in', 'DHCP, ports 67 and 68', 0],
    ['tcp 10.1.0.9:4000 169.254.169.254:80', 0, 'built-in', 'link-local, 169.254.0.0/16', 0],
    ['udp 10.1.0.9:4000 224.0.0.251:5353', 0, 'built-in', 'multicast, 224.0.0.0/4', 0],
    ['udp 10.1.0.9:1 255.255.255.255:9', 0, 'built-in', 'broadcast, 255.255.255.255', 0],
    ['tcp 127.0.0.1:1 127.0.0.1:9', 0, 'built-in', 'loopback, 127.0.0.0/8', 0],
    [
      'udp 10.1.0.9:1 10.1.0.255:9',
      0,
      'built-in',
      'the broadcast address of an interface, 10.1.0.255',
      0,
    ],
  ];
  for (const [words, opener, kind, name, line] of rows) {
    const { decidedBy } = decider.explain(connection(words, opener), undefined);
    t.same(decidedBy, { kind, name, line }, words);
  }
  t.equal(
    drawExplanation(
      decider.explain(connection('tcp 10.1.0.9:41000 10.2.0.7:5433', 0), 1400),
      false,
    ),
    `tcp 10.1.0.9:41000 -> 10.2.0.7:5433 (egress)
  verdict               pass
  decided by            default (line 8)
  later packets         the kernel, which remembers the verdict
earlier rules that do not match:
  dns (line 10): protocol tcp is not udp
  web-in (line 11): direction egress is not ingress
  db-out (line 12): remotePort 5433 is not 5432
  no-telnet (line 13): localPort 41000 is not 23
  backup (line 14): remote 10.2.0.7 is not 10.3.0.5
`,
  );
  t.match(decider.explain(connection('tcp 10.1.0.9:41000 10.2.0.7:5432', 0), 1400), {
    verdict: 'redirect',
    effect: '',
    onFailure: 'drop (onFailure of the rule)',
    established: 'pass (policy.established)',
    firewall: 'fw-a (10.9.0.4) by geneve',
    innerMtu: '1400 (as the running agent knows it)',
    laterPackets: 'user space, by way of the firewall',
  });
});

t.test('with acceleration the kernel carries what is established', async (t) => {
  const decider = new Decider(readConfig(file({ x: 'acceleration: kernel' }), 'f'), links);
  const laterPackets = (words: string) =>
    decider.explain(connection(words, 0), undefined).laterPackets;
  t.match(
    laterPackets('tcp 10.1.0.9:4000 10.2.0.7:80'),
    /^the kernel, by way of the firewall, once/,
  );
  t.equal(laterPackets('icmp 10.1.0.9 10.2.0.7'), 'user space, by way of the firewall');
});

t.test('what mode, roll-out, MTU and whole networks change', async (t) => {
  const words = 'tcp 10.1.0.9:41000 10.2.0.7:5432';
  const explain = (x: string) =>
    new Decider(readConfig(file({ x }), 'f'), links).explain(connection(words, 0), undefined);
  t.match(explain('policy: { mode: observe }'), {
    verdict: 'redirect',
    effect: 'passes and is counted (policy.mode: observe)',
  });
  t.match(explain('policy: { rollout: 10% }').effect, /^passes for 90% of new flows/);
  t.match(explain('tunnel: { mtu: 1400 }').innerMtu, /^1352 at most \(tunnel.mtu\)$/);
  t.match(explain('').innerMtu, /^the path's less 48: 1452 of 1500$/);
  t.match(
    explain('rules: [{ remote: 10.2.0.0/16, action: pass }]').laterPackets,
    /^all stay in the kernel: everything with this network passes$/,
  );
});

t.test('ranges are shown as they would be written', async (t) => {
  const range = (first: string, last: string) => ({
    first: parseAddress(first)! >>> 0,
    last: parseAddress(last)! >>> 0,
  });
  const rows: [string, string, string][] = [
    ['10.0.0.1', '10.0.0.1', '10.0.0.1'],
    ['10.0.0.0', '10.0.0.255', '10.0.0.0/24'],
    ['0.0.0.0', '255.255.255.255', '0.0.0.0/0'],
    ['128.0.0.0', '255.255.255.255', '128.0.0.0/1'],
    ['10.0.0.1', '10.0.0.2', '10.0.0.1-10.0.0.2'],
    ['10.0.0.0', '10.0.0.2', '10.0.0.0-10.0.0.2'],
  ];
  for (const [first, last, shown] of rows) t.equal(formatRange(range(first, last), false), shown);
  t.equal(formatRange({ first: 8000, last: 8099 }, true), '8000-8099');
});

t.test('the rule that the tables find is the first that has no reason not to match', async (t) => {
  const address = fc.constantFrom('10.0.0.0/8', '10.1.0.0/16', '10.1.0.9', '10.1.0.5-10.1.0.9');
  const port = fc.constantFrom('80', '80-90', '5432', '[22, 80]');
  const rule = fc.record(
    {
      action: fc.constantFrom('pass', 'drop', 'redirect'),
      direction: fc.constantFrom('egress', 'ingress', 'both'),
      protocol: fc.constantFrom('tcp', 'udp', 'any'),
      local: address,
      remote: address,
      localPort: port,
      remotePort: port,
    },
    { requiredKeys: ['action'] },
  );
  const end = fc.constantFrom('10.1.0.9', '10.1.0.7', '10.2.0.1', '11.0.0.1');
  const number = fc.constantFrom(80, 85, 90, 5432, 22, 1);
  const tuple = fc.tuple(fc.constantFrom('tcp', 'udp', '47'), end, number, end, number);
  fc.assert(
    fc.property(
      fc.array(rule, { maxLength: 12 }),
      fc.array(tuple, { minLength: 8, maxLength: 8 }),
      (rules, tuples) => {
        const lines = rules.map(
          (one) =>
            `{ ${Object.entries(one)
              .map((pair) => pair.join(': '))
              .join(', ')} }`,
        );
        const source = readConfig(file({ x: `rules: [${lines.join(', ')}]` }), 'f');
        const decider = new Decider(source, { interfaces: [], broadcasts: [], globalIpv6: false });
        for (const [index, [protocol, a, aPort, b, bPort]] of tuples.entries()) {
          const words =
            protocol === '47' ? `47 ${a} ${b}` : `${protocol} ${a}:${aPort} ${b}:${bPort}`;
          const asked = connection(words, (index % 2) as 0 | 1);
          const found = source.config.rules.findIndex((one) => missOf(one, asked) === undefined);
          const { rule: decided } = decider.decide(asked, false);
          if (decided !== (found < 0 ? noRule : found)) throw new Error(`${words}: ${decided}`);
        }
      },
    ),
    { numRuns: 300 },
  );
  t.pass('300 rule sets');
});

t.test('tuples: what is wrong is said', async (t) => {
  const rows: [words: string[], message: RegExp][] = [
    [[], /^a connection is needed, such as tcp/],
    [['tcp', '10.0.0.1:1', '-'], /^the shell took the > of -> for itself/],
    [['tcp', '10.0.0.1:1'], /^a connection is needed/],
    [['sctp', '10.0.0.1', '10.0.0.2'], /^sctp is no protocol/],
    [['any', '10.0.0.1', '10.0.0.2'], /^any is no protocol/],
    [['256', '10.0.0.1', '10.0.0.2'], /^256 is no protocol/],
    [['tcp', '10.0.0.1', '10.0.0.2:1'], /^10.0.0.1 has no port: write 10.0.0.1:PORT$/],
    [['icmp', '10.0.0.1:1', '10.0.0.2'], /^10.0.0.1:1 has a port, and icmp has none$/],
    [['47', '10.0.0.1:1', '10.0.0.2'], /and protocol 47 has none$/],
    [['tcp', 'db:1', '10.0.0.2:1'], /^db:1 is no IPv4 address and port$/],
    [['tcp', '10.0.0.1:1:1', '10.0.0.2:1'], /is no IPv4 address/],
    [['tcp', '10.0.0.1:65536', '10.0.0.2:1'], /^65536 is no port/],
  ];
  for (const [words, message] of rows) t.throws(() => parseTuple(words), { message });
  const good = parseTuple(['tcp', '10.0.0.1:1', 'to', '10.0.0.2:2']);
  t.same(parseTuple(['tcp 10.0.0.1:1->10.0.0.2:2']), good);
  t.same(parseTuple(['6', '10.0.0.1:1', '10.0.0.2:2']), good);
  const word = fc.oneof(fc.constantFrom('tcp', 'icmp', '->', ':', '10.0.0.1', '-'), fc.string());
  fc.assert(
    fc.property(fc.array(word, { maxLength: 5 }), (words) => {
      try {
        parseTuple(words);
      } catch (error) {
        if (!(error instanceof UsageError)) throw error;
      }
    }),
    { numRuns: 3000 },
  );
});

t.test('the command', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'mp-explain-'));
  t.teardown(() => rmSync(directory, { recursive: true, force: true }));
  const config = join(directory, 'config.yaml');
  writeFileSync(config, file({ x: `${policy}control: { socket: ${directory}/none.sock }` }));
  t.ok(parseConfig(text, 'f'));
  const run = (...args: string[]) => {
    const command = ['dist/cli/main.js', 'explain', '--config', config, ...args];
    return spawnSync(process.execPath, command, { encoding: 'utf8' });
  };
  const arrow = ['tcp', '10.1.0.9:41000', '->', '10.2.0.7:5432'];
  const json = run('--json', '--direction', 'egress', ...arrow);
  t.match(JSON.parse(json.stdout), {
    verdict: 'redirect',
    decidedBy: { name: 'db-out', line: 12 },
  });
  t.match(run(...arrow, '--local', '10.1.0.0/16').stdout, /\(egress\)\n {2}verdict {15}redirect/);
  t.match(run(...arrow, '--local', '10.2.0.7, 10.2.0.8').stdout, /\(ingress\)\n/);
  t.match(run(...arrow, '--local', '10.0.0.0/8'), { status: 2, stderr: /which end is this host/ });
  t.match(run(...arrow, '--direction', 'out'), { status: 2, stderr: /egress or ingress, not out/ });
  t.match(run(...arrow, '--local', 'here'), { status: 2, stderr: /--local: here is no address/ });
  t.match(run(), { status: 2, stderr: /a connection or --pcap FILE, one of the two/ });
  t.match(run('--pcap', '/nonexistent'), { status: 2, stderr: /cannot be read: ENOENT/ });
});

t.test('rules that are scanned: explain says so', async (t) => {
  const range = (i: number, limit: number) => {
    const ends = [i * i + 7, i * i + 99].map((n) => (Math.imul(n, 0x9e3779b1) >>> 0) % limit);
    return [Math.min(...ends), Math.max(...ends)];
  };
  const rules = Array.from({ length: 250 }, (_, i) => {
    const addresses = (n: number) =>
      range(n, 2 ** 32)
        .map(formatAddress)
        .join('-');
    const ports = (n: number) => range(n, 65536).join('-');
    const ends = `local: ${addresses(i)}, remote: ${addresses(i + 300)}`;
    return `  - { ${ends}, localPort: ${ports(i + 600)}, remotePort: ${ports(i + 900)}, action: drop }`;
  });
  const crossing = file({ x: `rules:\n${rules.join('\n')}` });
  const explain = (text: string, words: string) =>
    new Decider(readConfig(text, 'f'), links).explain(connection(words, 0), undefined);
  const words = 'icmp 10.1.0.9 10.2.0.7';
  t.match(
    drawExplanation(explain(crossing, words), false),
    /looked up in +all 250 rules one after the other: their ranges cross too much for a trie\n/,
  );
  t.notMatch(drawExplanation(explain(text, words), false), /looked up in/);
});
