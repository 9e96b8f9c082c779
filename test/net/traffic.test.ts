// Untimed: another test may run beside this one.
/**
 * What hosts speak, as it is, through the hair-pin in both directions (needs root): other people's
 * clients and servers, and IP protocols that the agent knows by number only. The rows are those of
 * docs/traffic.md.
 *
 *     workload 10.1.0.10 - router - transit - firewall 10.9.0.4
 *                            |
 *                       server 10.2.0.20
 */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { createCertificates } from '../../lab/certificates.ts';
import { must, type Namespace } from '../../lab/namespace.ts';
import { type Program, pause, run, start, until } from '../../lab/program.ts';
import { addresses } from '../../lab/topology.ts';
import { type Hairpin, startHairpin } from '../support/hairpin.ts';

const { server, workload } = addresses;
const python = '/usr/bin/python3';
const echo = join(process.cwd(), 'test/support/raw-echo.py');
/** Protocol numbers of IANA. */
const protocols = { gre: 47, esp: 50, sctp: 132 } as const;

/** A shell script at the client, and what it prints when all is well. */
type Row = { readonly name: string; readonly script: string; readonly prints: string };

function rowsFor(directory: string, address: string): Row[] {
  const sum = `sha256sum < ${directory}/files/random | cut -c1-64`;
  const same = (command: string) =>
    `[ "$(${command} | sha256sum)" = "$(sha256sum < ${directory}/files/random)" ] && echo same`;
  const ask = (name: string | number, count: number, length: number) =>
    `${python} ${echo} ask ${name} ${address} ${count} ${length}`;
  const ssh = `ssh -F none -i ${directory}/id -o StrictHostKeyChecking=no -o LogLevel=ERROR -o UserKnownHostsFile=/dev/null root@${address}`;
  return [
    { name: 'HTTP/1.1', script: same(`curl -sS -m 20 http://${address}/random`), prints: 'same' },
    {
      name: 'HTTP/2 over TLS',
      script: `curl -sSk -m 20 -o /dev/null -w '%{http_version}' https://${address}/random && h2load -n 200 -c 10 -m 10 https://${address}/small | grep -o '200 succeeded'`,
      prints: '2200 succeeded',
    },
    {
      name: 'QUIC-like UDP of 1,200 bytes to port 443',
      script: ask('udp', 500, 1200),
      prints: '500',
    },
    {
      name: 'DNS over UDP and TCP',
      script: `dig +short +time=2 @${address} good.example; dig +tcp +short +time=2 @${address} good.example`,
      prints: '192.0.2.2\n192.0.2.2',
    },
    {
      name: 'SSH',
      script: `${ssh} "${sum}" | grep -qx "$(${sum})" && ${same(`${ssh} cat < ${directory}/files/random`)}`,
      prints: 'same',
    },
    {
      name: 'rsync',
      script: `d=$(mktemp -d) && rsync -a rsync://${address}/files/ $d/ && diff -r $d ${directory}/files && echo same; rm -r $d`,
      prints: 'same',
    },
    {
      name: 'NFS (version 4)',
      script: `d=$(mktemp -d) && nfs-cp 'nfs://${address}/files/random?version=4' $d/r >/dev/null && cmp $d/r ${directory}/files/random && echo same; rm -r $d`,
      prints: 'same',
    },
    {
      name: 'SIP',
      script: `cd ${directory} && sipp -sn uac ${address} -m 20 -r 20 -nostdin -timeout 20 >/dev/null 2>&1; echo $?`,
      prints: '0',
    },
    { name: 'SCTP (protocol 132)', script: ask(protocols.sctp, 20, 900), prints: '20' },
    { name: 'GRE (protocol 47)', script: ask(protocols.gre, 20, 900), prints: '20' },
    { name: 'ESP (protocol 50)', script: ask(protocols.esp, 20, 900), prints: '20' },
    {
      name: 'ping of 4,000 and 20,000 bytes, in fragments',
      script: `for s in 4000 20000; do ping -n -q -c 3 -i 0.2 -W 2 -s $s ${address} | grep -o '[0-9] received'; done`,
      prints: '3 received\n3 received',
    },
    {
      name: 'traceroute and mtr',
      script: `traceroute -n -q 1 -w 2 ${address} | awk 'END { print $2 }'; mtr -n -r -c 2 ${address} | awk 'END { print $2, $3 }'`,
      prints: `${address}\n${address} 0.0%`,
    },
  ];
}

function nginxConfig(
  directory: string,
  host: string,
  address: string,
  pair: { certificate: string; key: string },
): string {
  const own = join(directory, host);
  mkdirSync(own);
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi']
    .map((name) => `${name}_temp_path ${own}/${name};`)
    .join('\n');
  const file = join(own, 'nginx.conf');
  writeFileSync(
    file,
    `
daemon off; pid ${own}/pid; error_log stderr; events {} user root;
http {
  access_log off;
  ${temporary}
  server {
    listen ${address}:80; listen ${address}:443 ssl http2;
    ssl_certificate ${pair.certificate}; ssl_certificate_key ${pair.key};
    root ${directory}/files;
  }
}
`,
  );
  return file;
}

/** NFS version 4 alone: one port, and none of the services around version 3. */
function ganeshaConfig(directory: string, name: string): string {
  const own = join(directory, `${name}-nfs`);
  mkdirSync(own);
  const file = join(own, 'ganesha.conf');
  writeFileSync(
    file,
    `
NFS_CORE_PARAM { Protocols = 4; Enable_NLM = false; Enable_RQUOTA = false; Enable_UDP = false; }
NFSV4 { Graceless = true; RecoveryRoot = "${own}"; Minor_Versions = 0; }
EXPORT {
  Export_Id = 1; Path = ${directory}/files; Pseudo = /files; Access_Type = RW;
  Squash = No_Root_Squash; SecType = sys; Protocols = 4; Transports = TCP;
  FSAL { Name = VFS; }
}
`,
  );
  return file;
}

function serve(directory: string, host: Namespace, name: string, address: string): Program[] {
  const pair = createCertificates(directory, name, address);
  const rsync = join(directory, `${name}-rsyncd.conf`);
  writeFileSync(rsync, `use chroot = no\nuid = root\n[files]\npath = ${directory}/files\n`);
  const sshd = [
    ...['UsePAM=no', 'StrictModes=no', 'PermitRootLogin=yes', `HostKey=${directory}/id`],
    ...[`AuthorizedKeysFile=${directory}/id.pub`, 'PidFile=none'],
  ].flatMap((option) => ['-o', option]);
  return [
    start(host, 'nginx', [
      '-c',
      nginxConfig(directory, `${name}-nginx`, address, pair),
      '-e',
      'stderr',
    ]),
    start(host, 'dnsmasq', [
      ...['--keep-in-foreground', '--no-resolv', '--no-hosts', '--conf-file=/dev/null'],
      ...['--user=root', '--pid-file=', `--listen-address=${address}`, '--bind-interfaces'],
      '--address=/good.example/192.0.2.2',
    ]),
    start(host, '/usr/sbin/sshd', ['-D', '-e', '-f', '/dev/null', ...sshd]),
    // A socket as its standard input would make it a child of inetd.
    start(host, 'bash', [
      '-c',
      `exec rsync --daemon --no-detach --config=${rsync} --log-file=${rsync}.log </dev/null`,
    ]),
    start(host, 'bash', [
      '-c',
      `cd ${directory}; exec sipp -sn uas -i ${address} -nostdin >/dev/null`,
    ]),
    start(host, 'ganesha.nfsd', [
      ...['-F', '-f', ganeshaConfig(directory, name), '-N', 'NIV_CRIT'],
      ...['-L', `${directory}/${name}-nfs.log`, '-p', `${directory}/${name}-nfs.pid`],
    ]),
    ...['udp', ...Object.values(protocols)].map((kind) =>
      start(host, python, [echo, 'echo', String(kind)]),
    ),
  ];
}

async function startServers(t: Test, { directory, topology }: Hairpin): Promise<void> {
  mkdirSync(join(directory, 'files'));
  must('bash', [
    '-c',
    `head -c 20M /dev/urandom > ${directory}/files/random; echo small > ${directory}/files/small`,
  ]);
  must('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-f', join(directory, 'id')]);
  mkdirSync('/run/sshd', { recursive: true });
  for (const [host, name, address] of [
    [topology.server, 'server', server],
    [topology.workload, 'workload', workload],
  ] as const) {
    const programs = serve(directory, host, name, address);
    t.teardown(() => Promise.all(programs.map((program) => program.stop('SIGTERM', 1000))));
    await until(
      `the servers on ${name}`,
      10_000,
      async () => {
        const ended = programs.find((program) => program.exitCode !== undefined);
        if (ended !== undefined) throw new Error(`${ended.name}: ${ended.errors.trim()}`);
        const { output } = await run(host, 'ss', ['-Htuln']);
        return [80, 443, 22, 53, 873, 2049, 5060].every((port) => output.includes(`:${port} `));
      },
      100,
    );
  }
}

t.test('everything passes unharmed, in both directions', async (t) => {
  const hairpin = await startHairpin(t);
  const { directory, topology } = hairpin;
  await startServers(t, hairpin);
  const agent = await hairpin.startAgent();
  for (const [way, from, address] of [
    ['egress', topology.workload, server],
    ['ingress', topology.server, workload],
  ] as const) {
    for (const { name, prints, script } of rowsFor(directory, address)) {
      const before = (await agent.status())!.counters.redirected?.packets ?? 0;
      const { errors, output } = await run(from, 'bash', ['-c', script]);
      t.equal(output.trim(), prints, `${way}: ${name} ${errors.trim()}`);
      const went = async () => (await agent.status())!.counters.redirected!.packets > before;
      await until(`${name} went through the firewall`, 2000, went);
    }
  }
  const {
    redirected,
    reinjected,
    'probe-answered': _probes,
    ...lost
  } = (await agent.status())!.counters;
  t.same(lost, {}, 'every packet was redirected or reinjected');
  // A packet that was fragmented for the tunnel comes back as several.
  t.ok(reinjected!.packets >= redirected!.packets);
});

t.test('multicast stays on its link', async (t) => {
  const hairpin = await startHairpin(t);
  const { topology } = hairpin;
  await hairpin.startAgent();
  const link = await hairpin.capture(topology.workload, 'multicast', {
    filter: 'host 239.1.1.1 or udp port 6081',
  });
  const { errors } = await run(topology.workload, 'socat', [
    '-u',
    'EXEC:echo hello',
    `UDP-DATAGRAM:239.1.1.1:5000,ip-multicast-if=${workload}`,
  ]);
  t.equal(errors, '');
  await pause(300);
  await link.stop();
  t.equal(await link.count('ip.dst == 239.1.1.1 && !geneve'), 1, 'as it was sent');
  t.equal(await link.count('geneve && ip.dst == 239.1.1.1'), 0, 'and in no tunnel');
});

t.test('the document has the same rows', async (t) => {
  const text = readFileSync('docs/traffic.md', 'utf8');
  const names = [...text.matchAll(/^\| ([^|]+?) \| (?:passes|not redirected)/gm)].map(
    ([, name]) => name,
  );
  const tested = rowsFor('', '').map(({ name }) => name);
  t.same(names, [...tested, 'multicast']);
});
